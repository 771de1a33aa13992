"""The table of fields against the schema, against the types that consumers have, and at work."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from pycaffe_prune.convert.deploy import to_deploy
from pycaffe_prune.convert.onnx_layers import RULES as ONNX
from pycaffe_prune.convert.onnx_model import to_onnx
from pycaffe_prune.engines.torch.layers.registry import LAYERS as TORCH
from pycaffe_prune.engines.torch.net import Net
from pycaffe_prune.errors import FormatError
from pycaffe_prune.experiments.features.trunk import cut_trunk
from pycaffe_prune.formats import caffe_pb2
from pycaffe_prune.formats.caffe_pb2 import DESCRIPTOR, TEST, LayerParameter, NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel
from pycaffe_prune.formats.field_page import field_page
from pycaffe_prune.formats.field_table import Status, Use, field_table, refuse_unhonoured
from pycaffe_prune.formats.prototxt import write_prototxt
from pycaffe_prune.net.channel_rules import _RULES as CHANNELS
from pycaffe_prune.net.channel_trace import trace_channels
from pycaffe_prune.net.graph import NetState
from pycaffe_prune.net.shape_rules import RULES as SHAPES

TABLE = field_table()
SOURCES = {
    "Data",
    "DummyData",
    "HDF5Data",
    "ImageData",
    "Input",
    "MemoryData",
    "WindowData",
}
KNOWN = {
    "torch": {*TORCH, *SOURCES},
    "shapes": set(SHAPES),
    "channels": {*CHANNELS, *SOURCES, "Parameter"},
    "onnx": {*ONNX, "Dropout", "Split", "Input", "Parameter"},
}


def test_each_message_of_the_schema_has_a_place_and_no_other() -> None:
    assert set(TABLE.messages) == set(DESCRIPTOR.message_types_by_name)


@pytest.mark.parametrize("name", sorted(TABLE.messages))
def test_each_field_of_the_schema_has_one_row_and_each_row_a_field(name: str) -> None:
    message = TABLE.messages[name]
    listed = [field for row in message.rows for field in row.fields]
    if message.apart:
        assert not listed
    else:
        assert sorted(listed) == sorted(DESCRIPTOR.message_types_by_name[name].fields_by_name)


def test_what_is_not_honoured_has_a_reason() -> None:
    for message in TABLE.messages.values():
        for row in message.rows:
            assert set(row.uses) == set(TABLE.consumers)
            for use in row.uses.values():
                if use.status in (Status.REFUSED, Status.WITHOUT_EFFECT):
                    assert use.reason, row.fields


@pytest.mark.parametrize("consumer", sorted(KNOWN))
def test_layers_are_refused_with_their_type_where_the_type_is_not_known(consumer: str) -> None:
    for name, message in TABLE.messages.items():
        known = message.types & KNOWN[consumer]
        for row in message.rows if message.types else ():
            if row.uses[consumer].status is Status.HONOURED:
                assert known, f"{name}: {row.fields}"
            if row.uses[consumer].status is Status.WITH_ITS_TYPE:
                assert not known, f"{name}: {row.fields}"


def test_a_parameter_of_the_schema_is_set_by_the_types_that_the_table_gives() -> None:
    assert all(
        TABLE.messages[field.message_type.name].types
        for field in LayerParameter.DESCRIPTOR.fields
        if field.name.endswith("_param")
    )


def _refusals() -> Iterator[tuple[str, str, str, Use]]:
    for consumer in TABLE.consumers:
        for message in TABLE.messages:
            for field, use in TABLE.refusals(message, consumer):
                yield consumer, message, field, use


REFUSALS = list(_refusals())


def _layers(message: str) -> Iterator[tuple[LayerParameter, Message]]:
    """A layer of each type that has the message, and the message in it."""
    if message == "LayerParameter":
        layer = LayerParameter(name="x", type="ReLU")
        yield layer, layer
    for kind in sorted(TABLE.messages[message].types):
        layer = LayerParameter(name="x", type=kind)
        for field in layer.DESCRIPTOR.fields:
            if field.message_type is not None and field.message_type.name == message:
                yield layer, getattr(layer, field.name)


def _set(settings: Message, field: FieldDescriptor, value: str | None) -> None:
    """Set a field to a value as a prototxt has it; None: to some value that is not its default."""
    if field.enum_type is not None:
        names = [choice.name for choice in field.enum_type.values]
        setattr(settings, field.name, field.enum_type.values_by_name[value or names[-1]].number)
    elif field.message_type is not None:
        getattr(settings, field.name).add()
    elif isinstance(field.default_value, bool):
        setattr(settings, field.name, not field.default_value if value is None else value == "true")
    elif isinstance(field.default_value, str):
        setattr(settings, field.name, value or "other")
    else:
        told = field.default_value + 1 if value is None else type(field.default_value)(value)
        setattr(settings, field.name, told)


def _harmful(field: FieldDescriptor, use: Use) -> str | None:
    """A value that is not harmless; None: any but the default."""
    if field.enum_type is not None and use.harmless:
        return next(it.name for it in field.enum_type.values if it.name not in use.harmless)
    if use.harmless:
        return "false" if "true" in use.harmless else "true"
    return None


@pytest.mark.parametrize(("consumer", "message", "field", "use"), REFUSALS)
def test_what_the_table_says_is_refused_is_refused_by_name(
    consumer: str, message: str, field: str, use: Use
) -> None:
    descriptor = DESCRIPTOR.message_types_by_name[message].fields_by_name[field]
    layers = list(_layers(message))
    assert layers
    for layer, settings in layers:
        refuse_unhonoured(layer, consumer)  # as it is by default
        for value in use.harmless:
            if value != "unset":
                _set(settings, descriptor, value)
                refuse_unhonoured(layer, consumer)
        _set(settings, descriptor, _harmful(descriptor, use))
        with pytest.raises(FormatError, match=f"layer 'x' .*{field}") as raised:
            refuse_unhonoured(layer, consumer)
        assert "\n" not in str(raised.value)


def _net_around(layer: LayerParameter) -> NetParameter:
    """The layer between an Input and an end with weights."""
    net = NetParameter()
    data = net.layer.add(name="data", type="Input", top=["data"])
    data.input_param.shape.add(dim=[2, 4, 6, 6])
    middle = net.layer.add()
    middle.CopyFrom(layer)
    middle.bottom.append("data")
    middle.top.append("x")
    end = net.layer.add(name="end", type="InnerProduct", bottom=["x"], top=["end"])
    end.inner_product_param.num_output = 2
    return net


def _cut(net: NetParameter, folder: Path) -> None:
    write_prototxt(folder / "net.prototxt", net)
    cut_trunk(folder / "net.prototxt", folder / "none.caffemodel", "end", (4, 6, 6))


ENTRIES: dict[str, Callable[[NetParameter, Path], object]] = {
    "torch": lambda net, _: Net(net, NetState(TEST)),
    "channels": lambda net, _: trace_channels(net),
    "deploy": lambda net, _: to_deploy(net),
    "onnx": lambda net, _: to_onnx(net, Caffemodel(())),
    "features": _cut,
}


@pytest.mark.parametrize(("consumer", "message", "field", "use"), REFUSALS)
def test_each_consumer_itself_refuses_what_the_table_says(
    consumer: str, message: str, field: str, use: Use, tmp_path: Path
) -> None:
    descriptor = DESCRIPTOR.message_types_by_name[message].fields_by_name[field]
    for layer, settings in _layers(message):
        _set(settings, descriptor, _harmful(descriptor, use))
        with pytest.raises(FormatError, match=f"layer 'x' .*{field}"):
            ENTRIES[consumer](_net_around(layer), tmp_path)


def test_a_setting_that_the_type_does_not_read_is_not_refused() -> None:
    layer = LayerParameter(name="x", type="Convolution")
    layer.pooling_param.pool = caffe_pb2.PoolingParameter.STOCHASTIC
    refuse_unhonoured(layer, "onnx")


def test_the_page_of_the_documentation_is_what_the_table_says() -> None:
    page = Path(__file__).parents[2] / "docs" / "fields.md"
    assert page.read_text(encoding="utf-8") == field_page(TABLE), "run `make fields`"
