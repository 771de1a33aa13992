"""Fields of caffemodels whose numbers mean one thing in stock Caffe and another in a fork.

Forks went on from different versions of Caffe: what stock Caffe numbered later has the numbers of
other messages there (SegNet's ``upsample_param`` is 137, which is ``embed_param`` today). Read by
Caffe's schema such a field would be taken for what it is not, without a word.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

from google.protobuf.message import DecodeError, Message

from pycaffe_prune.formats import wire
from pycaffe_prune.formats.caffe_pb2 import LayerParameter
from pycaffe_prune.formats.carried import carried_fields, carry_raw, raw_field
from pycaffe_prune.formats.field_table import field_table
from pycaffe_prune.formats.upgrade import V1_TYPES

__all__ = ["set_apart", "set_apart_rounding", "stock_types"]

# What stock Caffe numbered since the first forks that are in use today.
_SINCE_FORKS = range(
    LayerParameter.EMBED_PARAM_FIELD_NUMBER, LayerParameter.CLIP_PARAM_FIELD_NUMBER + 1
)
_TYPE = LayerParameter.TYPE_FIELD_NUMBER
_LATER_TYPES = frozenset({"BatchReindex", "Filter", "LSTMUnit"})  # without settings, so in no table


@cache
def stock_types() -> frozenset[str]:
    """Return the layer types of stock Caffe."""
    of_settings = (message.types for message in field_table().messages.values())
    return frozenset().union(V1_TYPES, _LATER_TYPES, *of_settings)


def set_apart(layer: bytes) -> bytes:
    """Return a V2 layer's message with the fields carried that are not what Caffe's number says.

    A field stays Caffe's own where the layer is of a type that reads it, or of another type of
    Caffe's and the value is such a message in full. Any other is another fork's.
    """
    buffer = memoryview(layer)
    parts = list(wire.fields(buffer, 0, len(layer)))
    if not any(_may_clash(part) for part in parts):
        return layer
    names = [bytes(buffer[part.start : part.end]) for part in parts if part.number == _TYPE]
    layer_type = (names or [b""])[-1].decode("utf-8", "replace")
    apart = bytearray()
    for part in parts:
        raw = bytes(buffer[part.tag : part.end])
        value = bytes(buffer[part.start : part.end])
        is_own = not _may_clash(part) or _is_caffes(part.number, value, layer_type)
        apart += raw if is_own else raw_field(raw)
    return bytes(apart)


def _may_clash(part: wire.Field) -> bool:
    return part.number in _SINCE_FORKS and part.wire_type == wire.LENGTH


def _is_caffes(number: int, value: bytes, layer_type: str) -> bool:
    name = LayerParameter.DESCRIPTOR.fields_by_number[number].name
    settings: Any = getattr(LayerParameter(), name)
    if layer_type in field_table().messages[settings.DESCRIPTOR.name].types:
        return True
    if layer_type not in stock_types():
        return False
    try:
        settings.MergeFromString(value)
    except DecodeError:
        return False
    return not carried_fields(settings)


def set_apart_rounding(layers: Sequence[LayerParameter]) -> None:
    """Carry the field 13 of Poolings as unknown where it may be another than ``round_mode``.

    It is ``ceil_mode`` or ``avg_include_pad`` in forks, and no value tells which: ``round_mode:
    CEIL`` has the bytes of ``ceil_mode: false``. It stays Caffe's own where all of the file is, and
    the value is not the one that Caffe takes without it, which nobody needs to write.

    Args:
        layers: All layers of a caffemodel, in today's form; changed in place.
    """
    poolings = [layer.pooling_param for layer in layers if layer.HasField("pooling_param")]
    written = [pooling for pooling in poolings if pooling.HasField("round_mode")]
    of_a_fork = written and any(
        layer.type not in stock_types() or carried_fields(layer) for layer in layers if layer.type
    )
    if of_a_fork or any(pooling.round_mode == pooling.CEIL for pooling in written):
        for pooling in written:
            _carry_rounding(pooling, pooling.round_mode)


def _carry_rounding(pooling: Message, value: int) -> None:
    number = pooling.DESCRIPTOR.fields_by_name["round_mode"].number
    pooling.ClearField("round_mode")
    carry_raw(pooling, wire.encode_varint(number << 3 | wire.VARINT) + wire.encode_varint(value))
