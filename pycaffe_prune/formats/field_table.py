"""What each consumer does about each field of ``caffe.proto``: honoured, refused, without effect.

The table is data (``fields.toml``); `docs/fields.md` is made of it (`formats.field_page`), and
`refuse_unhonoured` is what keeps its word where a consumer does not follow a field.
"""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf.message import Message

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter

__all__ = [
    "FieldTable",
    "MessageFields",
    "Row",
    "Status",
    "Use",
    "field_table",
    "refuse_unhonoured",
]


class Status(StrEnum):
    """What a consumer does about a field."""

    HONOURED = "honoured"
    REFUSED = "refused"
    WITHOUT_EFFECT = "without effect"
    WITH_ITS_TYPE = "with its type"
    """The consumer refuses, or names as unknown, the layers that can have the field."""


@dataclass(frozen=True)
class Use:
    """What one consumer does about a field."""

    status: Status
    reason: str = ""
    harmless: tuple[str, ...] = ()
    """Of a refused field the values that are not: as a prototxt has them, or ``unset``. None: the
    default of the field is."""


@dataclass(frozen=True)
class Row:
    """Fields of a message that all consumers treat alike."""

    fields: tuple[str, ...]
    uses: Mapping[str, Use]
    """By consumer."""


@dataclass(frozen=True)
class MessageFields:
    """The rows of a message."""

    rows: tuple[Row, ...]
    types: frozenset[str]
    """Types of layers that the message is a setting of; none: it stands anywhere."""
    apart: str
    """Why the message is no setting, where it has no rows."""


@dataclass(frozen=True)
class FieldTable:
    """The whole table."""

    consumers: tuple[str, ...]
    messages: Mapping[str, MessageFields]
    """By name."""

    def refusals(self, message: str, consumer: str) -> Iterator[tuple[str, Use]]:
        """Yield the fields of a message that a consumer refuses."""
        for row in self.messages[message].rows:
            if row.uses[consumer].status is Status.REFUSED:
                for name in row.fields:
                    yield name, row.uses[consumer]


@cache
def field_table() -> FieldTable:
    """Return the table of ``fields.toml``."""
    told = tomllib.loads(Path(__file__).with_name("fields.toml").read_text(encoding="utf-8"))
    consumers = tuple(told["consumers"])
    messages = {}
    for name, message in told["messages"].items():
        profiles, reasons = told["profiles"], told["reasons"]
        base = profiles.get(message.get("profile"), {}) | message
        rows = []
        for row in message.get("rows", ()):
            said = base | profiles.get(row.get("profile"), {}) | row
            uses = {consumer: _use(said[consumer], reasons) for consumer in consumers}
            rows.append(Row(tuple(row["fields"].split()), uses))
        types = frozenset(message.get("types", "").split())
        messages[name] = MessageFields(tuple(rows), types, message.get("apart", ""))
    return FieldTable(consumers, messages)


def _use(told: str | dict[str, Any], reasons: Mapping[str, str]) -> Use:
    if isinstance(told, dict):
        return Use(Status.REFUSED, told["refused"], tuple(told.get("harmless", ())))
    status, _, reason = told.partition(": ")
    return Use(Status(status), reasons[reason[1:]] if reason.startswith("@") else reason)


def refuse_unhonoured(layer: LayerParameter, consumer: str) -> None:
    """Refuse a layer with a field that a consumer does not follow and that changes its answer.

    Args:
        layer: In the V2 form.
        consumer: One of `FieldTable.consumers`.

    Raises:
        FormatError: It has such a field, in itself or in a message of its type's.
    """
    table = field_table()
    _refuse(layer, layer, "", consumer)
    for field in layer.DESCRIPTOR.fields:
        kind = field.message_type.name if field.message_type is not None else ""
        if kind and layer.type in table.messages[kind].types:
            _refuse(layer, getattr(layer, field.name), field.name, consumer)


def _refuse(layer: LayerParameter, settings: Message, place: str, consumer: str) -> None:
    for name, use in field_table().refusals(settings.DESCRIPTOR.name, consumer):
        if _is_harmless(settings, name, use.harmless):
            continue
        is_message = settings.DESCRIPTOR.fields_by_name[name].message_type is not None
        told = name if is_message else f"{name}: {_written(settings, name)}"
        told = f"{place} {{ {told} }}" if place else told
        raise FormatError(f"layer '{layer.name}' ({layer.type}) has {told}, {use.reason}")


def _is_harmless(settings: Message, name: str, harmless: tuple[str, ...]) -> bool:
    value = getattr(settings, name)
    if not isinstance(value, (float, int, str)):  # repeated
        return not value
    if not harmless:
        return bool(value == settings.DESCRIPTOR.fields_by_name[name].default_value)
    if not settings.HasField(name):
        return "unset" in harmless
    return _written(settings, name) in harmless


def _written(settings: Message, name: str) -> str:
    """A value as a prototxt has it."""
    value, enum = getattr(settings, name), settings.DESCRIPTOR.fields_by_name[name].enum_type
    if enum is not None:
        return str(enum.values_by_number[value].name)
    return str(value).lower() if isinstance(value, bool) else str(value)
