"""IDX files, the format MNIST comes in: big-endian header, then one byte a value."""

import gzip
import math
import mmap
import os
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.errors import DataError, FormatError
from pycaffe_prune.formats.limits import Budget

__all__ = ["idx_shape", "parse_idx", "read_labelled_images", "read_unpacked"]

_GZIP_MAGIC = b"\x1f\x8b"
_UNSIGNED_BYTE = 0x08  # IDX's type code; MNIST uses no other
_LONGEST_HEADER = 4 + 4 * 255
_MOST_BEYOND = 1 << 20
_UNREADABLE = (OSError, EOFError, zlib.error)  # gzip.BadGzipFile is an OSError


def read_unpacked(path: Path) -> bytes | memoryview:
    """Return an IDX file's bytes, unpacked if they are gzip's (told by content, not by name).

    A file that is not packed is mapped, not copied; of one that is, no more is unpacked than its
    header promises, and a little, so that there being too much can be told.

    Raises:
        DataError: The file cannot be read, is damaged gzip, has no IDX header, or promises more
            than a file of its size may unpack to (`pycaffe_prune.formats.limits`).
    """
    try:
        with path.open("rb") as file:
            if not os.fstat(file.fileno()).st_size:
                return b""  # which cannot be mapped
            content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        if content[:2] != _GZIP_MAGIC:
            return content
        shape = idx_shape(path)
        promised = 4 + 4 * len(shape) + math.prod(shape)
        Budget(len(content)).spend(promised)
        with gzip.open(path) as packed:
            return packed.read(promised + _MOST_BEYOND)
    except FormatError as error:
        raise DataError(f"{path}: {error}") from error
    except _UNREADABLE as error:
        raise DataError(_damaged(path, error)) from error


def idx_shape(path: Path) -> tuple[int, ...]:
    """Return the dimensions that the header of an IDX file names, without reading the values.

    Raises:
        DataError: The file cannot be read or has no IDX header.
    """
    try:
        with path.open("rb") as file:
            packed = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
        with gzip.open(path) if packed else path.open("rb") as file:
            header = file.read(_LONGEST_HEADER)
    except _UNREADABLE as error:
        raise DataError(_damaged(path, error)) from error
    return _header(header, str(path))


def parse_idx(content: bytes | memoryview, name: str) -> NDArray[np.uint8]:
    """Return the array that an unpacked IDX file holds (read-only, in the header's shape).

    Args:
        content: The whole unpacked file.
        name: What to call it in an error.

    Raises:
        DataError: Wrong magic number or element type, or fewer or more values than the header says.
    """
    shape = _header(content, name)
    start = 4 + 4 * len(shape)
    expected, found = math.prod(shape), len(content) - start
    if found < expected:
        raise DataError(
            f"{name}: truncated: its header promises {_text(shape)} = {expected} bytes, "
            f"only {found} are there. Get the file again."
        )
    if found > expected:
        raise DataError(
            f"{name}: {found - expected} bytes too many after the {_text(shape)} values that "
            "its header promises. Get the file again."
        )
    try:
        return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)
    except ValueError as error:  # no values, in dimensions of which others are too large, or many
        raise DataError(
            f"{name}: its header promises {len(shape)} dimensions, {_text(shape[:4])} …, in which "
            "no images lie. Get the file again."
        ) from error


def read_labelled_images(images: Path, labels: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Read an image file and its label file.

    Returns:
        The images (uint8, count × height × width) and the labels (uint8, count), read-only.

    Raises:
        DataError: One is damaged or of the wrong rank, or they differ in count.
    """
    pixels = parse_idx(read_unpacked(images), str(images))
    classes = parse_idx(read_unpacked(labels), str(labels))
    if pixels.ndim != 3:
        raise DataError(f"{images}: holds {_text(pixels.shape)} values, not count×height×width")
    if classes.ndim != 1:
        raise DataError(f"{labels}: holds {_text(classes.shape)} values, not one label an image")
    if len(pixels) != len(classes):
        raise DataError(
            f"{images} has {len(pixels)} images but {labels} has {len(classes)} labels: "
            "they do not belong together"
        )
    return pixels, classes


def _header(content: bytes | memoryview, name: str) -> tuple[int, ...]:
    if len(content) < 4:
        raise DataError(f"{name}: truncated: {len(content)} bytes are no IDX header")
    if content[:2] != b"\0\0" or content[2] != _UNSIGNED_BYTE or content[3] == 0:
        raise DataError(
            f"{name}: starts with 0x{content[:4].hex()}; an IDX file of bytes starts with 0x000008 "
            "and its number of dimensions. Is it the right file?"
        )
    dimensions = content[4 : 4 + 4 * content[3]]
    if len(dimensions) < 4 * content[3]:
        raise DataError(f"{name}: truncated inside its header. Get the file again.")
    return tuple(int(size) for size in np.frombuffer(dimensions, dtype=">u4"))


def _damaged(path: Path, error: Exception) -> str:
    reason = getattr(error, "strerror", None) or error
    return f"{path}: cannot be read ({reason}). Get the file again."


def _text(shape: tuple[int, ...]) -> str:
    return "×".join(str(size) for size in shape)
