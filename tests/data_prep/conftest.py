import gzip
import struct
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

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
