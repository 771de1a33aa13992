import random
from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf import text_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter, NetParameter, V1LayerParameter
from pycaffe_prune.formats.upgrade import upgrade_net

V1_TYPES = V1LayerParameter.LayerType.values()
V0_TYPES = (
    *("accuracy", "bnll", "concat", "conv", "data", "dropout", "euclidean_loss", "flatten"),
    *("hdf5_data", "hdf5_output", "im2col", "images", "infogain_loss", "innerproduct", "lrn"),
    *("multinomial_logistic_loss", "pool", "relu", "sigmoid", "softmax", "softmax_loss", "split"),
    *("tanh", "window_data"),
)
# The V0 form is set on purpose; clip_param has required fields, which not every net has.
_NOT_SET = ("layer", "clip_param")


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
    for layer_type in V1_TYPES:
        for share in (1.0, 0.0, 0.5, 0.3):
            layer = net.layers.add()
            fill(layer, pick, share)
            layer.type = layer_type
    return net


def v0_net() -> NetParameter:
    """Each V0 type with everything set, with nothing set, and many with some fields set."""
    pick = random.Random(8)  # noqa: S311 -- no secret
    net = NetParameter(name="older", input=["data"], input_dim=[1, 2, 3, 4])
    for layer_type in V0_TYPES:
        for share in (1.0, 0.0, 0.5, 0.3):
            layer = net.layers.add(bottom=["data"], top=["data"])
            fill(layer.layer, pick, share)
            layer.layer.type = layer_type
    return net


def set_inputs(net: NetParameter, pick: random.Random) -> None:
    """Inputs with dimensions, with shapes, with both, or with none, and fields beside them."""
    count = pick.randint(0, 3)
    net.input.extend(f"input{index}" for index in range(count))
    if pick.random() < 0.6:
        net.input_dim.extend(pick.randrange(9) for _ in range(4 * count))
    for _ in range(count if pick.random() < 0.5 else 0):
        net.input_shape.add(dim=[pick.randrange(9) for _ in range(pick.randrange(5))])
    for name in ("debug_info", "force_backward"):
        if pick.random() < 0.5:
            setattr(net, name, pick.random() < 0.5)
    if pick.random() < 0.5:
        net.state.level = pick.randrange(9)


def random_v0_net(seed: int) -> NetParameter:
    """Layers of any type on blobs made before them; padding layers lead to conv or pool alone."""
    pick = random.Random(seed)  # noqa: S311 -- no secret
    net = NetParameter(name=f"v0 {seed}")
    set_inputs(net, pick)
    blobs = list(net.input)
    padded = []
    for number in range(pick.randint(1, 12)):
        layer = net.layers.add()
        fill(layer.layer, pick, 0.3)
        layer.layer.name = f"layer{number}"
        if blobs and pick.random() < 0.3:
            layer.layer.type = "padding"
            layer.bottom.append(pick.choice(blobs))
            layer.top.append(f"padded{number}")
            padded.append(f"padded{number}")
            continue
        if padded and pick.random() < 0.7:
            layer.layer.type = pick.choice(["conv", "pool"])
            layer.bottom.append(pick.choice(padded))
        else:
            layer.layer.type = pick.choice(V0_TYPES)
            layer.bottom.extend(pick.choices(blobs, k=pick.randint(0, 2)) if blobs else ())
        layer.top.extend([f"blob{number}", *pick.sample(blobs, k=min(len(blobs), 1))])
        blobs.append(f"blob{number}")
    return net


def random_net(seed: int) -> NetParameter:
    """V1 or V2 layers with any fields, many of them BatchNorm with any number of specs."""
    pick = random.Random(seed)  # noqa: S311 -- no secret
    net = NetParameter()
    set_inputs(net, pick)
    is_v1 = pick.random() < 0.5
    for _ in range(pick.randint(0, 5)):
        layer = net.layers.add() if is_v1 else net.layer.add()
        fill(layer, pick, 0.2)
        if is_v1:
            layer.type = pick.choice(V1_TYPES)
            continue
        layer.type = pick.choice(["BatchNorm", "Convolution"])
        while len(layer.param) < pick.randint(0, 4):
            layer.param.add(lr_mult=pick.randrange(3))
    return net


HAND_WRITTEN = """
name: "2013" input: "data" input_dim: 10 input_dim: 3 input_dim: 227 input_dim: 227
layers { layer { name: "conv1" type: "conv" num_output: 96 kernelsize: 11 stride: 4
                 weight_filler { type: "gaussian" std: 0.01 } bias_filler { value: 0.5 }
                 blobs_lr: 1. blobs_lr: 2. weight_decay: 1. weight_decay: 0. }
         bottom: "data" top: "conv1" }
layers { layer { name: "relu1" type: "relu" } bottom: "conv1" top: "conv1" }
layers { layer { name: "pool1" type: "pool" pool: MAX kernelsize: 3 stride: 2 }
         bottom: "conv1" top: "pool1" }
layers { layer { name: "norm1" type: "lrn" local_size: 5 alpha: 0.0001 beta: 0.75 }
         bottom: "pool1" top: "norm1" }
layers { layer { name: "pad2" type: "padding" pad: 2 } bottom: "norm1" top: "pad2" }
layers { layer { name: "conv2" type: "conv" num_output: 256 group: 2 kernelsize: 5 }
         bottom: "pad2" top: "conv2" }
layers { layer { name: "fc6" type: "innerproduct" num_output: 4096 biasterm: false }
         bottom: "conv2" top: "fc6" }
layers { layer { name: "drop6" type: "dropout" dropout_ratio: 0.5 } bottom: "fc6" top: "fc6" }
layers { layer { name: "prob" type: "softmax" } bottom: "fc6" top: "prob" }
"""


def old_nets() -> list[NetParameter]:
    nets = [text_format.Parse(HAND_WRITTEN, NetParameter()), v0_net(), v1_net()]
    nets += [random_v0_net(seed) for seed in range(150)]
    nets += [random_net(seed) for seed in range(150)]
    return nets


def without_empty_data_parameters(net: NetParameter) -> NetParameter:
    """Caffe leaves empty ones in data layers, which mean nothing."""
    for layer in net.layer:
        for name in ("data_param", "image_data_param", "window_data_param", "transform_param"):
            if not getattr(layer, name).ListFields():
                layer.ClearField(name)
    return net


@pytest.mark.real_caffe
def test_every_old_net_becomes_what_the_real_caffe_makes_of_it(
    run_caffe: Callable[..., None], tmp_path: Path
) -> None:
    nets = old_nets()
    for number, net in enumerate(nets):
        text = text_format.MessageToString(net)
        (tmp_path / f"{number:03}.prototxt").write_text(text)
    run_caffe("upgrade", ".", cwd=tmp_path)
    changed = 0
    for number, net in enumerate(nets):
        theirs = NetParameter.FromString((tmp_path / f"{number:03}.upgraded").read_bytes())
        ours = upgrade_net(net)
        changed += ours != net
        ours, theirs = (without_empty_data_parameters(result) for result in (ours, theirs))
        assert text_format.MessageToString(ours) == text_format.MessageToString(theirs)
        assert ours == theirs
    assert changed > 200


def test_every_v1_field_has_a_place_in_the_new_layer() -> None:
    moved = {"layer", "blobs_lr", "weight_decay", "blob_share_mode"}
    new = LayerParameter.DESCRIPTOR.fields_by_name
    assert set(V1LayerParameter.DESCRIPTOR.fields_by_name) - set(new) == moved


def test_every_v1_type_has_its_own_name() -> None:
    net = NetParameter(layers=[V1LayerParameter(type=value) for value in V1_TYPES])
    assert len({layer.type for layer in upgrade_net(net).layer}) == len(V1_TYPES)


def test_the_old_net_is_left_as_it_is() -> None:
    for net in old_nets():
        before = net.SerializeToString(deterministic=True)
        upgrade_net(net)
        assert net.SerializeToString(deterministic=True) == before


def test_what_is_upgraded_needs_no_upgrade_any_more() -> None:
    for net in old_nets():
        once = upgrade_net(net)
        assert not once.layers
        assert not once.input
        assert upgrade_net(once) == once


def test_a_net_of_today_is_returned_as_it_is() -> None:
    net = NetParameter(name="new", layer=[LayerParameter(name="a"), LayerParameter(name="b")])
    assert upgrade_net(net) is net


def test_both_forms_in_one_net_are_refused() -> None:
    net = NetParameter(layer=[LayerParameter()], layers=[V1LayerParameter()])
    with pytest.raises(FormatError, match="both 'layer' and 'layers'"):
        upgrade_net(net)


@pytest.mark.parametrize("type_field", [b"", b"\x28\x4d"])
def test_a_v1_layer_without_a_known_type_is_refused_by_name(type_field: bytes) -> None:
    layer = V1LayerParameter.FromString(b"\x22\x05conv1" + type_field)
    assert layer.name == "conv1"
    with pytest.raises(FormatError, match="'conv1' has no type that Caffe knows among its V1"):
        upgrade_net(NetParameter(layers=[layer]))


@pytest.mark.parametrize(
    "inputs",
    [
        NetParameter(input=["a", "b"], input_dim=[1, 2, 3, 4, 5, 6, 7]),
        NetParameter(input=["a", "b"], input_shape=[{"dim": [1]}]),
    ],
)
def test_an_input_without_dimensions_is_refused(inputs: NetParameter) -> None:
    with pytest.raises(FormatError, match="2 inputs but dimensions of 1"):
        upgrade_net(inputs)
