"""Strings and carried fields of messages in binary files.

In a file strings are any bytes (`formats.text_bytes`), and what is carried from a prototxt
(`formats.carried`) has no place: a binary file names fields by numbers, and a fork's are not known.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from google.protobuf.message import Message

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats import wire
from pycaffe_prune.formats.caffe_pb2 import LayerParameter
from pycaffe_prune.formats.carried import NUMBER, RAW_NUMBER, RAW_TAG, TAG
from pycaffe_prune.formats.clashes import set_apart
from pycaffe_prune.formats.text_bytes import MARKS, bytes_of, text_of

__all__ = ["message_bytes", "message_of"]

_M = TypeVar("_M", bound=Message)
_Change = Callable[[bytes], bytes]


def message_of(data: bytes, kind: type[_M]) -> _M:
    """Parse a message as a file has it; strings that are not UTF-8 come as `text_bytes` has them.

    Fields of a layer that are not what Caffe's number says are carried (`formats.clashes`).

    Raises:
        FormatError: The message is damaged.
    """
    if not data.isascii():
        for tag, number in ((TAG, NUMBER), (RAW_TAG, RAW_NUMBER)):
            if tag in data:
                raise FormatError(f"has a field of the number {number}, which no Caffe writes")
        if kind is LayerParameter:
            data = set_apart(data)
        data = _changed(data, kind.DESCRIPTOR, lambda string: text_of(string).encode(), {})
    return kind.FromString(data)


def message_bytes(message: Message) -> bytes:
    """Return ``message`` as a file has it: strings byte for byte, without carried text."""
    data = message.SerializeToString()
    if any(mark in data for mark in (TAG, RAW_TAG, *MARKS)):
        private: dict[int, _Change] = {NUMBER: lambda _: b"", RAW_NUMBER: lambda raw: raw}
        return _changed(data, message.DESCRIPTOR, lambda text: bytes_of(text.decode()), private)
    return data


def _changed(data: bytes, kind: Any, change: _Change, private: Mapping[int, _Change]) -> bytes:
    """``data`` with all its strings changed and the ``private`` fields replaced."""
    buffer = memoryview(data)
    changed = bytearray()
    for part in wire.fields(buffer, 0, len(data)):
        known = kind.fields_by_number.get(part.number)
        inner = bytes(buffer[part.start : part.end])
        if part.number in private:
            changed += private[part.number](inner)
            continue
        if part.wire_type != wire.LENGTH or known is None:
            changed += buffer[part.tag : part.end]
            continue
        if known.message_type is not None:
            inner = _changed(inner, known.message_type, change, private)
        elif known.type == known.TYPE_STRING:
            inner = change(inner)
        tag = part.number << 3 | wire.LENGTH
        changed += wire.encode_varint(tag) + wire.encode_varint(len(inner)) + inner
    return bytes(changed)
