import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from google.protobuf.message import Message

from data_prep.idx import read_labelled_images
from pycaffe_prune.engines.caffe.engine import CaffeEngine
from pycaffe_prune.formats.caffe_pb2 import TEST, TRAIN, LayerParameter, Phase
from pycaffe_prune.formats.caffemodel import Caffemodel, read_caffemodel
from pycaffe_prune.formats.prototxt import read_net
from pycaffe_prune.net.counts import NetCounts, count_file
from pycaffe_prune.net.fit import require_fitting
from pycaffe_prune.net.graph import NetGraph, NetState, layers_in_state
from pycaffe_prune.net.shapes import infer_shapes
from pycaffe_prune.net.state_wish import StateWish

PROTOTXT = Path(__file__).parents[2] / "prototxt"


def generated() -> dict[str, Callable[[], str]]:
    networks: dict[str, Callable[[], str]] = {}
    for path in PROTOTXT.glob("generate*.py"):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        networks |= module.NETWORKS
    return networks


@pytest.mark.parametrize("place", generated())
def test_the_files_are_what_the_generator_writes(place: str) -> None:
    assert (PROTOTXT / f"{place}.prototxt").read_text() == generated()[place]()


def counts(network: str, phase: Phase = TEST) -> NetCounts:
    found = count_file(PROTOTXT / network / "deploy.prototxt", StateWish(phase))
    assert found.problems == ()
    return found


TABLE_1 = [
    # The paper's figure, and ours at its precision. It cuts 25.5M and 67.7M off.
    ("lenet_300_100", "266K", lambda net: f"{net.weights / 1e3:.0f}K"),
    ("lenet", "431K", lambda net: f"{net.parameters / 1e3:.0f}K"),
    ("alexnet", "61M", lambda net: f"{net.parameters / 1e6:.0f}M"),
    ("vgg_16", "138M", lambda net: f"{net.parameters / 1e6:.0f}M"),
    ("googlenet", "13M", lambda net: f"{net.parameters / 1e6:.0f}M"),
    ("resnet_50", "25M", lambda net: f"{net.weights // 10**6}M"),
    ("resnet_152", "60M", lambda net: f"{net.parameters / 1e6:.0f}M"),
    ("squeezenet_v1.0", "1.2M", lambda net: f"{net.parameters / 1e6:.1f}M"),
    ("deep_speech", "8M", lambda net: f"{net.parameters / 1e6:.0f}M"),
    ("deep_speech_2", "67M", lambda net: f"{(net.weights + net.biases) // 10**6}M"),
    ("neural_talk", "6.8M", lambda net: f"{net.parameters / 1e6:.1f}M"),
]


@pytest.mark.parametrize(("network", "printed", "rounded"), TABLE_1)
def test_the_counts_round_to_table_1_of_the_paper(
    network: str, printed: str, rounded: Callable[[NetCounts], str]
) -> None:
    assert rounded(counts(network, TRAIN)) == printed


def test_the_caffenet_of_the_paper_has_the_weights_of_its_table_4() -> None:
    by_layer = {layer.name: layer.weights for layer in counts("caffenet").layers}
    found = [by_layer[name] for name in ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7")]
    assert found == [34_848, 307_200, 884_736, 663_552, 442_368, 37_748_736, 16_777_216]


def test_the_caffenet_for_flowers_has_all_weights_of_table_4() -> None:
    assert counts("caffenet_oxford102").weights == 57_276_448


RECIPE = ["train_val", "train_val_dropout", "train_val_scratch"]


@pytest.mark.parametrize("name", RECIPE)
def test_the_caffenets_that_are_trained_are_the_one_for_use(name: str) -> None:
    """Same layers and blobs; Dropout where the file is named so."""
    folder = PROTOTXT / "caffenet_oxford102"
    trained = layers_in_state(read_net(folder / f"{name}.prototxt"), NetState(TEST))
    dropouts = [layer for layer in trained if layer.type == "Dropout"]
    assert len(dropouts) == (2 if name == "train_val_dropout" else 0)
    rest = [layer for layer in trained if layer.type not in ("Dropout", "Accuracy")]
    deploy = read_net(folder / "deploy.prototxt").layer
    assert settings(rest) == settings(deploy)


def test_the_caffenet_to_be_fine_tuned_has_the_rates_of_the_recipe() -> None:
    net = read_net(PROTOTXT / "caffenet_oxford102" / "train_val.prototxt")
    rates = {
        layer.name: [(param.lr_mult, param.decay_mult) for param in layer.param]
        for layer in net.layer
        if layer.param
    }
    classifier = rates.pop("fc8_oxford_102")
    assert classifier == [(10, 1), (20, 0)]
    assert list(rates.values()) == 7 * [[(1, 1), (2, 0)]]
    data = {layer.include[0].phase: layer.transform_param for layer in net.layer[:2]}
    assert [data[phase].mirror for phase in (TRAIN, TEST)] == [True, False]
    assert {(part.crop_size, part.mean_file) for part in data.values()} == {
        (227, "mean.binaryproto")
    }


def test_the_layers_on_squeezenet_features_are_the_same_in_training_and_in_use() -> None:
    folder = PROTOTXT / "transfer_squeezenet_oxford102"
    trained = layers_in_state(read_net(folder / "train_val.prototxt"), NetState(TEST))
    deploy = read_net(folder / "deploy.prototxt").layer
    assert settings([layer for layer in trained if layer.type != "Accuracy"]) == settings(deploy)
    assert counts("transfer_squeezenet_oxford102").weights == (4608 + 1024 + 102) * 1024


@pytest.mark.parametrize(
    ("network", "weights", "classifier", "from_net"),
    [
        ("transfer_flowers20", 2_631_680, "ip3_flowers20", "transfer_squeezenet_oxford102"),
        ("transfer_lenet_digits", 428_000, "ip2_digits", "lenet"),
    ],
)
def test_fine_tuned_nets_have_a_new_classifier_at_ten_times_the_rate_and_all_else_by_name(
    network: str, weights: int, classifier: str, from_net: str
) -> None:
    folder = PROTOTXT / network
    trained = layers_in_state(read_net(folder / "train_val.prototxt"), NetState(TEST))
    deploy = read_net(folder / "deploy.prototxt").layer
    assert settings([layer for layer in trained if layer.type != "Accuracy"]) == settings(deploy)
    assert counts(network).weights == weights
    rates = {layer.name: [rate.lr_mult for rate in layer.param] for layer in trained if layer.param}
    assert rates.pop(classifier) == [10, 20]
    assert list(rates.values()) == len(rates) * [[1, 2]]
    before = read_net(PROTOTXT / from_net / "train_val.prototxt").layer
    learned = [layer.name for layer in before if layer.param]
    assert [*rates, learned[-1]] == learned


def test_the_auxiliary_heads_of_googlenet_are_in_training_only() -> None:
    def names(phase: Phase) -> set[str]:
        return {layer.name for layer in counts("googlenet", phase).layers}

    assert not names(TEST) - names(TRAIN)
    assert {name.split("/")[0] for name in names(TRAIN) - names(TEST)} == {"loss1", "loss2"}


@pytest.mark.parametrize(
    ("network", "order"), [("alexnet", ["LRN", "Pooling"]), ("caffenet", ["Pooling", "LRN"])]
)
def test_normalisation_and_pooling_come_in_each_networks_order(
    network: str, order: Sequence[str]
) -> None:
    graph = NetGraph(read_net(PROTOTXT / network / "deploy.prototxt").layer)
    for number in (1, 2):
        (first,) = graph.consumers(f"relu{number}")
        (second,) = graph.consumers(first.name)
        assert [first.type, second.type] == order


@pytest.mark.parametrize(
    "network", [path.parent.name for path in PROTOTXT.glob("*/deploy.prototxt")]
)
def test_a_readme_tells_the_networks_figures(network: str) -> None:
    found, text = counts(network), (PROTOTXT / network / "readme.md").read_text()
    assert f"{found.weights:,} weights" in text
    assert f"{found.biases:,} biases" in text


ZOO = {
    "lenet/deploy": "lenet/lenet_iter_10000",
    "cifar10_quick/deploy": "cifar10_quick/cifar10_quick_iter_5000",
    "squeezenet_v1.0/deploy_firenet": "squeezenet/squeezenet_v1.0_pruned",
}


def zoo_model(data_dir: Path, place: str) -> Caffemodel:
    return read_caffemodel(data_dir / "zoo" / f"{ZOO[place]}.caffemodel")


@pytest.mark.parametrize("place", ZOO)
def test_public_weights_fit(data_dir: Path, place: str) -> None:
    require_fitting(read_net(PROTOTXT / f"{place}.prototxt"), zoo_model(data_dir, place))


def test_both_spellings_of_squeezenet_have_the_same_blobs(data_dir: Path) -> None:
    found = infer_shapes(read_net(PROTOTXT / "squeezenet_v1.0" / "deploy.prototxt").layer)
    model = zoo_model(data_dir, "squeezenet_v1.0/deploy_firenet")
    assert [shapes.params for shapes in found if shapes.params] == [
        tuple(blob.shape for blob in layer.blobs) for layer in model.layers if layer.blobs
    ]


# What a caffemodel holds beside: data, what copies a blob to its readers, and the end of training.
_NOT_IN_DEPLOY = ("Data", "Input", "Split", "SoftmaxWithLoss", "Softmax")


def settings(layers: Sequence[LayerParameter]) -> list[tuple[str, str, list[str]]]:
    """Name, type and parameters of each layer, with defaults written out and without fillers."""
    found = []
    for layer in layers:
        copy = LayerParameter()
        copy.CopyFrom(layer)
        for message in (copy.convolution_param, copy.inner_product_param):
            message.ClearField("weight_filler")
            message.ClearField("bias_filler")
        conv = copy.convolution_param
        conv.stride[:] = conv.stride or [1]
        conv.pad[:] = conv.pad or [0]
        parts: list[Message] = [conv, copy.inner_product_param, copy.pooling_param]
        parts += [copy.lrn_param, copy.dropout_param]
        if layer.type not in _NOT_IN_DEPLOY:
            found.append((layer.name, layer.type, [str(part) for part in parts]))
    return found


@pytest.mark.parametrize("place", ZOO)
def test_layers_are_those_that_the_public_weights_were_saved_with(
    data_dir: Path, place: str
) -> None:
    saved = [layer.param for layer in zoo_model(data_dir, place).layers]
    net = read_net(PROTOTXT / f"{place}.prototxt")
    assert settings(layers_in_state(net, NetState(TEST))) == settings(saved)


@pytest.mark.real_caffe
@pytest.mark.mnist
def test_the_public_lenet_reads_digits(
    caffe_python: Path, data_dir: Path, mnist_source: Path
) -> None:
    images, labels = read_labelled_images(
        mnist_source / "t10k-images-idx3-ubyte.gz", mnist_source / "t10k-labels-idx1-ubyte.gz"
    )
    pixels = images[:2000, np.newaxis].astype(np.float32) / 256
    (prob,) = CaffeEngine(caffe_python).forward(
        PROTOTXT / "lenet" / "deploy.prototxt",
        data_dir / "zoo" / "lenet" / "lenet_iter_10000.caffemodel",
        {"data": pixels},
        ["prob"],
    )
    assert np.mean(prob.argmax(axis=1) == labels[:2000]) > 0.98
