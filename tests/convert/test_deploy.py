"""Judge: the real Caffe gives the same scores from the train_val net (TEST) and its deploy form."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pycaffe_prune.convert.definitions import model_net
from pycaffe_prune.convert.deploy import deploy_remarks, to_deploy
from pycaffe_prune.convert.strip import strip_model, strip_training
from pycaffe_prune.errors import FormatError, SurgeryError
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, read_caffemodel
from pycaffe_prune.formats.prototxt import read_net, write_prototxt
from pycaffe_prune.share import share_root

NetOf = Callable[[str], NetParameter]
WeightsFor = Callable[..., Caffemodel]
Forward = Callable[..., dict[str, NDArray[np.float32]]]
RunCaffe = Callable[..., None]

SHAPE = (4, 3, 8, 8)
DATA = """
name: "net"
layer { name: "images" type: "DummyData" top: "data" top: "label"
  dummy_data_param { shape { dim: 4 dim: 3 dim: 8 dim: 8 } shape { dim: 4 dim: 1 dim: 1 dim: 1 } } }
"""
TWO_LABELS = DATA.replace("shape { dim: 4 dim: 1 ", "shape { dim: 4 dim: 2 ")
BODY = """
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1" include { phase: TEST }
  include { phase: TRAIN } param { lr_mult: 1 } param { lr_mult: 2 }
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "msra" } } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "drop1" type: "Dropout" bottom: "conv1" top: "conv1" }
layer { name: "ip1" type: "InnerProduct" bottom: "conv1" top: "ip1"
  inner_product_param { num_output: 6 weight_filler { type: "xavier" } } }
layer { name: "tanh1" type: "TanH" bottom: "ip1" top: "tanh1" }
layer { name: "drop2" type: "Dropout" bottom: "tanh1" top: "drop2" }
layer { name: "ip2" type: "InnerProduct" bottom: "drop2" top: "ip2"
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
"""
ACCURACY = """
layer { name: "accuracy" type: "Accuracy" bottom: "ip2" bottom: "label" top: "accuracy"
  include { phase: TEST } }
"""
LOSS = """
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }
"""
AUXILIARY = """
layer { name: "aux/ip" type: "InnerProduct" bottom: "conv1" top: "aux/ip"
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "aux/loss" type: "SoftmaxWithLoss" bottom: "aux/ip" bottom: "label" top: "aux/loss"
  loss_weight: 0.3 }
layer { name: "aux/top" type: "Accuracy" bottom: "aux/ip" bottom: "label" top: "aux/top" }
"""
NETS = {
    "plain": (DATA + BODY + ACCURACY + LOSS, ["prob"]),
    "auxiliary head": (DATA + BODY + AUXILIARY + LOSS, ["prob"]),
    "auxiliary head of training": (
        DATA + BODY + AUXILIARY.replace('top: "aux', 'include { phase: TRAIN } top: "aux') + LOSS,
        ["prob"],
    ),
    "loss in training only": (
        DATA
        + BODY
        + ACCURACY
        + LOSS.replace('"loss" type', '"loss" include { phase: TRAIN } type'),
        ["prob"],
    ),
    "labels sliced": (
        TWO_LABELS
        + BODY
        + 'layer { name: "cut" type: "Slice" bottom: "label" top: "first" top: "second" }'
        + 'layer { name: "quiet" type: "Silence" bottom: "second" }'
        + LOSS.replace('"label"', '"first"'),
        ["prob"],
    ),
    "two tasks": (
        TWO_LABELS
        + BODY
        + 'layer { name: "cut" type: "Slice" bottom: "label" top: "first" top: "second" }'
        + 'layer { name: "other" type: "InnerProduct" bottom: "ip1" top: "other" '
        + "inner_product_param { num_output: 3 } }"
        + LOSS.replace('"label"', '"first"')
        + 'layer { name: "loss2" type: "SoftmaxWithLoss" bottom: "other" bottom: "second" '
        + 'top: "loss2" loss_weight: 0.5 }',
        ["prob_ip2", "prob_other"],
    ),
    "sigmoid": (
        DATA.replace("shape { dim: 4 dim: 1 dim: 1 dim: 1 }", "shape { dim: 4 dim: 5 }")
        + BODY
        + LOSS.replace("SoftmaxWithLoss", "SigmoidCrossEntropyLoss"),
        ["prob"],
    ),
    "regression": (
        DATA.replace("shape { dim: 4 dim: 1 dim: 1 dim: 1 }", "shape { dim: 4 dim: 5 }")
        + BODY
        + LOSS.replace("SoftmaxWithLoss", "EuclideanLoss"),
        ["ip2"],
    ),
    "probabilities beside the loss": (
        DATA + BODY + LOSS + 'layer { name: "p" type: "Softmax" bottom: "ip2" top: "p" }',
        ["p"],
    ),
    "accuracy only": (DATA + BODY + ACCURACY, ["ip2"]),
}


def outputs_of(net: NetParameter) -> list[str]:
    read = {name for layer in net.layer for name in layer.bottom}
    return [top for layer in net.layer for top in layer.top if top not in read]


@pytest.mark.real_caffe
@pytest.mark.parametrize("name", NETS)
def test_train_val_and_deploy_give_the_same_scores(
    name: str, net_of: NetOf, weights_for: WeightsFor, forward: Forward
) -> None:
    text, outputs = NETS[name]
    net = net_of(text)
    deploy = strip_training(to_deploy(net))
    assert outputs_of(deploy) == outputs
    model = weights_for(net)
    stripped = strip_model(model, net)
    images = {"data": np.random.default_rng(3).normal(size=SHAPE).astype(np.float32)}
    blobs = ["ip1", "ip2", *(["other"] if name == "two tasks" else [])]
    before = forward(net, model, images, blobs)
    after = forward(deploy, stripped, images, [*blobs, *outputs])
    for blob in blobs:
        np.testing.assert_array_equal(after[blob], before[blob])
    for output in outputs:
        if output.startswith("prob"):
            scores = before[output.removeprefix("prob_") if output != "prob" else "ip2"]
            np.testing.assert_allclose(after[output], probabilities(name, scores), atol=1e-6)


def probabilities(name: str, scores: NDArray[np.float32]) -> NDArray[np.float32]:
    if name == "sigmoid":
        return 1 / (1 + np.exp(-scores))
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("name", NETS)
def test_nothing_of_training_is_left(name: str, net_of: NetOf, weights_for: WeightsFor) -> None:
    net = net_of(NETS[name][0])
    original = net.SerializeToString()
    deploy = to_deploy(net)
    text = str(deploy)
    for word in ("phase", "lr_mult", "filler", "loss", "Accuracy", "Silence", "Slice", "Dummy"):
        assert word not in text
    assert [layer.type for layer in deploy.layer if not layer.bottom] == ["Input"]
    assert tuple(deploy.layer[0].input_param.shape[0].dim) == SHAPE
    assert to_deploy(deploy) == deploy
    assert net.SerializeToString() == original
    stripped = strip_model(weights_for(net), net)
    kept = {layer.name for layer in stripped.layers}
    assert kept == {"conv1", "ip1", "ip2"} | ({"other"} if name == "two tasks" else set())
    assert "filler" not in str([layer.param for layer in stripped.layers])


@pytest.mark.real_caffe
@pytest.mark.parametrize("name", ["auxiliary head", "two tasks", "probabilities beside the loss"])
def test_the_definitions_in_a_file_that_caffe_saved_give_the_same_deploy_net(
    name: str, net_of: NetOf, run_caffe: RunCaffe, tmp_path: Path
) -> None:
    net = net_of(NETS[name][0])
    write_prototxt(tmp_path / "net.prototxt", net)
    run_caffe("save", "net.prototxt", "saved.caffemodel", "saved.npz", cwd=tmp_path)
    model = read_caffemodel(tmp_path / "saved.caffemodel")
    assert any(layer.type == "Split" for layer in model.layers)
    assert to_deploy(model_net(model)) == to_deploy(net)


def test_lenet_300_100_becomes_the_deploy_net_that_comes_with_it() -> None:
    folder = share_root() / "prototxt" / "lenet_300_100"
    deploy = to_deploy(read_net(folder / "train_val.prototxt"), {"data": (64, 1, 28, 28)})
    assert deploy == read_net(folder / "deploy.prototxt")


SOURCES = [
    ('type: "Data" transform_param { crop_size: 6 force_color: true }', (1, 3, 6, 6)),
    ('type: "Data" transform_param { crop_size: 6 force_gray: true }', (1, 1, 6, 6)),
    (
        'type: "Data" transform_param { crop_size: 6 mean_value: 1 mean_value: 2 mean_value: 3 }',
        (1, 3, 6, 6),
    ),
    ('type: "ImageData" transform_param { crop_size: 6 } image_data_param { batch_size: 2 }',
     (2, 3, 6, 6)),
    ('type: "MemoryData" memory_data_param { batch_size: 2 channels: 4 height: 5 width: 7 }',
     (2, 4, 5, 7)),
    ('type: "Input" input_param { shape { dim: 7 dim: 2 dim: 6 dim: 6 } shape { dim: 7 } }',
     (7, 2, 6, 6)),
]  # fmt: skip


@pytest.mark.parametrize(("source", "shape"), SOURCES)
def test_the_inputs_shape_is_what_the_data_layer_tells(
    net_of: NetOf, source: str, shape: tuple[int, ...]
) -> None:
    net = net_of(f'layer {{ name: "x" top: "data" top: "label" {source} }}' + BODY + LOSS)
    assert tuple(to_deploy(net).layer[0].input_param.shape[0].dim) == shape
    given = to_deploy(net, {"data": (9, 3, 10, 10)})
    assert tuple(given.layer[0].input_param.shape[0].dim) == (9, 3, 10, 10)


def test_channels_come_from_the_weights_where_the_net_does_not_tell_them(
    net_of: NetOf, weights_for: WeightsFor
) -> None:
    source = (
        'layer { name: "x" type: "Data" top: "data" top: "label" transform_param {crop_size: 8} }'
    )
    net = net_of(source + BODY + LOSS)
    with pytest.raises(SurgeryError, match=r"'x' \(Data\).*'data'.*--input-shape data="):
        to_deploy(net)
    model = weights_for(net, {"data": (1, 3, 8, 8)})
    assert tuple(to_deploy(net, model=model).layer[0].input_param.shape[0].dim) == (1, 3, 8, 8)


def test_shared_weights_keep_their_names(net_of: NetOf) -> None:
    twin = (
        'layer { name: "a" type: "InnerProduct" bottom: "data" top: "a" '
        'param { name: "w" lr_mult: 3 decay_mult: 0 } inner_product_param { num_output: 2 } }'
    )
    deploy = to_deploy(net_of(DATA + twin + twin.replace('"a"', '"b"')))
    assert [str(layer.param[0]) for layer in deploy.layer[1:]] == ['name: "w"\n'] * 2


def test_a_net_that_predicts_nothing_is_refused(net_of: NetOf) -> None:
    with pytest.raises(SurgeryError, match="net 'idle' predicts nothing in the phase TEST"):
        to_deploy(net_of(DATA.replace('"net"', '"idle"')))


def test_what_the_data_layer_did_to_the_images_is_told() -> None:
    net = read_net(share_root() / "prototxt" / "lenet_300_100" / "train_val.prototxt")
    (note,) = deploy_remarks(net)
    assert "'mnist'" in note
    assert "scale: 0.00390625" in note


STAGED = DATA.replace('name: "images"', 'name: "images" include { phase: TEST stage: "val" }')


@pytest.mark.real_caffe
def test_a_blob_that_no_layer_makes_becomes_an_input_of_the_shape_given(
    net_of: NetOf, weights_for: WeightsFor, forward: Forward
) -> None:
    deploy = to_deploy(net_of(STAGED + BODY + LOSS), {"data": SHAPE})
    assert deploy == to_deploy(net_of(DATA + BODY + LOSS))
    images = {"data": np.random.default_rng(3).normal(size=SHAPE).astype(np.float32)}
    found = forward(deploy, weights_for(deploy), images, ["prob"])
    assert found["prob"].shape == (4, 5)


def test_a_blob_that_no_layer_makes_is_asked_for_with_who_would_make_it(net_of: NetOf) -> None:
    with pytest.raises(
        SurgeryError, match=r"'conv1' .* reads the blob 'data', .*--input-shape data="
    ):
        to_deploy(net_of(BODY + LOSS))
    with pytest.raises(SurgeryError, match=r"'images' \(DummyData\) does, with the stage val"):
        to_deploy(net_of(STAGED + BODY + LOSS))


def test_a_python_layer_that_brings_data_becomes_an_input(net_of: NetOf) -> None:
    source = 'layer { name: "py" type: "Python" top: "data" top: "label" }'
    deploy = to_deploy(net_of('name: "net"' + source + BODY + LOSS), {"data": SHAPE})
    assert deploy == to_deploy(net_of(DATA + BODY + LOSS))
    with pytest.raises(SurgeryError, match="--input-shape data="):
        to_deploy(net_of(source + BODY + LOSS))


def test_a_shape_of_no_data_blob_is_refused_and_one_of_labels_is_not(net_of: NetOf) -> None:
    net = net_of(DATA + BODY + LOSS)
    for name in ("datum", "ip1"):
        with pytest.raises(SurgeryError, match=f"no data blob '{name}'; .* reads: data"):
            to_deploy(net, {name: (1, 2)})
    assert to_deploy(net, {"label": (1,)}) == to_deploy(net)


@pytest.mark.real_caffe
@pytest.mark.parametrize("named", ["data", "prob"])
def test_no_input_takes_the_name_of_a_layer_with_weights(
    named: str, net_of: NetOf, weights_for: WeightsFor, forward: Forward
) -> None:
    net = net_of((DATA + BODY + LOSS).replace('name: "ip1"', f'name: "{named}"'))
    deploy = to_deploy(net)
    names = [layer.name for layer in deploy.layer]
    assert len(set(names)) == len(names)
    images = {"data": np.random.default_rng(3).normal(size=SHAPE).astype(np.float32)}
    model = weights_for(net)
    before, after = (forward(one, model, images, ["ip2"]) for one in (net, deploy))
    np.testing.assert_array_equal(after["ip2"], before["ip2"])  # else Caffe aborts on the names


@pytest.mark.real_caffe
def test_batch_norm_goes_by_its_stored_statistics(
    net_of: NetOf, weights_for: WeightsFor, forward: Forward
) -> None:
    def net(setting: str) -> NetParameter:
        norm = (
            'layer { name: "bn" type: "BatchNorm" bottom: "conv1" top: "conv1" '
            f"batch_norm_param {{ {setting} eps: 0.001 }} }}"
        )
        relu = 'layer { name: "relu1"'
        return net_of(DATA + BODY.replace(relu, norm + relu) + LOSS)

    batch = net("use_global_stats: false")
    deploy = to_deploy(batch)
    assert deploy == to_deploy(net(""))
    (note,) = deploy_remarks(batch)
    assert "'bn' has use_global_stats: false" in note
    assert not deploy_remarks(net("use_global_stats: true"))
    images = {"data": np.random.default_rng(3).normal(size=SHAPE).astype(np.float32)}
    model = weights_for(batch)
    scores = [forward(one, model, images, ["ip2"])["ip2"] for one in (deploy, net(""), batch)]
    np.testing.assert_array_equal(scores[0], scores[1])
    assert np.abs(scores[0] - scores[2]).max() > 0.01


CONSTANTS = """
layer { name: "twos" type: "DummyData" top: "twos"
  dummy_data_param { shape { dim: 4 dim: 5 } data_filler { type: "constant" value: 2 } } }
layer { name: "twice" type: "Eltwise" bottom: "ip2" bottom: "twos" top: "twice"
  eltwise_param { operation: PROD } }
"""


def test_constants_that_stand_in_for_all_data_become_an_input(net_of: NetOf) -> None:
    """As in nets that are there to be timed."""
    filler = 'data_filler { type: "constant" value: 0.01 }'
    net = net_of(DATA.replace("dim: 1 } } }", f"dim: 1 }} {filler} }} }}") + BODY + LOSS)
    assert net.layer[0].dummy_data_param.data_filler[0].type == "constant"
    assert to_deploy(net) == to_deploy(net_of(DATA + BODY + LOSS))


@pytest.mark.real_caffe
def test_constants_of_the_net_stay_and_what_stands_in_for_data_becomes_an_input(
    net_of: NetOf, weights_for: WeightsFor, forward: Forward
) -> None:
    net = net_of(DATA + BODY + CONSTANTS + LOSS.replace('"ip2"', '"twice"'))
    deploy = to_deploy(net)
    sources = {layer.name: layer.type for layer in deploy.layer if not layer.bottom}
    assert sources == {"data": "Input", "twos": "DummyData"}
    assert to_deploy(deploy) == deploy
    model = weights_for(net)
    images = {"data": np.random.default_rng(3).normal(size=SHAPE).astype(np.float32)}
    before = forward(net, model, images, ["ip2", "twice"])
    after = forward(deploy, strip_model(model, net), images, ["twice"])
    np.testing.assert_array_equal(after["twice"], before["twice"])
    np.testing.assert_array_equal(after["twice"], 2 * before["ip2"])


def test_a_loss_with_gains_leaves_the_softmax_of_its_own_axis(net_of: NetOf) -> None:
    loss = """
layer { name: "loss" type: "InfogainLoss" bottom: "conv1" bottom: "label" top: "loss"
  infogain_loss_param { source: "gains.binaryproto" axis: 2 } softmax_param { axis: 3 } }
"""
    deploy = to_deploy(net_of(DATA + BODY.split('layer { name: "relu1"')[0] + loss))
    assert deploy.layer[-1].type == "Softmax"
    # As `InfogainLossLayer::LayerSetUp` sets it, whatever softmax_param says.
    assert deploy.layer[-1].softmax_param.axis == 2


@pytest.mark.parametrize("kind", ["Dropout", "BatchNorm"])
def test_a_prediction_that_would_compute_as_in_training_is_refused(
    net_of: NetOf, kind: str
) -> None:
    layer = 'layer {{ name: "x" type: "{}" bottom: "ip1" top: "ip1" phase: {} }}'
    body = BODY.replace('layer { name: "tanh1"', '%s\nlayer { name: "tanh1"')
    with pytest.raises(FormatError, match=rf"layer 'x' \({kind}\) has phase: TRAIN"):
        to_deploy(net_of(DATA + body.replace("%s", layer.format(kind, "TRAIN")) + LOSS))
    plain = to_deploy(net_of(DATA + body.replace("%s", layer.format(kind, "TEST")) + LOSS))
    assert "phase" not in str(plain)
