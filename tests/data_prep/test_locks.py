import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock
from rich.console import Console

from data_prep.locks import exclusive
from pycaffe_prune.errors import DataError


def test_it_waits_for_the_other_holder_and_says_so(tmp_path: Path, console: Console) -> None:
    lock = tmp_path / "lock"
    held, freed = threading.Event(), []

    def hold() -> None:
        with FileLock(lock):
            held.set()
            time.sleep(0.2)
            freed.append(time.monotonic())

    other = threading.Thread(target=hold)
    other.start()
    held.wait()
    with exclusive(lock, console):
        assert freed
        assert time.monotonic() >= freed[0]
    other.join()
    assert "waiting" in console.file.getvalue()


def test_a_free_lock_is_taken_in_silence_again_and_again(tmp_path: Path, console: Console) -> None:
    for _ in range(3):
        with exclusive(tmp_path / "lock", console):
            pass
    assert console.file.getvalue() == ""


def test_a_folder_that_cannot_be_written_to_is_one_sentence(
    tmp_path: Path, console: Console
) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(DataError, match="cannot be written"),
        exclusive(tmp_path / "file" / "lock", console),
    ):
        pass
