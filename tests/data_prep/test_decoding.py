"""Decoding in children: a crash, a loop or a bomb costs its image, and no other."""

import os
import resource
import signal
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from data_prep import decoding, flowers102
from data_prep.decoding import Decoders
from data_prep.flowers102 import build_flowers102
from data_prep.manifest import load_manifest
from data_prep.warp import decode
from pycaffe_prune.errors import DataError
from tests.data_prep.conftest import SmallFlowers, stored


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def loop() -> None:
    while True:
        pass


def bomb() -> None:
    np.ones(2 << 30, np.uint8)


def fail() -> None:
    raise RuntimeError("a fault that is no DataError")


def refuse() -> None:
    raise DataError("no image")


WHAT_ONE_DOES = {
    crash: "makes the library that decodes it crash, SIGSEGV",
    loop: "takes too long to decode",
    bomb: "needs more memory than an image may take",
    fail: "makes the library that decodes it fail",
    refuse: "no image",
}


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Decoders]]:
    """Decoders of 5 arrays of 2×3 with the images' numbers in them, and what some numbers do."""
    monkeypatch.setattr(decoding, "_CPU_SECONDS", 1)  # 0 ends a child at its first tick
    made = []

    def make(**bad: Callable[[], None]) -> Decoders:
        def decode_number(number: int, pixels: NDArray[np.uint8]) -> bytes:
            bad.get(f"at_{number}", str)()
            pixels[...] = number
            return b"x" * number

        made.append(Decoders(decode_number, 5, (2, 3)))
        return made[-1]

    yield make
    for decoders in made:
        decoders.close()


@pytest.mark.parametrize("bad", WHAT_ONE_DOES)
def test_what_one_image_does_costs_no_other(
    bad: Callable[[], None], make: Callable[..., Decoders]
) -> None:
    decoders = make(at_7=bad, at_9=refuse)
    pixels = np.zeros((5, 2, 3), np.uint8)
    answers = decoders([6, 7, 8, 9, 10], pixels)
    assert [answers[at] for at in (0, 2, 4)] == [b"x" * 6, b"x" * 8, b"x" * 10]
    assert [np.unique(pixels[at]).tolist() for at in (0, 2, 4)] == [[6], [8], [10]]
    for at, did in ((1, bad), (3, refuse)):
        assert isinstance(answers[at], DataError)
        assert str(answers[at]) == WHAT_ONE_DOES[did]
    assert decoders([], pixels[:0]) == []


def children() -> set[int]:
    return {
        int(name) for name in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    }


def test_a_child_serves_on_and_is_gone_when_it_is_closed(make: Callable[..., Decoders]) -> None:
    before = children()
    decoders, pixels = make(), np.zeros((1, 2, 3), np.uint8)
    served = set()
    for number in range(1, 5):
        assert decoders([number], pixels) == [b"x" * number]
        served |= children() - before
    assert len(served) == 1
    decoders.close()
    assert children() == before


def test_a_child_ends_with_its_parent(make: Callable[..., Decoders]) -> None:
    ours, theirs = os.pipe()
    parent = os.fork()
    if parent == 0:
        before = children()
        make()([1], np.zeros((1, 2, 3), np.uint8))
        os.write(theirs, str(*(children() - before)).encode())
        os.kill(os.getpid(), signal.SIGKILL)
    os.close(theirs)
    child = int(os.read(ours, 20))
    os.close(ours)
    os.waitpid(parent, 0)
    end = time.monotonic() + 10
    while Path(f"/proc/{child}").exists() and " Z " not in Path(f"/proc/{child}/stat").read_text():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_an_image_at_which_opencv_crashes_is_named_and_left_out(
    small_flowers: SmallFlowers,
    tmp_path: Path,
    console: Console,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    evil = small_flowers.image(small_flowers.tstid[2])  # of the training images

    def decode_or_crash(content: bytes) -> NDArray[np.uint8]:
        if content == evil.read_bytes():
            crash()
        return decode(content)

    monkeypatch.setattr(flowers102, "decode", decode_or_crash)
    build = [tmp_path / "out", small_flowers.folder]
    options = {"size": 16, "console": console}
    with pytest.raises(DataError, match=rf"1 train images are .* damaged: jpg/{evil.name}\."):
        build_flowers102(*build, **options)
    manifest = build_flowers102(*build, **options, keep_going=True)
    assert manifest.splits["train"].left_out == [f"jpg/{evil.name}"]
    assert len(stored(tmp_path / "out/flowers102_train_lmdb")) == len(small_flowers.tstid) - 1
    assert load_manifest(tmp_path / "out") == manifest


def with_false_size(ending: str) -> bytes:
    """A small image whose header has hundreds of millions of pixels."""
    image = bytearray(cv2.imencode(ending, np.zeros((9, 7, 3), np.uint8))[1].tobytes())
    at, size = {
        ".jpg": (image.find(b"\xff\xc0") + 5, b"\x7f\xff\x7f\xff"),
        ".png": (16, b"\0\0\x70\0\0\0\x70\0"),
        ".bmp": (18, b"\0\x70\0\0\0\x70\0\0"),
        ".webp": (21, b"\xff\xff\xff\x0f"),
        ".tiff": (image.find(b"\0\1\3\0\1\0\0\0") + 8, b"\xff\x7f"),
    }[ending]
    image[at : at + len(size)] = size
    if ending == ".png":
        image[29:33] = zlib.crc32(image[12:29]).to_bytes(4, "big")
    if ending == ".tiff":
        at = image.find(b"\1\1\3\0\1\0\0\0") + 8
        image[at : at + 2] = b"\xff\x7f"
    return bytes(image)


@pytest.mark.parametrize("ending", [".jpg", ".png", ".bmp", ".webp", ".tiff"])
def test_a_headers_size_is_looked_at_before_anything_is_taken_for_it(ending: str) -> None:
    def peak_of(number: int, _: NDArray[np.uint8]) -> bytes:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        content = bytes(number) + with_false_size(ending)
        with pytest.raises(DataError, match="no image"):
            decode(content)
        return str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before).encode()

    with closing(Decoders(peak_of, 1, (1,))) as decoders:
        (kilobytes,) = decoders([0], np.zeros((1, 1), np.uint8))
    assert isinstance(kilobytes, bytes)
    assert int(kilobytes) < 20_000
