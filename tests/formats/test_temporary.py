"""Temporary folders of living processes stay, those of killed ones go."""

import os
import signal
import tempfile
from pathlib import Path

import pytest

from pycaffe_prune.formats import temporary
from pycaffe_prune.formats.temporary import temporary_folder


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty place for temporary files, which nobody has tidied."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(temporary, "_tidied", set())
    return tmp_path


def holding_a_folder() -> tuple[int, Path]:
    """Fork a process that has written into a temporary folder of its own, and waits."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with temporary_folder() as folder:
                (folder / "deep").mkdir()
                (folder / "deep/file").write_text("x")
                os.write(theirs, os.fsencode(folder))
                signal.pause()
        finally:
            os._exit(1)
    os.close(theirs)
    folder = Path(os.fsdecode(os.read(ours, 1000)))
    os.close(ours)
    return child, folder


def kill(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_a_folder_is_empty_and_gone_at_the_end_whatever_ends_it(place: Path) -> None:
    def work() -> None:
        with temporary_folder() as folder:
            assert folder.parent == place
            assert not list(folder.iterdir())
            (folder / "file").write_text("x")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert not list(place.iterdir())


def test_the_next_process_removes_what_a_killed_one_left_and_nothing_of_a_living_one(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead, left = holding_a_folder()
    alive, held = holding_a_folder()
    kill(dead)
    try:
        with temporary_folder() as ours:
            assert {*place.iterdir()} == {ours, held}
            assert (held / "deep/file").read_text() == "x"
            assert left not in place.iterdir()
    finally:
        kill(alive)
    with temporary_folder():  # looked for once in a process
        assert held.exists()
    monkeypatch.setattr(temporary, "_tidied", set())
    with temporary_folder():
        assert not held.exists()


def test_what_is_not_ours_is_left_alone(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = place / "elsewhere"
    elsewhere.mkdir()
    (place / "caffe-prune-work-abcdefg1").symlink_to(elsewhere)
    (place / "caffe-prune-work-abcdefg2").write_text("a file")
    for name in ("caffe-prune-abcdefgh", "caffe-prune-work-", "caffe-prune-work-abcdefg1.mine"):
        (place / name).mkdir()
    before = {*place.iterdir()}
    with temporary_folder():
        pass
    assert {*place.iterdir()} == before
    (place / "caffe-prune-work-abcdefg3").mkdir()
    monkeypatch.setattr(temporary, "_tidied", set())
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with temporary_folder():
        assert (place / "caffe-prune-work-abcdefg3").is_dir()


def test_a_folder_that_was_tidied_before_it_was_locked_is_made_again(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def made_and_removed(prefix: str) -> str:
        folder = place / f"{prefix}{len(made):08}"
        folder.mkdir()
        if not made:
            folder.rmdir()
        made.append(folder)
        return str(folder)

    monkeypatch.setattr(tempfile, "mkdtemp", made_and_removed)
    with temporary_folder() as folder:
        assert [*made] == [made[0], folder]
