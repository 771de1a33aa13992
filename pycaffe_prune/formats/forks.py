"""What forks of Caffe mean by the fields that they add: ``forks.proto``, by name and by number.

Caffe's own messages stay as they are (`formats.caffe_pb2`); a fork's field is carried beside them
(`formats.carried`), as text from a prototxt or as bytes under a number from a caffemodel.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf.message import DecodeError, Message

from pycaffe_prune.formats import wire
from pycaffe_prune.formats.caffe_pb2 import LayerParameter
from pycaffe_prune.formats.carried import (
    RAW_NUMBER,
    CarriedField,
    carried_bytes,
    carried_fields,
    own_fields,
    to_text,
)

__all__ = ["STOCK_TYPES", "fork_part", "is_known", "with_names"]

STOCK_TYPES: Mapping[str, str] = {
    "CConvolution": "Convolution",
    "CInnerProduct": "InnerProduct",
    "ConvolutionDepthwise": "Convolution",
    "DepthwiseConvolution": "Convolution",
}
"""Layer types of forks that compute what a type of Caffe's computes, from the same settings."""

_pool = descriptor_pool.DescriptorPool()
for _file in descriptor_pb2.FileDescriptorSet.FromString(
    Path(__file__).with_name("forks.fds").read_bytes()
).file:
    _pool.AddSerializedFile(_file.SerializeToString())
if hasattr(message_factory, "GetMessageClass"):
    _message_class = message_factory.GetMessageClass
else:  # protobuf 4.21
    _message_class = message_factory.MessageFactory(_pool).GetPrototype  # type: ignore[attr-defined]
_KINDS: Mapping[str, Any] = {
    name: _message_class(descriptor)
    for name, descriptor in _pool.FindFileByName("forks.proto").message_types_by_name.items()
}

# Which layers have a field of LayerParameter: the same number is another field elsewhere.
_TYPES_OF: Mapping[str, frozenset[str]] = {
    "annotated_data_param": frozenset({"AnnotatedData"}),
    "bn_param": frozenset({"BN"}),
    "cconvolution_param": frozenset({"CConvolution"}),
    "cinner_product_param": frozenset({"CInnerProduct"}),
    "detection_evaluate_param": frozenset({"DetectionEvaluate"}),
    "detection_output_param": frozenset({"DetectionOutput"}),
    "interp_param": frozenset({"Interp"}),
    "multibox_loss_param": frozenset({"MultiBoxLoss"}),
    "norm_param": frozenset({"Normalize"}),
    "permute_param": frozenset({"Permute"}),
    "pspnet_bn_param": frozenset({"BN"}),
    "prior_box_param": frozenset({"PriorBox"}),
    "psroi_pooling_param": frozenset({"PSROIPooling"}),
    "roi_pooling_param": frozenset({"ROIPooling"}),
    "shuffle_channel_param": frozenset({"ShuffleChannel"}),
    "smooth_l1_loss_param": frozenset({"SmoothL1Loss"}),
    "upsample_param": frozenset({"Upsample"}),
}
# Numbers that other forks give to the same field.
_OTHER_NUMBERS = {
    ("CConvolution", 150): 140,
    ("CInnerProduct", 151): 141,
    ("ROIPooling", 150): 8266711,
    ("ROIPooling", 154): 8266711,
}


def fork_part(message: Message) -> Any:
    """Return what ``message`` itself carries of known fields, as a message of ``forks.proto``.

    Without any it is empty; None where no fork is known to add to such a message.
    """
    kind = _KINDS.get(message.DESCRIPTOR.name)
    if kind is None:
        return None
    part = kind()
    for field in own_fields(message):
        if is_known(message, field):
            text_format.Merge(field.text, part)
    return part


def is_known(message: Message, field: CarriedField) -> bool:
    """Tell whether ``field``, carried by ``message`` itself, is one of ``forks.proto``'s."""
    kind = _KINDS.get(message.DESCRIPTOR.name)
    if kind is None or not field.text:
        return False
    try:
        text_format.Parse(field.text, kind())
    except text_format.ParseError:
        return False
    return True


def with_names(layer: LayerParameter) -> LayerParameter:
    """Return a layer of a caffemodel with the names of the forks' fields that are known.

    They become carried text, as if they had come from a prototxt; others keep their numbers.
    """
    data = layer.SerializeToString()
    named = _named(data, LayerParameter.DESCRIPTOR, layer.type)
    return layer if named == data else LayerParameter.FromString(named)


def _named(data: bytes, stock: Any, layer_type: str) -> bytes:
    buffer = memoryview(data)
    named = bytearray()
    for part in wire.fields(buffer, 0, len(data)):
        raw = bytes(buffer[part.tag : part.end])
        if part.number == RAW_NUMBER:
            text = _as_text(bytes(buffer[part.start : part.end]), stock, layer_type)
        else:
            text = None if _is_caffes(part, stock) else _as_text(raw, stock, layer_type)
        known = stock.fields_by_number.get(part.number)
        if text is not None:
            named += carried_bytes(text)
        elif known is not None and known.message_type is not None and part.wire_type == wire.LENGTH:
            inner = _named(bytes(buffer[part.start : part.end]), known.message_type, layer_type)
            named += _tag(part.number, wire.LENGTH) + wire.encode_varint(len(inner)) + inner
        else:
            named += raw
    return bytes(named)


def _is_caffes(part: wire.Field, stock: Any) -> bool:
    """Whether a field under its own number is what Caffe's schema says.

    Caffe's own fields of a layer that forks have the numbers of are messages.
    """
    if part.number not in stock.fields_by_number:
        return False
    return stock.name != "LayerParameter" or part.wire_type == wire.LENGTH


def _as_text(raw: bytes, stock: Any, layer_type: str) -> str | None:
    """A field, with its tag, as text if it is a known one of a fork."""
    kind = _KINDS.get(stock.name)
    if kind is None:
        return None
    part = wire.read_field(memoryview(raw), 0, len(raw))
    number, value = part.number, raw[part.start :]
    if stock.name == "LayerParameter":
        number = _OTHER_NUMBERS.get((layer_type, number), number)
    field = kind.DESCRIPTOR.fields_by_number.get(number)
    if field is None:
        return None
    if stock.name == "LayerParameter" and layer_type not in _TYPES_OF.get(field.name, {layer_type}):
        return None
    length = wire.encode_varint(len(value)) if part.wire_type == wire.LENGTH else b""
    try:
        message = kind.FromString(_tag(number, part.wire_type) + length + value)
        message.SerializeToString()
    except DecodeError:
        return None
    if carried_fields(message):  # fields of this number that are another fork's
        return None
    return to_text(message).rstrip("\n").replace("pspnet_bn_param", "bn_param") or None


def _tag(number: int, wire_type: int) -> bytes:
    return wire.encode_varint(number << 3 | wire_type)
