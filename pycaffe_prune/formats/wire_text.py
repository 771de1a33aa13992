"""Strings and carried fields of messages in binary files.

In a file strings are any bytes (`formats.text_bytes`), and what is carried from a prototxt
(`formats.carried`) has no place: a binary file names fields by numbers, and a fork's are not known.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from google.protobuf.message import Message

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats import wire
from pycaffe_prune.formats.carried import NUMBER, TAG
from pycaffe_prune.formats.text_bytes import MARKS, bytes_of, text_of

__all__ = ["message_bytes", "message_of"]

_M = TypeVar("_M", bound=Message)


def message_of(data: bytes, kind: type[_M]) -> _M:
    """Parse a message as a file has it; strings that are not UTF-8 come as `text_bytes` has them.

    Raises:
        FormatError: The message is damaged.
    """
    if not data.isascii():
        if TAG in data:
            raise FormatError(f"has a field of the number {NUMBER}, which no Caffe writes")
        data = _changed(data, kind.DESCRIPTOR, lambda string: text_of(string).encode())
    return kind.FromString(data)


def message_bytes(message: Message) -> bytes:
    """Return ``message`` as a file has it: strings byte for byte, without carried text."""
    data = message.SerializeToString()
    if TAG in data or any(mark in data for mark in MARKS):
        return _changed(data, message.DESCRIPTOR, lambda string: bytes_of(string.decode()))
    return data


def _changed(data: bytes, kind: Any, change: Callable[[bytes], bytes]) -> bytes:
    """``data`` with all its strings changed and without the private field."""
    buffer = memoryview(data)
    changed = bytearray()
    for part in wire.fields(buffer, 0, len(data)):
        known = kind.fields_by_number.get(part.number)
        inner = bytes(buffer[part.start : part.end])
        if part.number == NUMBER:
            continue
        if part.wire_type != wire.LENGTH or known is None:
            changed += buffer[part.tag : part.end]
            continue
        if known.message_type is not None:
            inner = _changed(inner, known.message_type, change)
        elif known.type == known.TYPE_STRING:
            inner = change(inner)
        tag = part.number << 3 | wire.LENGTH
        changed += wire.encode_varint(tag) + wire.encode_varint(len(inner)) + inner
    return bytes(changed)
