import gzip
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from pycaffe_prune.formats.caffe_pb2 import Datum

IdxWriter = Callable[[NDArray[np.uint8]], bytes]


@pytest.fixture(scope="session")
def idx_bytes() -> IdxWriter:
    """The inverse of the package's IDX reader."""

    def write(values: NDArray[np.uint8]) -> bytes:
        sizes = struct.pack(f">{values.ndim}I", *values.shape)
        return bytes([0, 0, 8, values.ndim]) + sizes + values.tobytes()

    return write


@pytest.fixture
def console() -> Console:
    return Console(file=StringIO(), width=1000)


@pytest.fixture
def small_mnist(
    tmp_path: Path, idx_bytes: IdxWriter
) -> tuple[Path, dict[str, tuple[NDArray[np.uint8], NDArray[np.uint8]]]]:
    """A folder with four IDX files of random content, in mixed spellings, and what they hold."""
    folder = tmp_path / "small mnist"
    folder.mkdir()
    random = np.random.default_rng(5)
    content = {}
    for split, stem, count in (("train", "train", 23), ("test", "t10k", 11)):
        images = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = random.integers(0, 10, count, dtype=np.uint8)
        content[split] = images, labels
        (folder / f"{stem}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(images)))
        (folder / f"{stem}-labels.idx1-ubyte").write_bytes(idx_bytes(labels))
    return folder, content


@pytest.fixture(scope="session")
def caffe_tool(caffe_python: Path) -> Callable[[str], list[str]]:
    """How to call one of Caffe's own tools: the first words of its command."""

    def command(name: str) -> list[str]:
        launcher = caffe_python.with_name("caffe-tool")
        if (caffe_python.parents[1] / "usr/bin" / name).is_file() and launcher.is_file():
            return [str(launcher), name]
        if (found := shutil.which(name)) is not None:
            return [found]
        pytest.skip(f"{name} is not here: it is in Debian's package caffe, which the prefix lacks")

    return command


def stored(lmdb_folder: Path) -> list[tuple[bytes, Datum]]:
    """Return what an LMDB holds, in the order of its keys."""
    with (
        lmdb.open(str(lmdb_folder), readonly=True, lock=False) as environment,
        environment.begin() as transaction,
    ):
        return [(key, Datum.FromString(value)) for key, value in transaction.cursor()]


@dataclass(frozen=True)
class SmallFlowers:
    """Twelve images under jpg/, of three classes, with the two MATLAB files beside that folder."""

    folder: Path
    labels: tuple[int, ...] = (3, 1, 2, 1, 3, 2, 1, 2, 3, 3, 1, 2)
    trnid: tuple[int, ...] = (2, 5, 6, 11)
    valid: tuple[int, ...] = (1, 12)
    tstid: tuple[int, ...] = (3, 4, 7, 8, 9, 10)

    def image(self, number: int) -> Path:
        return self.folder / "jpg" / f"image_{number:05}.jpg"


@pytest.fixture
def small_flowers(tmp_path: Path) -> SmallFlowers:
    savemat = pytest.importorskip("scipy.io").savemat
    flowers = SmallFlowers(tmp_path / "small flowers")
    (flowers.folder / "jpg").mkdir(parents=True)
    random = np.random.default_rng(3)
    for number in range(1, 13):
        rough = random.integers(0, 256, (6, 5, 3), dtype=np.uint8)
        height, width = random.integers(20, 70, 2)
        assert cv2.imwrite(str(flowers.image(number)), cv2.resize(rough, (width, height)))
    savemat(flowers.folder / "imagelabels.mat", {"labels": np.array([flowers.labels], np.uint8)})
    parts = {name: np.array([getattr(flowers, name)]) for name in ("trnid", "valid", "tstid")}
    savemat(flowers.folder / "setid.mat", parts)
    return flowers
