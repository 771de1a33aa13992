"""NumPy's ``.npy`` and ``.npz``: written as a stream, read from files that are not trusted.

NumPy's own reader evaluates the header as a Python literal and makes an array of any size that it
is told; here a header is matched and must agree with the bytes that are there.
"""

import math
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.files import existing_file
from pycaffe_prune.formats.limits import Budget

__all__ = [
    "NPY_MAGIC",
    "arrays_size",
    "holds_array",
    "parse_npy",
    "read_arrays",
    "write_arrays",
    "zipped_size",
]

NPY_MAGIC = b"\x93NUMPY"
_MOST_PACKED = 1032  # deflate makes of one byte at most as many
_DESCR = re.compile(r"'descr': *'([<>|=]?(?:b1|[iu][1248]|f[248]))'")
_ORDER = re.compile(r"'fortran_order': *(True|False)")
_SHAPE = re.compile(r"'shape': *\(((?:\d{1,19}, *)*(?:\d{1,19})?),?\)")
_MAX_HEADER = 10_000


class _Stream:
    """A file to zipfile that it cannot seek in, so that a file and a count get the same bytes."""

    def __init__(self, sink: Callable[[bytes], int]) -> None:
        self._sink = sink
        self.size = 0

    def write(self, data: bytes, /) -> int:
        self.size += len(data)
        return self._sink(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """The sink is its owner's."""


def write_arrays(file: BinaryIO, members: Iterable[tuple[str, NDArray[np.generic]]]) -> None:
    """Stream arrays to ``file`` as an uncompressed ``.npz``, which ``numpy.load`` opens.

    Args:
        file: Open for writing.
        members: Each array's name, without ``.npy``, and the array; one at a time is in memory.
    """
    _write_members(_Stream(file.write), members, zipfile.ZIP_STORED)


def arrays_size(members: Iterable[tuple[str, NDArray[np.generic]]], compression: int) -> int:
    """Return the size of the ``.npz`` that holds ``members``; none is written.

    Args:
        members: As for `write_arrays`.
        compression: ``zipfile.ZIP_STORED`` or ``zipfile.ZIP_DEFLATED``.
    """
    stream = _Stream(len)
    _write_members(stream, members, compression)
    return stream.size


def zipped_size(path: Path) -> int:
    """Return the size of a zip archive (deflate) that holds the one file; none is written."""
    stream = _Stream(len)
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive:
        archive.write(path, path.name)
    return stream.size


def _write_members(
    stream: _Stream, members: Iterable[tuple[str, NDArray[np.generic]]], compression: int
) -> None:
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, array in members:
            large = array.nbytes >= zipfile.ZIP64_LIMIT // 2
            with archive.open(f"{name}.npy", "w", force_zip64=large) as member:
                np.lib.format.write_array(member, np.asarray(array, order="C"), allow_pickle=False)


def read_arrays(
    path: Path, what: str, budget: Budget | None = None
) -> dict[str, NDArray[np.generic]]:
    """Read all arrays of an ``.npz``, in the archive's order; checksums are verified.

    Args:
        path: The file.
        what: What it should be, for the error's sentence.
        budget: What the arrays may take; default: by the file's size (`formats.limits`).

    Returns:
        Read-only arrays by name (without ``.npy``), whole numbers, booleans and floats only.

    Raises:
        FormatError: The file is missing, damaged, or holds anything else; pickles are not loaded.
    """
    existing_file(path, what)
    try:
        with zipfile.ZipFile(path) as archive:
            return dict(_arrays(archive, budget or Budget(path.stat().st_size)))
    except FormatError as error:
        raise FormatError(f"{path}: {error}; {what} is needed") from error
    except (
        *(zipfile.BadZipFile, zlib.error, OSError, EOFError, MemoryError),
        *(ValueError, KeyError, RuntimeError, OverflowError),
    ) as error:
        raise FormatError(f"{path}: cannot be read ({error}); {what} is needed") from error


def holds_array(path: Path, name: str) -> bool:
    """Tell whether the file is an archive with an array ``name``; a damaged one holds none."""
    try:
        with zipfile.ZipFile(path) as archive:
            return f"{name}.npy" in archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError):
        return False


def _arrays(archive: zipfile.ZipFile, budget: Budget) -> Iterator[tuple[str, NDArray[np.generic]]]:
    seen = set()
    for info in archive.infolist():
        if info.filename in seen or not info.filename.endswith(".npy"):
            raise FormatError(f"has a member '{info.filename}', which is no array or there twice")
        seen.add(info.filename)
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise FormatError(f"has a member '{info.filename}' that is packed, but not by deflate")
        if info.file_size > info.compress_size * _MOST_PACKED:
            raise FormatError(f"has a member '{info.filename}' of an impossible size")
        budget.spend(info.file_size)
        try:
            array = parse_npy(memoryview(archive.read(info)))
        except FormatError as error:
            raise FormatError(f"member '{info.filename}' {error}") from error
        yield info.filename.removesuffix(".npy"), array


def parse_npy(buffer: memoryview) -> NDArray[np.generic]:
    """Return the array of an ``.npy`` file's bytes, a read-only view of them.

    Raises:
        FormatError: They are no such file, or hold objects, text, records or complex numbers. The
            sentence lacks the file's name, which the caller adds.
    """
    major = buffer[6] if len(buffer) > 8 and buffer[:6] == NPY_MAGIC else 0
    if major not in (1, 2, 3):
        raise FormatError("is no NumPy array (.npy)")
    start = 10 if major == 1 else 12
    length = int.from_bytes(buffer[8:start], "little")
    header = bytes(buffer[start : start + min(length, _MAX_HEADER)]).decode("latin-1")
    descr, order, shape = (pattern.search(header) for pattern in (_DESCR, _ORDER, _SHAPE))
    if descr is None or order is None or shape is None:
        raise FormatError(f"holds no plain numbers, but {header.strip()[:80]!r}")
    dtype = np.dtype(descr[1])
    extents = tuple(int(extent) for extent in shape[1].split(",") if extent.strip())
    data = buffer[start + length :]
    if math.prod(extents) * dtype.itemsize != len(data):
        raise FormatError(f"has shape {extents} of {dtype} but holds {len(data)} bytes")
    try:
        flat = np.frombuffer(data, dtype)
        return flat.reshape(extents, order="F" if order[1] == "True" else "C")
    except ValueError as error:  # too many axes, or too large a one beside an empty one
        raise FormatError(f"has shape {extents}, which NumPy refuses") from error
