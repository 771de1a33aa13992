"""Blobs: BlobProto messages as NumPy arrays, without a copy where the file allows it."""

import math
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats import wire
from pycaffe_prune.formats.caffe_pb2 import BlobProto, BlobShape
from pycaffe_prune.formats.files import existing_file

__all__ = [
    "MAX_COUNT",
    "Blob",
    "mapped_file",
    "naming_file",
    "read_blob",
    "read_diff",
    "require_count",
    "squeeze_legacy",
    "write_blob",
    "written_size",
]

Blob = NDArray[np.float32]

MAX_COUNT = 2**31 - 1
"""The most values a blob can have: Caffe counts them in an int."""

_DATA = BlobProto.DATA_FIELD_NUMBER
_DIFF = BlobProto.DIFF_FIELD_NUMBER
_SHAPE = BlobProto.SHAPE_FIELD_NUMBER
_DOUBLE_DATA = BlobProto.DOUBLE_DATA_FIELD_NUMBER
_DOUBLE_DIFF = BlobProto.DOUBLE_DIFF_FIELD_NUMBER
_MAX_AXES = 32  # kMaxBlobAxes of include/caffe/blob.hpp
_ARRAYS = {_DATA: "<f4", _DIFF: "<f4", _DOUBLE_DATA: "<f8", _DOUBLE_DIFF: "<f8"}


def mapped_file(path: Path, what: str) -> memoryview:
    """Map a file into memory, read-only; the mapping lives as long as a view of it.

    Raises:
        FormatError: ``path`` is missing, a folder, or empty; ``what`` says what it should be.
    """
    try:
        with existing_file(path, what).open("rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except ValueError as error:
        raise FormatError(f"{path}: is empty; {what} is needed") from error
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror})") from error


@contextmanager
def naming_file(path: Path, what: str) -> Iterator[None]:
    """Put the file's name and kind before the sentence of a `FormatError` from the body."""
    try:
        yield
    except (FormatError, DecodeError, UnicodeDecodeError) as error:
        sentence = str(error) if isinstance(error, FormatError) else f"cannot be decoded ({error})"
        raise FormatError(f"{path}: {sentence}; {what} is needed") from error


def _payload(buffer: memoryview, field: wire.Field, end: int) -> tuple[NDArray[np.generic], int]:
    """The values of one occurrence (packed), or of one run (unpacked), and where it ends."""
    dtype = np.dtype(_ARRAYS[field.number])
    if field.wire_type == wire.LENGTH:
        if (field.end - field.start) % dtype.itemsize:
            raise FormatError(f"has a broken array of floats at byte {field.start}")
        return np.frombuffer(buffer[field.start : field.end], dtype), field.end
    if field.wire_type == {4: wire.FIXED32, 8: wire.FIXED64}[dtype.itemsize]:
        values, run_end = wire.fixed_run(buffer, field, end)
        return values.view(dtype), run_end
    raise FormatError(f"has floats of a wrong wire type at byte {field.tag}")


def read_blob(buffer: memoryview, start: int, end: int) -> tuple[Blob, bool]:
    """Read the BlobProto in ``buffer[start:end]``; gradients (``diff``) in it are left out.

    Returns:
        The blob, float32, in its own shape: a read-only view of the file unless the file holds
        doubles or unpacked floats; and whether the shape is a legacy one (num, channels, height,
        width), in which case it has four dimensions (see `squeeze_legacy`).

    Raises:
        FormatError: The message is damaged, or its shape and its number of values disagree.
    """
    header, chunks = _split_arrays(buffer, start, end)
    proto = BlobProto.FromString(header)
    flat = _either(chunks, _DOUBLE_DATA, _DATA)
    legacy = any(proto.HasField(name) for name in ("num", "channels", "height", "width"))
    shape = (
        (proto.num, proto.channels, proto.height, proto.width) if legacy else tuple(proto.shape.dim)
    )
    require_count(shape, flat.size)
    return _as_floats(flat).reshape(shape), legacy


def read_diff(buffer: memoryview, start: int, end: int) -> Blob:
    """Read the gradients of the BlobProto in ``buffer[start:end]``: one axis, empty if it has none.

    Raises:
        FormatError: The message is damaged.
    """
    _, chunks = _split_arrays(buffer, start, end)
    return _as_floats(_either(chunks, _DOUBLE_DIFF, _DIFF))


_Chunks = dict[int, list[NDArray[np.generic]]]


def _split_arrays(buffer: memoryview, start: int, end: int) -> tuple[bytes, _Chunks]:
    """A BlobProto's message without its arrays, and the parts of these by their fields."""
    header = bytearray()
    chunks: _Chunks = {}
    position = start
    while position < end:
        field = wire.read_field(buffer, position, end)
        if field.number in _ARRAYS:
            values, position = _payload(buffer, field, end)
            chunks.setdefault(field.number, []).append(values)
        else:
            header += buffer[field.tag : field.end]
            position = field.end
    return bytes(header), chunks


def _either(chunks: _Chunks, doubles: int, floats: int) -> NDArray[np.generic]:
    """An array that is there in doubles or in floats; doubles count where both are."""
    flat = _joined(chunks.get(doubles, []))
    return flat if flat.size else _joined(chunks.get(floats, []))


def _as_floats(flat: NDArray[np.generic]) -> Blob:
    with np.errstate(over="ignore", invalid="ignore"):  # too large a double becomes inf, as in C++
        return flat.astype(np.float32, copy=False)


def _joined(chunks: list[NDArray[np.generic]]) -> NDArray[np.generic]:
    if not chunks:
        return np.empty(0, np.float32)
    return chunks[0] if len(chunks) == 1 else np.concatenate(chunks)


def require_count(shape: tuple[int, ...], count: int) -> None:
    """Refuse a shape that ``count`` values do not fill, or that Caffe's blobs cannot have.

    Raises:
        FormatError: It is one; the sentence lacks file and layer, which the caller adds.
    """
    if len(shape) > _MAX_AXES:
        raise FormatError(f"has {len(shape)} axes; Caffe's blobs have at most {_MAX_AXES}")
    extents = "x".join(map(str, shape)) or "()"
    if any(extent < 0 for extent in shape) or math.prod(shape) != count:
        raise FormatError(f"has shape {extents} but holds {count} values")
    if any(extent > MAX_COUNT for extent in shape) or math.prod(filter(None, shape)) > MAX_COUNT:
        raise FormatError(f"has shape {extents}, which is too large for Caffe")


def squeeze_legacy(blob: Blob, layer_type: str, index: int) -> Blob:
    """Give a legacy four-dimensional blob the shape that Caffe's layer has today.

    Old files say (1, 1, N, K) for InnerProduct weights and (1, 1, 1, N) for biases; the layer's
    type decides, not the extents (`src/caffe/blob.cpp`, ShapeEquals, accepts both).

    Args:
        blob: Four dimensions, as read.
        layer_type: Caffe's type string, e.g. ``InnerProduct``.
        index: Position among the layer's blobs; 1 is the bias.
    """
    if layer_type == "InnerProduct":
        rank = 2 if index == 0 else 1
    elif layer_type in ("Convolution", "Deconvolution"):
        rank = 4 if index == 0 else 1
    else:
        rank = 4
    if any(extent != 1 for extent in blob.shape[: 4 - rank]):
        return blob
    return blob.reshape(blob.shape[4 - rank :])


@dataclass(frozen=True)
class _Framed:
    """A BlobProto to be written: what comes before each array of floats, and after them."""

    arrays: tuple[tuple[bytes, Blob], ...]
    after: bytes

    @classmethod
    def of(cls, blob: Blob, diff: Blob | None) -> "_Framed":
        """Frame a blob as Caffe does: its values, its gradients, its shape."""
        arrays = [(_DATA, blob)] if diff is None else [(_DATA, blob), (_DIFF, diff)]
        shape = BlobShape(dim=blob.shape).SerializeToString()
        return cls(
            tuple((_packed(number, values), values) for number, values in arrays),
            bytes([_SHAPE << 3 | wire.LENGTH]) + wire.encode_varint(len(shape)) + shape,
        )

    @property
    def length(self) -> int:
        """Bytes of the message."""
        arrays = sum(len(before) + values.size * 4 for before, values in self.arrays)
        return arrays + len(self.after)


def _packed(number: int, values: Blob) -> bytes:
    """The bytes before packed floats: none where there are no floats."""
    if not values.size:
        return b""
    return bytes([number << 3 | wire.LENGTH]) + wire.encode_varint(values.size * 4)


def write_blob(file: BinaryIO, blob: Blob, field_number: int, diff: Blob | None = None) -> None:
    """Write ``blob`` as the BlobProto field ``field_number`` of the message being written.

    Args:
        file: The message.
        blob: The values.
        field_number: The field.
        diff: Gradients in the blob's shape, None for a BlobProto without any.
    """
    framed = _Framed.of(blob, diff)
    file.write(wire.encode_varint(field_number << 3 | wire.LENGTH))
    file.write(wire.encode_varint(framed.length))
    for before, values in framed.arrays:
        file.write(before)
        file.write(np.ascontiguousarray(values, "<f4").reshape(-1).view(np.uint8).data)
    file.write(framed.after)


def written_size(blob: Blob, field_number: int, diff: Blob | None = None) -> int:
    """How many bytes `write_blob` writes."""
    length = _Framed.of(blob, diff).length
    tag = wire.encode_varint(field_number << 3 | wire.LENGTH)
    return len(tag) + len(wire.encode_varint(length)) + length
