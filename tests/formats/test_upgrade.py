import random
from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf import text_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter, NetParameter, V1LayerParameter
from pycaffe_prune.formats.upgrade import upgrade_v1_layer, upgrade_v1_net, v1_type

LAYER_TYPES = V1LayerParameter.LayerType.values()
_NOT_SET = ("layer", "blobs")  # the V0 form, and weights, which have tests of their own


def value_of(field: FieldDescriptor, pick: random.Random) -> object:
    """Any value of a scalar field, seldom its default."""
    if field.type == field.TYPE_STRING:
        return f"{field.name} {pick.randrange(1000)}"
    if field.type == field.TYPE_BOOL:
        return not field.default_value
    if field.type == field.TYPE_ENUM:
        return pick.choice(field.enum_type.values).number
    if field.type == field.TYPE_FLOAT:
        return pick.randrange(1000) / 8
    return pick.randrange(1000)


def fill(message: Message, pick: random.Random, share: float) -> None:
    """Set each field of ``message`` with probability ``share``, and so on inside."""
    for field in message.DESCRIPTOR.fields:
        if field.name in _NOT_SET or pick.random() >= share:
            continue
        is_message = field.type == field.TYPE_MESSAGE
        value = getattr(message, field.name)
        if not hasattr(value, "extend"):
            if is_message:
                value.SetInParent()
                fill(value, pick, share)
            else:
                setattr(message, field.name, value_of(field, pick))
        elif is_message:
            for _ in range(pick.randint(1, 3)):
                fill(value.add(), pick, share)
        else:
            value.extend(value_of(field, pick) for _ in range(pick.randint(1, 3)))


def v1_net() -> NetParameter:
    """Each V1 type with everything set, with nothing set, and many with some fields set."""
    pick = random.Random(7)  # noqa: S311 -- no secret
    net = NetParameter(name="old", force_backward=True)
    for layer_type in LAYER_TYPES:
        for share in (1.0, 0.0, 0.5, 0.3):
            layer = net.layers.add()
            fill(layer, pick, share)
            layer.type = layer_type
    net.layers.add()
    return net


def without_empty_data_parameters(net: NetParameter) -> NetParameter:
    """Caffe leaves empty ones in data layers, which mean nothing."""
    for layer in net.layer:
        for name in ("data_param", "image_data_param", "window_data_param", "transform_param"):
            if not getattr(layer, name).ListFields():
                layer.ClearField(name)
    return net


@pytest.mark.real_caffe
def test_every_v1_layer_becomes_what_the_real_caffe_makes_of_it(
    run_caffe: Callable[..., None], tmp_path: Path
) -> None:
    net = v1_net()
    (tmp_path / "old.prototxt").write_text(text_format.MessageToString(net))
    run_caffe("upgrade", "old.prototxt", "new", cwd=tmp_path)
    theirs = NetParameter.FromString((tmp_path / "new").read_bytes())
    ours = upgrade_v1_net(net)
    assert len(theirs.layer) == len(net.layers) == 4 * len(LAYER_TYPES) + 1
    for found, expected in zip(
        without_empty_data_parameters(ours).layer,
        without_empty_data_parameters(theirs).layer,
        strict=True,
    ):
        assert text_format.MessageToString(found) == text_format.MessageToString(expected)
    assert ours == theirs


def test_every_v1_field_has_a_place_in_the_new_layer() -> None:
    moved = {"layer", "blobs_lr", "weight_decay", "blob_share_mode"}
    new = LayerParameter.DESCRIPTOR.fields_by_name
    assert set(V1LayerParameter.DESCRIPTOR.fields_by_name) - set(new) == moved


def test_every_v1_type_has_its_own_name() -> None:
    assert len({v1_type(value) for value in LAYER_TYPES}) == len(LAYER_TYPES)


def test_the_old_net_is_left_as_it_is() -> None:
    net = v1_net()
    before = net.SerializeToString(deterministic=True)
    upgrade_v1_net(net)
    assert net.SerializeToString(deterministic=True) == before


def test_a_net_of_today_is_returned_as_it_is() -> None:
    net = NetParameter(layer=[LayerParameter(name="a")])
    assert upgrade_v1_net(net) is net


def test_both_forms_in_one_net_are_refused() -> None:
    net = NetParameter(layer=[LayerParameter()], layers=[V1LayerParameter()])
    with pytest.raises(FormatError, match="both 'layer' and 'layers'"):
        upgrade_v1_net(net)


def test_the_v0_form_is_refused_with_the_remedy() -> None:
    old = V1LayerParameter()
    old.layer.name = "conv1"
    with pytest.raises(FormatError, match=r"'conv1' has the V0 form.*upgrade_net_proto_text"):
        upgrade_v1_layer(old)
