"""Judge: the real Caffe loads the new net with the old weights, and starts the new layer afresh."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pycaffe_prune.convert.classifier import (
    Classifier,
    output_layers,
    replace_classifier,
    without_classifier,
)
from pycaffe_prune.convert.definitions import model_net
from pycaffe_prune.convert.deploy import to_deploy
from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, read_caffemodel, write_caffemodel
from pycaffe_prune.formats.prototxt import read_net, write_prototxt
from pycaffe_prune.share import share_root

NetOf = Callable[[str], NetParameter]
WeightsFor = Callable[..., Caffemodel]
RunCaffe = Callable[..., None]

NET = """
layer { name: "images" type: "DummyData" top: "data" top: "label"
  dummy_data_param { shape { dim: 2 dim: 3 dim: 6 dim: 6 } shape { dim: 2 } } }
layer { name: "fc7" type: "InnerProduct" bottom: "data" top: "fc7"
  inner_product_param { num_output: 12 } }
layer { name: "fc8" type: "InnerProduct" bottom: "fc7" top: "fc8"
  param { lr_mult: 1 decay_mult: 1 } param { lr_mult: 2 decay_mult: 0 }
  inner_product_param { num_output: 10 weight_filler { type: "xavier" }
    bias_filler { type: "constant" value: 1 } } }
layer { name: "accuracy" type: "Accuracy" bottom: "fc8" bottom: "label" top: "accuracy"
  accuracy_param { top_k: 5 } include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc8" bottom: "label" top: "loss" }
"""
NEW = Classifier("fc8", "fc8_oxford_102", 102)


def check_in_caffe(
    folder: Path, run_caffe: RunCaffe, net: NetParameter, model: Caffemodel, new: Classifier
) -> None:
    """Caffe must load all blobs but the new layer's, and fill these: gaussian of 0.01, and 0."""
    write_prototxt(folder / "net.prototxt", replace_classifier(net, new))
    write_caffemodel(folder / "old.caffemodel", without_classifier(model, new))
    run_caffe("load", "net.prototxt", "old.caffemodel", "loaded.npz", cwd=folder)
    with np.load(folder / "loaded.npz") as loaded:
        blobs = dict(loaded)
    weights, bias = blobs.pop(f"{new.new}:0"), blobs.pop(f"{new.new}:1")
    kept = {f"{name}:{index}": blob for (name, index), blob in model.blobs() if name != new.old}
    assert set(blobs) == set(kept)
    for place, blob in kept.items():
        np.testing.assert_array_equal(blobs[place], blob)
    assert weights.shape == (new.num_output, *model.layer(new.old).blobs[0].shape[1:])
    assert 0.008 < weights.std() < 0.012
    assert bias.shape == (new.num_output,)
    assert not bias.any()


@pytest.mark.real_caffe
def test_caffe_starts_the_new_classifier_afresh(
    tmp_path: Path, run_caffe: RunCaffe, net_of: NetOf, weights_for: WeightsFor
) -> None:
    net = net_of(NET)
    check_in_caffe(tmp_path, run_caffe, net, weights_for(net), NEW)


@pytest.mark.real_caffe
@pytest.mark.parametrize(
    ("file", "shape", "new"),
    [
        ("lenet/lenet_iter_10000.caffemodel", (1, 1, 28, 28), Classifier("ip2", "letters", 26)),
        (
            "squeezenet/squeezenet_v1.0_pruned.caffemodel",
            (1, 3, 67, 67),
            Classifier("conv_final", "conv_flowers", 102),
        ),
    ],
)
def test_the_other_weights_of_real_models_stay(
    tmp_path: Path,
    run_caffe: RunCaffe,
    data_dir: Path,
    file: str,
    shape: tuple[int, ...],
    new: Classifier,
) -> None:
    model = read_caffemodel(data_dir / "zoo" / file)
    check_in_caffe(tmp_path, run_caffe, to_deploy(model_net(model), {"data": shape}), model, new)


@pytest.mark.real_caffe
def test_caffe_reads_ten_times_the_learning_rates(
    tmp_path: Path, run_caffe: RunCaffe, net_of: NetOf
) -> None:
    write_prototxt(tmp_path / "net.prototxt", replace_classifier(net_of(NET), NEW))
    run_caffe("save", "net.prototxt", "saved.caffemodel", "saved.npz", cwd=tmp_path)
    saved = read_caffemodel(tmp_path / "saved.caffemodel").layer(NEW.new).param
    assert [(param.lr_mult, param.decay_mult) for param in saved.param] == [(10, 1), (20, 0)]


def test_all_that_reads_the_scores_follows(net_of: NetOf) -> None:
    net = net_of(NET)
    new = replace_classifier(net, NEW)
    assert net == net_of(NET)
    assert [layer.name for layer in new.layer] == [
        "images", "fc7", "fc8_oxford_102", "accuracy", "loss"
    ]  # fmt: skip
    assert [*new.layer[2].top] == ["fc8_oxford_102"]
    for reader in new.layer[3:]:
        assert [*reader.bottom] == ["fc8_oxford_102", "label"]
    expected = net_of(NET.replace('"fc8"', '"fc8_oxford_102"'))
    layer = expected.layer[2]
    for param, lr_mult in zip(layer.param, (10, 20), strict=True):
        param.lr_mult = lr_mult
    settings = layer.inner_product_param
    settings.num_output = 102
    settings.weight_filler.type, settings.weight_filler.std = "gaussian", 0.01
    settings.bias_filler.value = 0
    assert new == expected


def test_a_top_of_another_name_keeps_it(net_of: NetOf) -> None:
    new = replace_classifier(
        net_of(
            NET.replace('top: "fc8"', 'top: "scores"').replace('bottom: "fc8"', 'bottom: "scores"')
        ),
        NEW,
    )
    assert [*new.layer[2].top] == ["scores"]
    assert {reader.bottom[0] for reader in new.layer[3:]} == {"scores"}


@pytest.mark.parametrize(
    ("param", "rates"),
    [
        ("", [10, 10]),
        ("param { lr_mult: 3 }", [30, 10]),
        ("param { lr_mult: 0 } param { lr_mult: 0 }", [10, 10]),
    ],
)
def test_rates_that_are_not_told_or_are_0_count_as_1(
    net_of: NetOf, param: str, rates: list[float]
) -> None:
    told = "param { lr_mult: 1 decay_mult: 1 } param { lr_mult: 2 decay_mult: 0 }"
    layer = replace_classifier(net_of(NET.replace(told, param)), NEW).layer[2]
    assert [entry.lr_mult for entry in layer.param] == rates


def test_definitions_in_the_weights_end_before_the_classifier(
    net_of: NetOf, weights_for: WeightsFor
) -> None:
    left = without_classifier(weights_for(net_of(NET)), NEW)
    assert [layer.name for layer in left.layers] == ["images", "fc7"]


OUTPUTS = {
    "caffenet": ["fc8"],
    "squeezenet_v1.0": ["conv10"],
    "lenet": ["ip2"],
    "resnet_50": ["fc1000"],
    "googlenet": ["loss1/classifier", "loss2/classifier", "loss3/classifier"],
}


@pytest.mark.parametrize("folder", OUTPUTS)
def test_output_layers_of_known_networks(folder: str) -> None:
    net = read_net(share_root() / "prototxt" / folder / "deploy.prototxt")
    assert sorted(output_layers(net)) == OUTPUTS[folder]
    for name in OUTPUTS[folder]:
        net = replace_classifier(net, Classifier(name, f"{name}_new", 102))
    assert sorted(output_layers(net)) == [f"{name}_new" for name in OUTPUTS[folder]]


IMPOSSIBLE = [
    ("fc7", "new", 5, "", "layer 'fc7' is of type InnerProduct and no output layer.*: fc8"),
    ("loss", "new", 5, "", "layer 'loss' is of type SoftmaxWithLoss and no output layer"),
    ("fc9", "new", 5, "", "layer 'fc9' is not in the net; the output layers are: fc8"),
    ("fc8", "fc7", 5, "", "'fc7': the net has a layer or blob of this name"),
    ("fc8", "fc8", 5, "", "'fc8': the net has a layer or blob of this name"),
    ("fc8", "new", 0, "", "'new': a classifier of 0 classes"),
    ("fc8", "new", 4, "", "layer 'accuracy' looks at the top 5 of 4 classes"),
    ("fc8", "new", 5, 'name: "w"', "layer 'fc8' shares its weights by name"),
]


@pytest.mark.parametrize(("old", "new", "count", "shared", "sentence"), IMPOSSIBLE)
def test_what_cannot_be_replaced_is_one_sentence(
    net_of: NetOf, old: str, new: str, count: int, shared: str, sentence: str
) -> None:
    net = net_of(NET.replace("param { lr_mult: 1", f"param {{ {shared} lr_mult: 1"))
    with pytest.raises(SurgeryError, match=sentence) as raised:
        replace_classifier(net, Classifier(old, new, count))
    assert "\n" not in str(raised.value)


def test_weights_without_the_old_or_with_the_new_layer_are_refused(
    net_of: NetOf, weights_for: WeightsFor
) -> None:
    model = weights_for(net_of(NET))
    with pytest.raises(SurgeryError, match=r"'fc9' has no weights .*: fc7, fc8"):
        without_classifier(model, Classifier("fc9", "new", 5))
    with pytest.raises(SurgeryError, match=r"'fc7': the caffemodel has a layer of this name"):
        without_classifier(model, Classifier("fc8", "fc7", 5))


FIXED = {
    "Eltwise": 'layer { name: "after" type: "Eltwise" bottom: "fc8" bottom: "x" top: "after" }',
    "Reshape": 'layer { name: "after" type: "Reshape" bottom: "fc8" top: "after" '
    "reshape_param { shape { dim: 0 dim: 2 dim: -1 } } }",
    "Slice": 'layer { name: "after" type: "Slice" bottom: "fc8" top: "one" top: "two" }',
    "EuclideanLoss": 'layer { name: "after" type: "EuclideanLoss" bottom: "fc8" bottom: "x" }',
}
FREE = {
    "Eltwise": 'layer { name: "s" type: "Softmax" bottom: "fc8" top: "s" } '
    'layer { name: "after" type: "Eltwise" bottom: "fc8" bottom: "s" top: "after" }',
    "Reshape": 'layer { name: "after" type: "Reshape" bottom: "fc8" top: "after" '
    "reshape_param { shape { dim: 0 dim: -1 dim: 0 } } }",
    "Concat": 'layer { name: "after" type: "Concat" bottom: "fc8" bottom: "x" top: "after" }',
    "EuclideanLoss": 'layer { name: "after" type: "EuclideanLoss" bottom: "fc8" bottom: "data" }',
}
JOINED = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 4 } } }
layer { name: "x" type: "Power" bottom: "data" top: "x" }
layer { name: "fc8" type: "InnerProduct" bottom: "data" top: "fc8"
  inner_product_param { num_output: 4 } }
"""


@pytest.mark.parametrize("kind", FIXED)
def test_a_layer_whose_number_of_scores_is_fixed_is_no_output(net_of: NetOf, kind: str) -> None:
    net = net_of(JOINED + FIXED[kind])
    with pytest.raises(SurgeryError, match=rf"'fc8' is no output: layer 'after' \({kind}\)"):
        replace_classifier(net, Classifier("fc8", "new", 3))


@pytest.mark.parametrize("kind", FREE)
def test_what_takes_any_number_of_scores_follows(net_of: NetOf, kind: str) -> None:
    net = replace_classifier(net_of(JOINED + FREE[kind]), Classifier("fc8", "new", 3))
    (after,) = (layer for layer in net.layer if layer.name == "after")
    assert after.bottom[0] == "new"
