"""Fields of Caffe's forks: kept with the message that they stand in, and written back verbatim.

A field that stock Caffe does not know is kept as an unknown field of its message, under a private
number, with its source text as the value. Protobuf copies, merges and compares unknown fields with
their message, so that they go where the layer goes. They mean nothing by themselves: what needs
a net's meaning asks for them (`carried_fields`) and refuses them by name or knows what they say.
"""

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from google.protobuf import text_encoding, text_format
from google.protobuf.message import Message

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats import wire
from pycaffe_prune.formats.prototxt_walk import cut_unknown, is_repeated
from pycaffe_prune.formats.spelling import nearest_name

try:
    from google.protobuf import unknown_fields
except ImportError:  # protobuf 4.21
    unknown_fields = None  # type: ignore[assignment]


__all__ = [
    "NUMBER",
    "RAW_NUMBER",
    "RAW_TAG",
    "TAG",
    "CarriedField",
    "carried_bytes",
    "carried_fields",
    "carry",
    "carry_raw",
    "copy_unknown",
    "own_fields",
    "parse_text",
    "raw_field",
    "to_text",
    "without_carried",
]

_M = TypeVar("_M", bound=Message)

NUMBER = (1 << 29) - 1
"""The private field number, protobuf's highest; it never stands in a file."""

TAG = wire.encode_varint(NUMBER << 3 | wire.LENGTH)
"""How such a field begins where a message is bytes."""

RAW_NUMBER = NUMBER - 1
"""The private number of a binary file's field that has a number of Caffe's but is not that field:
its value is the whole field, tag and all, as the file has it (`formats.clashes`)."""

RAW_TAG = wire.encode_varint(RAW_NUMBER << 3 | wire.LENGTH)
"""How such a field begins where a message is bytes."""

_MOST_SHOWN = 40

# No message begins so: protobuf's printer tries each value as one.
_BEGIN = b"\x07"
_PRINTED = re.compile(rf'^( *){NUMBER}: "(.*)"$', re.MULTILINE)


@dataclass(frozen=True)
class CarriedField:
    """A field that stock Caffe does not know."""

    place: str
    """The messages that it stands in, e.g. ``convolution_param.``; "" for the layer itself."""
    name: str
    """Its name in the file; its number where a binary file has no name for it."""
    text: str
    """Its source text; "" where it comes from a binary file."""
    nearest: str = ""
    """The stock field of that message with the most similar name, or where the name is one of them
    the field's value; "" when none is similar."""
    value: str = ""
    """Of a field whose name is a stock one: its text, since that is what is not known."""
    is_twice: bool = False
    """Whether it is a stock field that may stand once, and stands there once more."""

    @property
    def full_name(self) -> str:
        """Place and name, e.g. ``convolution_param.dilation_w``."""
        return self.place + self.name

    def __str__(self) -> str:
        hint = f" (did you mean '{self.nearest}'?)" if self.nearest else ""
        hint = " (which stands there twice)" if self.is_twice else hint
        return f"'{self.place}{self.value or self.name}'{hint}"


def parse_text(text: str, message: _M) -> _M:
    """Parse ``text`` into ``message``; fields that its schema does not know are carried in it.

    Raises:
        text_format.ParseError: The text is against protobuf's grammar or a known field's type.
    """
    try:
        text_format.Parse(text, message)
    except text_format.ParseError:
        rest, pieces = cut_unknown(text, message.DESCRIPTOR)
        if rest == text:
            raise
        message.Clear()
        text_format.Parse(rest, message)
        for piece in pieces:
            target = message
            for name, index in piece.path:
                inner = getattr(target, name)
                target = (
                    inner[index] if is_repeated(target.DESCRIPTOR.fields_by_name[name]) else inner
                )
            carry(target, piece.text)
    return message


def carry(message: Message, text: str) -> None:
    """Add one field as source text (``name: value`` or ``name { … }``) to what is carried."""
    message.MergeFromString(carried_bytes(text))


def carried_bytes(text: str) -> bytes:
    """Return the bytes of a carried field, as they stand in its message."""
    data = _BEGIN + text.encode()
    return TAG + wire.encode_varint(len(data)) + data


def raw_field(raw: bytes) -> bytes:
    """Return the bytes that carry a binary file's field: ``raw``, with its tag."""
    return RAW_TAG + wire.encode_varint(len(raw)) + raw


def carry_raw(message: Message, raw: bytes) -> None:
    """Add a binary file's field to what is carried, whatever its number means to Caffe."""
    message.MergeFromString(raw_field(raw))


def to_text(message: Message) -> str:
    """Return ``message`` as text, with what it carries at the end of the message it stands in."""
    return _PRINTED.sub(_written, text_format.MessageToString(message, print_unknown_fields=True))


def _written(found: re.Match[str]) -> str:
    indent = found[1]
    text = text_encoding.CUnescape(found[2]).removeprefix(_BEGIN).decode()
    return indent + text.replace("\n", "\n" + indent)


def _unknown(message: Any) -> Iterator[Any]:
    found: Any  # its types do not tell that it is iterable
    if unknown_fields is None:
        found = message.UnknownFields()
    else:
        found = unknown_fields.UnknownFieldSet(message)
    return iter(found)


def own_fields(message: Message, place: str = "") -> Iterator[CarriedField]:
    """Yield what ``message`` itself carries, not what the messages in it do."""
    for unknown in _unknown(message):
        if unknown.field_number == RAW_NUMBER:
            raw = memoryview(unknown.data)
            yield CarriedField(place, str(wire.read_field(raw, 0, len(raw)).number), "")
            continue
        if unknown.field_number != NUMBER:
            yield CarriedField(place, str(unknown.field_number), "")
            continue
        yield _of_text(message, place, bytes(unknown.data).removeprefix(_BEGIN).decode())


def _of_text(message: Message, place: str, text: str) -> CarriedField:
    name = re.match(r"[^\s:{<]*", text)[0]  # type: ignore[index]  # it matches anything
    known = message.DESCRIPTOR.fields_by_name.get(name)
    if known is None:
        return CarriedField(place, name, text, nearest_name(name, _names(message)))
    words = " ".join(text.split())
    value = words if len(words) <= _MOST_SHOWN else f"{words[:_MOST_SHOWN]} ..."
    if not is_repeated(known) and message.HasField(name):
        return CarriedField(place, name, text, "", value, is_twice=True)
    values = known.enum_type.values_by_name if known.enum_type is not None else {}
    told = text.removeprefix(name).strip(" :\n\t")
    return CarriedField(place, name, text, nearest_name(told, values), value)


def _names(message: Message) -> list[str]:
    return [field.name for field in message.DESCRIPTOR.fields]


def carried_fields(message: Message, place: str = "") -> list[CarriedField]:
    """Return all that ``message`` and the messages in it carry, at any depth."""
    found = list(own_fields(message, place))
    for field, value in message.ListFields():
        if field.message_type is not None:
            values = value if is_repeated(field) else [value]
            for inner in values:
                found += carried_fields(inner, f"{place}{field.name}.")
    return found


def without_carried(
    message: Message, drop: Callable[[CarriedField], bool], place: str = ""
) -> None:
    """Take out of ``message``, at any depth, the carried text that ``drop`` says."""
    found = list(own_fields(message, place))
    if any(map(drop, found)) and all(field.text for field in found):
        rest = type(message)()
        for field, value in message.ListFields():
            if field.message_type is None and not is_repeated(field):
                setattr(rest, field.name, value)
            else:
                getattr(rest, field.name).MergeFrom(value)
        message.CopyFrom(rest)
        for carried in found:
            if not drop(carried):
                carry(message, carried.text)
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in value if is_repeated(field) else [value]:
                without_carried(inner, drop, f"{place}{field.name}.")


def copy_unknown(source: Message, target: Message, but: Collection[str] = ()) -> None:
    """Let ``target`` carry what ``source`` itself carries, for messages that are made anew.

    Fields named in ``but`` are left out. A binary file's keep their numbers.

    Raises:
        FormatError: ``target`` knows such a number as another field. The sentence begins with it.
    """
    for carried in own_fields(source):
        if carried.text and carried.name not in but:
            carry(target, carried.text)
    rest = type(source)()
    rest.CopyFrom(source)
    for field, _ in source.ListFields():
        rest.ClearField(field.name)
    data = rest.SerializePartialToString()
    for part in wire.fields(memoryview(data), 0, len(data)):
        if part.number == NUMBER:
            continue
        known = target.DESCRIPTOR.fields_by_number.get(part.number)
        if known is not None:
            raise FormatError(
                f"field {part.number}, which stock Caffe does not know in layers of its old form, "
                f"would be taken for '{known.name}' in today's; it cannot be carried over"
            )
        target.MergeFromString(data[part.tag : part.end])
