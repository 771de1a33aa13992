"""The protobuf wire format, walked without copying: where each field of a message lies.

A caffemodel is a few kilobytes of structure around hundreds of megabytes of packed floats. Walking
it finds the floats in place, so that they become NumPy views instead of Python objects.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.errors import FormatError

__all__ = [
    "FIXED32",
    "FIXED64",
    "LENGTH",
    "VARINT",
    "Field",
    "encode_varint",
    "fields",
    "fixed_run",
    "read_field",
    "read_varint",
]

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5

_MAX_FIELD_NUMBER = (1 << 29) - 1


class Field(NamedTuple):
    """One field of a message: its number, wire type, and the byte ranges it takes."""

    number: int
    wire_type: int
    tag: int
    """Offset of the tag's first byte."""
    start: int
    """Offset of the value (after the length of a length-delimited field)."""
    end: int
    """Offset just past the value."""


def read_varint(buffer: memoryview, position: int, end: int) -> tuple[int, int]:
    """Return the varint at ``position`` and the offset just past it."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= end:
            raise FormatError(f"is truncated inside a number at byte {position}")
        byte = buffer[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise FormatError(f"has a number of more than 10 bytes before byte {position}")


def read_field(buffer: memoryview, position: int, end: int) -> Field:
    """Return the field whose tag is at ``position`` of the message that ends at ``end``.

    Raises:
        FormatError: A length reaches past the message's end, or the tag is none. The sentence
            lacks the file's name, which the caller adds.
    """
    tag, start = read_varint(buffer, position, end)
    number, wire_type = tag >> 3, tag & 7
    if not 1 <= number <= _MAX_FIELD_NUMBER:
        raise FormatError(f"has no valid field number at byte {position}")
    if wire_type == VARINT:
        value_end = read_varint(buffer, start, end)[1]
    elif wire_type == LENGTH:
        length, start = read_varint(buffer, start, end)
        value_end = start + length
    elif wire_type == FIXED32:
        value_end = start + 4
    elif wire_type == FIXED64:
        value_end = start + 8
    else:
        raise FormatError(f"has a field of a wire type unknown to Caffe at byte {position}")
    if value_end > end:
        raise FormatError(
            f"is truncated or damaged: the field at byte {position} should end at byte "
            f"{value_end}, but its message ends at byte {end}"
        )
    return Field(number, wire_type, position, start, value_end)


def fields(buffer: memoryview, start: int, end: int) -> Iterator[Field]:
    """Yield the fields of the message in ``buffer[start:end]``, in file order.

    Raises:
        FormatError: As `read_field`.
    """
    position = start
    while position < end:
        field = read_field(buffer, position, end)
        yield field
        position = field.end


def fixed_run(buffer: memoryview, first: Field, end: int) -> tuple[NDArray[np.uint8], int]:
    """Read at once the run of unpacked values (old files hold floats so) that begins at ``first``.

    Args:
        buffer: The file's bytes.
        first: The first value of the run, of wire type FIXED32 or FIXED64.
        end: Where the message ends.

    Returns:
        The values' bytes, shape (values * width,), and the offset just past the run.
    """
    tag_width = first.start - first.tag
    stride = first.end - first.tag
    tag = bytes(buffer[first.tag : first.start])
    count, step = 1, 64
    while True:
        ahead = min(step, (end - first.tag) // stride - count)
        at = first.tag + count * stride
        rows = np.frombuffer(buffer[at : at + ahead * stride], np.uint8).reshape(ahead, stride)
        same = (rows[:, :tag_width] == np.frombuffer(tag, np.uint8)).all(axis=1)
        run = ahead if same.all() else int(np.argmin(same))
        count += run
        if run < ahead or ahead < step:
            break
        step *= 4
    rows = np.frombuffer(buffer[first.tag : first.tag + count * stride], np.uint8)
    values = np.ascontiguousarray(rows.reshape(count, stride)[:, tag_width:]).reshape(-1)
    return values, first.tag + count * stride


def encode_varint(value: int) -> bytes:
    """Return ``value`` (not negative) as a varint."""
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
