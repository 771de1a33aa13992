"""A net's passes: gradients are derivatives of its losses, whatever flows where."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pycaffe_prune.engines.torch.net import Net
from pycaffe_prune.engines.torch.pure_loss import pure_loss
from pycaffe_prune.errors import EngineError, FormatError, SurgeryError
from pycaffe_prune.formats.caffe_pb2 import TEST, TRAIN, LayerParameter, NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer, read_caffemodel, write_caffemodel
from pycaffe_prune.formats.hdf5 import write_hdf5_weights
from pycaffe_prune.net.graph import NetState, layers_in_state
from pycaffe_prune.net.shapes import infer_shapes
from tests.engines.torch.loss_nets import (
    apart,
    filled,
    hand_gradients,
    loss_nets,
    parse,
    pure_gradients,
    require_equal,
)

over_nets = settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])

DATA = """
layer { name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {
  shape { dim: 4 dim: 3 dim: 4 dim: 4 } shape { dim: 4 }
  data_filler { type: "gaussian" } data_filler { value: 1 } } }
"""
MANY = (
    DATA
    + """
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 pad: 1 } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "left" type: "Convolution" bottom: "conv" top: "left" param { name: "w" }
  convolution_param { num_output: 4 kernel_size: 1 bias_term: false } }
layer { name: "right" type: "Convolution" bottom: "left" top: "right" param { name: "w" }
  convolution_param { num_output: 4 kernel_size: 1 bias_term: false } }
layer { name: "sum" type: "Eltwise" bottom: "conv" bottom: "right" top: "sum" }
layer { name: "relu2" type: "ReLU" bottom: "sum" top: "sum" }
layer { name: "join" type: "Concat" bottom: "sum" bottom: "conv" bottom: "left" top: "join" }
layer { name: "frozen" type: "Convolution" bottom: "join" top: "frozen"
  param { lr_mult: 0 } param { lr_mult: 0 } convolution_param { num_output: 3 kernel_size: 2 } }
layer { name: "ip" type: "InnerProduct" bottom: "frozen" top: "ip"
  inner_product_param { num_output: 5 } }
layer { name: "side" type: "InnerProduct" bottom: "conv" top: "side"
  inner_product_param { num_output: 5 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
layer { name: "aside" type: "SoftmaxWithLoss" bottom: "side" bottom: "label" top: "aside"
  loss_weight: 0.3 }
"""
)


def gradients(net: Net) -> dict:
    net.parameters.diff.zero_()
    net.compute()
    return {key: grad.clone() for key, grad in hand_gradients(net).items()}


@over_nets
@given(definition=loss_nets(), seed=st.integers(0, 99))
def test_gradients_by_hand_are_the_derivatives_of_the_losses(
    definition: NetParameter, seed: int
) -> None:
    net = filled(definition, seed)
    expected = pure_gradients(net)  # before compute: that moves BatchNorm's averages
    require_equal(gradients(net), expected)


def test_fan_out_sharing_freezing_and_weighted_losses_together() -> None:
    net = filled(parse(MANY))
    expected = pure_gradients(net)
    found = gradients(net)
    require_equal(found, expected)
    assert not found["frozen", 0].any()
    assert all(grad.any() for key, grad in found.items() if key[0] != "frozen")


def test_a_loss_that_is_read_on_gets_both_gradients() -> None:
    net = filled(
        parse(
            DATA
            + """
layer { name: "a" type: "InnerProduct" bottom: "data" top: "a" loss_weight: 0.5
  inner_product_param { num_output: 5 } }
layer { name: "b" type: "InnerProduct" bottom: "a" top: "b"
  inner_product_param { num_output: 5 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "b" bottom: "label" top: "loss" }
"""
        )
    )
    require_equal(gradients(net), pure_gradients(net))


def test_batch_norm_moves_its_statistics_beside_a_layer_that_keeps_its_parameters() -> None:
    net = filled(
        parse(
            DATA
            + """
layer { name: "a" type: "InnerProduct" bottom: "data" top: "a"
  inner_product_param { num_output: 5 } }
layer { name: "slope" type: "PReLU" bottom: "a" top: "slope" }
layer { name: "norm" type: "BatchNorm" bottom: "slope" top: "norm" }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "norm" bottom: "label" top: "loss" }
"""
        )
    )
    expected = pure_gradients(net)
    require_equal(gradients(net), expected)
    assert net.params["norm"][2].data > 0


@over_nets
@given(definition=loss_nets(), passes=st.integers(2, 3))
def test_gradients_of_several_passes_add_up(definition: NetParameter, passes: int) -> None:
    net = filled(definition)
    sums = {key: torch.zeros_like(grad) for key, grad in hand_gradients(net).items()}
    for _ in range(passes):
        net.fetch()  # another batch
        for key, grad in pure_gradients(net).items():
            sums[key] += grad
        net.compute()
    require_equal(hand_gradients(net), sums)


@over_nets
@given(definition=loss_nets())
def test_in_place_never_changes_the_answer(definition: NetParameter) -> None:
    ours, other = filled(definition), filled(apart(definition))
    require_equal(gradients(ours), gradients(other), 1e-6)
    for name in ours.loss_blobs:
        np.testing.assert_allclose(ours.blobs[name].data, other.blobs[name].data, rtol=1e-5)


def test_no_gradient_passes_where_propagate_down_is_false() -> None:
    layers = """
layer {{ name: "below" type: "InnerProduct" bottom: "data" top: "below"
  inner_product_param {{ num_output: 4 }} }}
layer {{ name: "ip" type: "InnerProduct" bottom: "below" top: "ip" {cut}
  inner_product_param {{ num_output: 5 }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }}
"""
    for cut in ("", "propagate_down: false"):
        net = filled(parse(DATA + layers.format(cut=cut)))
        found = gradients(net)
        require_equal(found, pure_gradients(net))
        assert bool(found["below", 0].any()) == (not cut)


# Layers whose tops may be their bottom's memory, or are kept for the backward pass.
_PRODUCERS = {
    "Split": "",
    "Flatten": "",
    "Reshape": "reshape_param { shape { dim: 0 dim: -1 } }",
    "Slice": "",
    "Concat": "",
    "Eltwise": "",
    "Crop": "",
    "Tile": "tile_param { tiles: 1 }",
    "Power": "",
    "Dropout": "dropout_param { dropout_ratio: 0 }",
    "BatchNorm": "",
    "Scale": "",
    "Bias": "",
    "PReLU": "",
    "ReLU": "relu_param { negative_slope: 0.5 }",
    "Sigmoid": "",
    "TanH": "",
    "ELU": "",
    "AbsVal": "",
    "Exp": "",
    "BNLL": "",
    "LRN": "",
    "MVN": "",
    "Softmax": "",
    "Pooling": "pooling_param { kernel_size: 1 }",
    "Convolution": "convolution_param { num_output: 2 kernel_size: 1 }",
    "InnerProduct": "inner_product_param { num_output: 4 }",
    "Reduction": "reduction_param { axis: 2 }",
}


@pytest.mark.parametrize("after", ["ReLU", "Sigmoid", "Dropout"])
@pytest.mark.parametrize("kind", _PRODUCERS)
def test_what_follows_any_layer_in_place_spoils_nothing(kind: str, after: str) -> None:
    bottoms = 'bottom: "conv"' + (' bottom: "conv"' if kind in ("Eltwise", "Crop") else "")
    settings = _PRODUCERS[kind]
    definition = parse(
        DATA
        + f"""
layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param {{ num_output: 3 kernel_size: 1 }} }}
layer {{ name: "x" type: "{kind}" {bottoms} top: "x" {settings} }}
layer {{ name: "after" type: "{after}" bottom: "x" top: "x"
  dropout_param {{ dropout_ratio: 0.25 }} }}
layer {{ name: "ip" type: "InnerProduct" bottom: "x" top: "ip"
  inner_product_param {{ num_output: 5 }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }}
layer {{ name: "side" type: "InnerProduct" bottom: "conv" top: "side"
  inner_product_param {{ num_output: 5 }} }}
layer {{ name: "loss2" type: "SoftmaxWithLoss" bottom: "side" bottom: "label" top: "loss2" }}
"""
    )
    if kind == "Crop":
        definition.layer[2].crop_param.SetInParent()
    ours, other = filled(definition), filled(apart(definition))
    require_equal(gradients(ours), gradients(other), 1e-6)
    for name in ours.loss_blobs:
        assert ours.blobs[name].data == pytest.approx(other.blobs[name].data, rel=1e-6)


@over_nets
@given(definition=loss_nets())
def test_blobs_have_their_names_and_shapes_in_order(definition: NetParameter) -> None:
    net = Net(definition, NetState(TRAIN))
    shapes = {}
    for layer, around in zip(definition.layer, infer_shapes(definition.layer), strict=True):
        shapes |= dict(zip(layer.top, around.tops, strict=True))
    before = {name: blob.shape for name, blob in net.blobs.items()}
    net.forward()
    after = {name: blob.data.shape for name, blob in net.blobs.items()}
    assert before == after == shapes
    assert list(after) == list(shapes)


@over_nets
@given(definition=loss_nets(), data=st.data())
def test_a_forward_pass_in_parts_is_the_whole_one(definition: NetParameter, data) -> None:
    whole, parts = filled(definition, phase=TEST), filled(definition, phase=TEST)
    expected = whole.forward()
    names = [layer.name for layer in definition.layer]
    cut = data.draw(st.integers(0, len(names) - 2))
    tops = parts.forward(end=names[cut])
    assert list(tops) == list(definition.layer[cut].top)
    found = parts.forward(start=names[cut + 1])
    assert found.keys() == expected.keys() == set(whole.outputs)
    for name, blob in whole.blobs.items():
        np.testing.assert_array_equal(parts.blobs[name].data, blob.data)


def test_arrays_are_for_a_memory_data_layer_only() -> None:
    net = Net(parse(DATA), NetState(TRAIN))
    with pytest.raises(EngineError, match="has no MemoryData layer"):
        net.set_input_arrays(np.zeros((1, 1, 1, 1), np.float32), np.zeros(1, np.float32))


def test_what_is_written_into_an_input_is_what_passes_read() -> None:
    net = Net(
        parse("""
layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "double" type: "Power" bottom: "x" top: "y" power_param { scale: 2 } }
"""),
        NetState(TEST),
    )
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    for _ in range(2):
        net.blobs["x"].data[...] = values
        for _ in range(2):
            np.testing.assert_array_equal(net.forward()["y"], 2 * values)
        values = values + 7


def test_each_forward_pass_draws_its_own_masks() -> None:
    text = DATA + 'layer { name: "drop" type: "Dropout" bottom: "data" top: "drop" }'
    text = text.replace('"gaussian"', '"constant" value: 1')
    whole, parts = Net(parse(text), NetState(TRAIN)), Net(parse(text), NetState(TRAIN))
    drawn = [whole.forward()["drop"] for _ in range(3)]
    for number, masked in enumerate(drawn):
        assert not np.array_equal(masked, drawn[number - 1])
        parts.forward(end="data")
        np.testing.assert_array_equal(parts.forward(start="drop")["drop"], masked)
    whole.seek(1)
    np.testing.assert_array_equal(whole.forward()["drop"], drawn[1])


def test_a_layer_or_blob_that_is_not_there_is_named_with_those_that_are() -> None:
    net = Net(parse(DATA), NetState(TRAIN))
    with pytest.raises(SurgeryError, match="no layer 'ip'; its layers: data"):
        net.forward(start="ip")
    with pytest.raises(SurgeryError, match="no layer 'ip'; its layers: data"):
        net.forward(end="ip")
    with pytest.raises(SurgeryError, match="no blob 'ip'; its blobs: data, label"):
        net.value("ip")


def test_a_net_of_data_alone_has_passes_too() -> None:
    net = Net(parse(DATA), NetState(TRAIN))
    assert {name: blob.shape for name, blob in net.forward().items()} == {
        "data": (4, 3, 4, 4),
        "label": (4,),
    }
    net.compute()
    assert (net.params, net.loss_blobs, net.parameters.count) == ({}, [], 0)


# Blob diffs


def test_a_forced_backward_pass_of_a_test_net_gives_the_gradients_of_blobs() -> None:
    definition = parse("force_backward: true\n" + MANY)
    net = filled(definition, phase=TEST)
    net.forward()
    net.backward()
    batch = [tensor.clone() for tensor in net.batch]
    values = {b.key: net.parameters.view(net.parameters.data, b.key) for b in net.parameters.blobs}
    grad = torch.func.grad(lambda data: pure_loss(net, values, [data, batch[1]])[0])(batch[0])
    np.testing.assert_allclose(net.blobs["data"].diff, grad, atol=1e-6)
    assert net.blobs["data"].diff.shape == net.blobs["data"].shape
    assert net.blobs["label"].diff is None
    assert net.blobs["loss"].diff == 1
    assert net.blobs["aside"].diff == pytest.approx(0.3)
    # In Caffe force_backward reaches what does not learn too, but for BatchNorm's statistics.
    statistics = {layer.name for layer in definition.layer if layer.type == "BatchNorm"}
    pure = pure_gradients(net, graded=lambda blob: blob.key[0] not in statistics)
    require_equal(hand_gradients(net), pure)
    assert pure["frozen", 0].any()


def test_the_gradient_of_what_is_overwritten_is_that_of_its_first_version() -> None:
    # As in Caffe, where the backward pass of a layer in place overwrites the gradient too.
    net = filled(parse("force_backward: true\n" + MANY))
    other = filled(apart(parse("force_backward: true\n" + MANY)))
    for one in (net, other):
        one.forward()
        one.backward()
    np.testing.assert_allclose(net.blobs["conv"].diff, other.blobs["conv"].diff, atol=1e-7)
    np.testing.assert_array_equal(net.blobs["conv"].data, other.blobs["conv_relu"].data)
    assert not np.array_equal(other.blobs["conv"].diff, other.blobs["conv_relu"].diff)


def test_what_cannot_go_backward_says_why() -> None:
    net = filled(parse('name: "many"\n' + MANY), phase=TEST)
    net.forward()
    with pytest.raises(EngineError, match=r"'many' has no backward pass.*force_backward: true"):
        net.backward()
    net = filled(parse('name: "many"\n' + MANY))
    with pytest.raises(EngineError, match=r"'many'.*forward pass first"):
        net.backward()
    net.forward()
    net.backward()
    with pytest.raises(EngineError, match=r"'many'.*forward pass first"):
        net.backward()


# Weights in and out


@pytest.fixture
def many() -> Net:
    return filled(parse('name: "many"\n' + MANY), seed=3)


def values(net: Net) -> dict:
    return {
        (name, index): blob.data.copy()
        for name, blobs in net.params.items()
        for index, blob in enumerate(blobs)
    }


def require_same(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    for key, blob in expected.items():
        np.testing.assert_array_equal(found[key], blob, err_msg=str(key))


def test_what_is_saved_is_what_is_loaded(many: Net, tmp_path: Path) -> None:
    many.save(tmp_path / "a.caffemodel")
    other = Net(many.definition, NetState(TRAIN), seed=9)
    assert not np.array_equal(values(other)["conv", 0], values(many)["conv", 0])
    other.copy_from(tmp_path / "a.caffemodel")
    require_same(values(other), values(many))
    stored = read_caffemodel(tmp_path / "a.caffemodel")
    assert [(layer.name, layer.type) for layer in stored.layers] == [
        (layer.name, layer.type) for layer in layers_in_state(many.definition, NetState(TRAIN))
    ]


def test_hdf5_weights_which_hold_shared_blobs_once_are_loaded(many: Net, tmp_path: Path) -> None:
    write_hdf5_weights(tmp_path / "a.caffemodel.h5", many.weights)
    other = Net(many.definition, NetState(TRAIN), seed=9)
    other.copy_from(tmp_path / "a.caffemodel.h5")
    require_same(values(other), values(many))


def stored(name: str, kind: str, *blobs: np.ndarray) -> Layer:
    return Layer(LayerParameter(name=name, type=kind), tuple(blobs))


def test_other_layers_are_passed_over_and_those_not_there_stay(many: Net, tmp_path: Path) -> None:
    before = values(many)
    blob = np.ones((5, 64), np.float32)
    layers = (
        stored("side", "InnerProduct", blob, blob[:, 0]),
        stored("other", "InnerProduct", blob),
        stored("conv", "Convolution"),
    )
    write_caffemodel(tmp_path / "a.caffemodel", Caffemodel(layers))
    many.copy_from(tmp_path / "a.caffemodel")
    require_same(values(many), before | {("side", 0): blob, ("side", 1): blob[:, 0]})


@pytest.mark.parametrize(
    ("blobs", "sentence"),
    [
        ([(5, 63), (5,)], r"layer 'side' holds 5x63, 5, the net says 5x64, 5"),
        ([(64, 5), (5,)], r"layer 'side' holds 64x5, 5, the net says 5x64, 5"),
        ([(5, 64)], r"layer 'side' holds 5x64, the net says 5x64, 5"),
        ([(5, 64), (5,), (1,)], r"layer 'side' holds 5x64, 5, 1, the net says 5x64, 5"),
    ],
)
def test_weights_of_other_shapes_are_refused_with_both(
    many: Net, tmp_path: Path, blobs: list, sentence: str
) -> None:
    before = values(many)
    arrays = [np.ones(shape, np.float32) for shape in blobs]
    path = tmp_path / "a.caffemodel"
    write_caffemodel(path, Caffemodel((stored("side", "InnerProduct", *arrays),)))
    with pytest.raises(SurgeryError, match=rf"{path}: {sentence}; give the weights of this net"):
        many.copy_from(path)
    require_same(values(many), before)
    path.write_bytes(b"no weights")
    with pytest.raises(FormatError, match=str(path)):
        many.copy_from(path)


def test_legacy_shapes_are_todays(many: Net, tmp_path: Path) -> None:
    legacy = {
        ("ip", 0): (1, 1, 5, 27),
        ("ip", 1): (1, 1, 1, 5),
        ("conv", 0): (4, 3, 3, 3),
        ("conv", 1): (1, 1, 1, 4),
    }
    model = NetParameter()
    for name, kind in (("ip", "InnerProduct"), ("conv", "Convolution")):
        layer = model.layer.add(name=name, type=kind)
        for index, blob in enumerate(many.params[name]):
            axes = dict(
                zip(("num", "channels", "height", "width"), legacy[name, index], strict=True)
            )
            layer.blobs.add(data=2 * blob.data.ravel(), **axes)
    (tmp_path / "a.caffemodel").write_bytes(model.SerializeToString())
    before = values(many)
    many.copy_from(tmp_path / "a.caffemodel")
    require_same(values(many), before | {key: 2 * before[key] for key in legacy})


def test_a_net_that_shares_follows_every_later_change(many: Net, tmp_path: Path) -> None:
    test = Net(many.definition, NetState(TEST))
    assert not np.array_equal(values(test)["conv", 0], values(many)["conv", 0])
    test.share_with(many)
    require_same(values(test), values(many))
    many.parameters.data.mul_(0.5)
    require_same(values(test), values(many))
    other = filled(many.definition, seed=5)
    other.save(tmp_path / "a.caffemodel")
    many.copy_from(tmp_path / "a.caffemodel")
    require_same(values(test), values(other))
    test.fetch()
    expected = filled(many.definition, 5, TEST).forward()["loss"]
    np.testing.assert_array_equal(test.forward()["loss"], expected)
    wider = parse(MANY.replace("num_output: 5", "num_output: 6"))
    with pytest.raises(SurgeryError, match="layer 'ip' holds 5x27, 5, the net says 6x27, 6"):
        Net(wider, NetState(TEST)).share_with(many)


# Places in the data

DRAWING = """
layer {{ name: "data" type: "Data" top: "data" top: "label"
  transform_param {{ scale: 0.00390625 mirror: true crop_size: 20 }}
  data_param {{ source: "{source}" batch_size: 13 backend: LMDB }} }}
layer {{ name: "drop1" type: "Dropout" bottom: "data" top: "data1" }}
layer {{ name: "ip1" type: "InnerProduct" bottom: "data1" top: "ip1"
  inner_product_param {{ num_output: 20 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "drop2" type: "Dropout" bottom: "ip1" top: "ip1" }}
layer {{ name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
  inner_product_param {{ num_output: 10 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }}
"""


def test_each_pass_is_the_same_however_its_place_was_reached(digits: Path) -> None:
    definition = parse(DRAWING.format(source=digits / "mnist_train_lmdb"))
    net, other = (Net(definition, NetState(TRAIN), seed=4) for _ in range(2))
    assert net.draws
    passes = []
    for _ in range(5):
        net.fetch()
        passes.append((net.batch[0].clone(), gradients(net)))
    firsts = [grads["ip1", 0] for _, grads in passes]
    assert not any(torch.equal(firsts[0], first) for first in firsts[1:])
    for place in (3, 0, 4, 3):
        other.seek(place)
        other.fetch()
        assert torch.equal(other.batch[0], passes[place][0])
        require_equal(gradients(other), passes[place][1], 0)
    net.close()
    other.close()


def test_another_seed_draws_and_fills_otherwise(digits: Path) -> None:
    definition = parse(DRAWING.format(source=digits / "mnist_train_lmdb"))
    first, same, other = (Net(definition, NetState(TRAIN), seed=seed) for seed in (4, 4, 5))
    for net in (first, same, other):
        net.fetch()
    assert torch.equal(first.batch[0], same.batch[0])
    assert not torch.equal(first.batch[0], other.batch[0])
    require_same(values(first), values(same))
    assert not np.array_equal(values(first)["ip1", 0], values(other)["ip1", 0])
    for net in (first, same, other):
        net.close()


def test_hidden_states_go_on_until_the_net_goes_to_another_place() -> None:
    net = Net(
        parse(
            """
layer { name: "in" type: "DummyData" top: "x" top: "cont" dummy_data_param {
  shape { dim: [2, 1, 3] } shape { dim: [2, 1] } data_filler { value: 1 } } }
layer { name: "lstm" type: "LSTM" bottom: "x" bottom: "cont" top: "lstm"
  recurrent_param { num_output: 2 weight_filler { value: 0.5 } } }
"""
        ),
        NetState(TEST),
    )
    first, second = (net.forward()["lstm"].copy() for _ in range(2))
    assert (first < second).all()
    net.seek(0)
    assert np.array_equal(net.forward()["lstm"], first)


def test_no_gradient_goes_to_the_marks_of_a_sequence() -> None:
    text = """
layer { name: "in" type: "DummyData" top: "x" dummy_data_param { shape { dim: [2, 1, 3] } } }
layer { name: "marks" type: "Parameter" top: "cont" parameter_param { shape { dim: [2, 1] } } }
layer { name: "rnn" type: "RNN" bottom: "x" bottom: "cont" top: "rnn" loss_weight: 1
  recurrent_param { num_output: 2 } }
"""
    net = Net(parse(text), NetState(TRAIN))
    net.forward()
    with pytest.raises(EngineError, match=r"layer 'rnn' .*its bottom 'cont' tells where sequences"):
        net.backward()
    told = text.replace('name: "rnn"', 'name: "rnn" propagate_down: [true, false]')
    for quiet in (told, "force_backward: true" + told):
        net = Net(parse(quiet), NetState(TRAIN))
        net.forward()
        net.backward()
        assert net.params["rnn"][0].diff is not None
