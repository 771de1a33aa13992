"""MATLAB 5 files: the whole numbers of a matrix, which is all that a data set's lists need.

SciPy's reader crashes on damaged files. This one follows MathWorks' description of the format
(MAT-File Format, level 5): a header of 128 bytes, then elements of a type, a size and a content;
a packed element holds one of the others.
"""

import math
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.errors import DataError

__all__ = ["read_mat"]

_HEADER = 128
_INT32, _MATRIX, _COMPRESSED = 5, 14, 15
_TYPES = {
    1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"
}  # fmt: skip
_NUMERIC_CLASSES = range(6, 16)  # mxDOUBLE to mxUINT64
_COMPLEX = 0x0800
_MOST = 16 << 20  # bytes of a file, and of what it unpacks to: the lists have 20 kB


class _DamagedError(Exception):
    """What is wrong, without the file's name."""


def read_mat(path: Path) -> Mapping[str, NDArray[Any]]:
    """Return the real numeric matrices of a MATLAB 5 file by their names; others are passed over.

    Returns:
        Arrays of the type in which the file stores them, in their own shapes.

    Raises:
        DataError: The file is missing, no MATLAB 5 file, or damaged.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MOST + 1)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    if len(content) > _MOST:
        raise DataError(f"{path}: has more than {_MOST} bytes, which no list of a data set has")
    order = {b"IM": "<", b"MI": ">"}.get(content[126:_HEADER])
    if order is None or content[:4] == bytes(4):
        raise DataError(f"{path}: is no MATLAB 5 file. Get the file again.")
    try:
        return dict(_matrices(content[_HEADER:], order))
    except (_DamagedError, zlib.error) as error:
        raise DataError(f"{path}: is damaged ({error}). Get the file again.") from error


def _matrices(content: bytes, order: str) -> Iterator[tuple[str, NDArray[Any]]]:
    left = _MOST
    for kind, inner in _elements(content, order):
        if kind == _COMPRESSED:
            unpacker = zlib.decompressobj()
            unpacked = unpacker.decompress(inner, left)
            left -= len(unpacked)
            if not unpacker.eof:
                raise _DamagedError("a packed matrix is cut short, or unpacks to too much")
            elements = list(_elements(unpacked, order))
        else:
            elements = [(kind, inner)]
        for inner_kind, matrix in elements:
            if inner_kind == _MATRIX and (found := _matrix(matrix, order)) is not None:
                yield found


def _elements(content: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Type and content of each element; small ones hold both in their first eight bytes."""
    place = 0
    while place + 8 <= len(content):
        kind, size = (int(word) for word in np.frombuffer(content, f"{order}u4", 2, place))
        start, end = place + 8, place + 8 + size
        after = end if kind == _COMPRESSED else end + -size % 8
        if kind >> 16:
            kind, size = kind & 0xFFFF, kind >> 16
            start, end, after = place + 4, place + 4 + size, place + 8
            if size > 4:
                raise _DamagedError(f"a small element has {size} bytes")
        if end > len(content):
            raise _DamagedError(f"an element of {size} bytes is cut short")
        yield kind, content[start:end]
        place = after


def _matrix(content: bytes, order: str) -> tuple[str, NDArray[Any]] | None:
    parts = list(_elements(content, order))
    if len(parts) < 4:
        return None
    (_, flags), (kind, extents), (_, name), (stored, values) = parts[:4]
    if len(flags) != 8:
        raise _DamagedError("a matrix has no flags")
    flag = int(np.frombuffer(flags, f"{order}u4", 1)[0])
    if flag & 0xFF not in _NUMERIC_CLASSES or flag & _COMPLEX:
        return None
    if kind != _INT32 or len(extents) % 4 or not 2 <= len(extents) // 4 <= 32:
        raise _DamagedError("a matrix has no shape")
    dtype = np.dtype(order + _TYPES[stored]) if stored in _TYPES else None
    shape = tuple(int(extent) for extent in np.frombuffer(extents, f"{order}i4"))
    if dtype is None or min(shape) < 0 or len(values) % dtype.itemsize:
        raise _DamagedError("a matrix has a shape or values of no known kind")
    if math.prod(shape) * dtype.itemsize != len(values):
        raise _DamagedError(f"a matrix of shape {shape} has {len(values)} bytes")
    matrix = np.frombuffer(values, dtype).reshape(shape, order="F")
    return name.decode("latin-1"), matrix.astype(dtype.newbyteorder("="))
