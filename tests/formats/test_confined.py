import os
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats import confined
from pycaffe_prune.formats.confined import Room, parsed_in_child


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "a").write_bytes(b"content")
    return tmp_path / "a"


def open_descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


@pytest.mark.parametrize("is_large", [False, True])
def test_arrays_and_notes_come_back(path: Path, is_large: bool) -> None:
    arrays = [
        np.arange(6, dtype="<f4").reshape(2, 3),
        np.zeros((0, 4), np.bool_),
        np.array(7, np.int64),
        np.arange(5000) % 2 == 0,
        *([np.zeros(5 << 20, np.uint8)] if is_large else []),
    ]

    def parse(room: Room) -> Any:
        for array in arrays:
            room.array(array.shape, array.dtype)[...] = array
        return {"read": path.read_text(), "by": os.getpid()}

    before = open_descriptors()
    found = parsed_in_child(path, parse)
    assert found.notes["read"] == "content"
    assert found.notes["by"] != os.getpid()
    assert (open_descriptors() == before) is not is_large
    for array, wanted in zip(found.arrays, arrays, strict=True):
        assert array.dtype == wanted.dtype
        np.testing.assert_array_equal(array, wanted)
        array[...] = 1  # it is ours alone


def crash(_: Room) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def bus_error(_: Room) -> None:
    os.kill(os.getpid(), signal.SIGBUS)


def loop(_: Room) -> None:
    while True:
        pass


def sleep(_: Room) -> None:
    threading.Event().wait()


def take_memory(_: Room) -> None:
    bytearray(1 << 40)


def take_room(room: Room) -> None:
    room.array((1 << 36,), np.uint8)


def beyond(room: Room) -> None:
    room.array_in_file((1000,), "<f4", 4)


def end(_: Room) -> None:
    os._exit(3)


def refuse(_: Room) -> None:
    raise FormatError("has no sense")


def fail(_: Room) -> None:
    raise RuntimeError("went wrong")


@pytest.mark.parametrize(
    ("parse", "words"),
    [
        (crash, "makes the library that reads it crash, SIGSEGV"),
        (bus_error, "makes the library that reads it crash, SIGBUS"),
        (loop, "takes too long"),
        (sleep, "takes too long"),
        (take_memory, "needs more memory than such a file may take"),
        (take_room, "cannot be read .*"),
        (beyond, "it ends before its values do"),
        (end, "the library that reads it fails"),
        (refuse, "^has no sense$"),
        (fail, "cannot be read .went wrong."),
    ],
)
def test_whatever_happens_is_one_sentence_and_no_process_is_left(
    path: Path, monkeypatch: pytest.MonkeyPatch, parse: Any, words: str
) -> None:
    monkeypatch.setattr(confined, "_CPU_SECONDS", 1)
    monkeypatch.setattr(confined, "_DEADLOCKED", 2)
    before, children = open_descriptors(), set(psutil.Process().children())
    with pytest.raises(FormatError, match=words):
        parsed_in_child(path, parse)
    assert set(psutil.Process().children()) <= children
    assert open_descriptors() == before


def test_threads_may_parse_at_once(path: Path) -> None:
    found: list[int] = []

    def read() -> None:
        found.extend(parsed_in_child(path, lambda _: 7).notes for _ in range(5))

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [7] * 15
