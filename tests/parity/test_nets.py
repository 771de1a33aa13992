"""Whole nets against the real Caffe: every blob on the way, a residual net's training, a test."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_prep.lmdb_writer import Batch
from data_prep.mnist import build_mnist
from pycaffe_prune.engines.base import Engine
from pycaffe_prune.engines.caffe.engine import CaffeEngine
from pycaffe_prune.engines.comparison.distances import EngineComparison
from pycaffe_prune.engines.comparison.parity import follow, initial_weights
from pycaffe_prune.engines.comparison.trajectory import (
    compare_trajectories,
    relative_difference,
    tolerance_at,
)
from pycaffe_prune.engines.job import TrainRequest
from pycaffe_prune.engines.prepare import prepare_evaluation
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.engines.torch.engine import TorchEngine
from pycaffe_prune.formats.caffe_pb2 import TEST, NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, read_caffemodel, write_caffemodel
from pycaffe_prune.formats.caffemodel import Layer as StoredLayer
from pycaffe_prune.formats.prototxt import read_net, write_prototxt
from pycaffe_prune.net.graph import NetState, layers_in_state
from pycaffe_prune.net.inference import input_shapes
from pycaffe_prune.net.shapes import infer_shapes
from pycaffe_prune.share import share_root
from tests.data_prep.lmdbs import write_lmdb

pytestmark = pytest.mark.real_caffe

TOLERANCE = 1e-5
"""Relative to the largest value of each blob."""

TRAINED = {
    "lenet": ("lenet/deploy.prototxt", "lenet/lenet_iter_10000.caffemodel", 1),
    "cifar10_quick": (
        "cifar10_quick/deploy.prototxt",
        "cifar10_quick/cifar10_quick_iter_5000.caffemodel",
        50,
    ),
    "squeezenet": (
        "squeezenet_v1.0/deploy_firenet.prototxt",
        "squeezenet/squeezenet_v1.0_pruned.caffemodel",
        50,
    ),
}
"""Prototxt, weights in the zoo, and how large inputs are."""

RANDOM = ("googlenet", "resnet_50")
"""alexnet, caffenet, resnet_152 and vgg_16 are as near; they take long."""


@pytest.fixture(scope="module")
def engines(caffe_python: Path) -> Iterator[tuple[Engine, Engine]]:
    torch = TorchEngine()
    yield CaffeEngine(caffe_python), torch
    torch.close()


def random_weights(net: NetParameter) -> Caffemodel:
    """Weights that keep values near 1 through ReLUs, as the filler msra does."""
    random = np.random.default_rng(0)
    layers = []
    for layer, around in zip(net.layer, infer_shapes(net.layer), strict=True):
        blobs = []
        for index, shape in enumerate(around.params):
            spread = math.sqrt(2 / math.prod(shape[1:])) if len(shape) > 1 else 0.1
            values = random.standard_normal(shape, np.float32) * np.float32(spread)
            if layer.type == "BatchNorm" and index > 0:
                values = 1 + np.abs(values)  # a variance, and its factor
            if layer.type == "Scale" and index == 0:
                values += 0.5
            blobs.append(values)
        layers.append(StoredLayer(layer, tuple(blobs)))
    return Caffemodel(tuple(layers))


def differences(
    engines: tuple[Engine, Engine], net_path: Path, weights: Path, scale: float
) -> dict[str, float]:
    """How far the engines are apart in each blob of the net, on one random input."""
    net = read_net(net_path)
    blobs = {
        top: None
        for layer in layers_in_state(net, NetState(TEST))
        for top in layer.top
        if layer.type not in ("Input", "Silence")
    }
    random = np.random.default_rng(0)
    inputs = {
        name: random.standard_normal((1, *shape[1:]), np.float32) * np.float32(scale)
        for name, shape in input_shapes(net, list(blobs), {}).items()
        if shape is not None
    }
    ours, theirs = (engine.forward(net_path, weights, inputs, list(blobs)) for engine in engines)
    assert all(np.abs(blob).max() > 0 for blob in ours)
    return {
        name: relative_difference(one, other)
        for name, one, other in zip(blobs, ours, theirs, strict=True)
    }


def require_near(found: dict[str, float]) -> None:
    assert len(found) > 5
    worst = max(found, key=lambda name: found[name])
    assert found[worst] <= TOLERANCE, (worst, found[worst])


@pytest.mark.parametrize("name", TRAINED)
def test_trained_nets_compute_caffes_blobs(engines, data_dir: Path, name: str) -> None:
    prototxt, weights, scale = TRAINED[name]
    net = share_root() / "prototxt" / prototxt
    require_near(differences(engines, net, data_dir / "zoo" / weights, scale))


@pytest.mark.parametrize("name", RANDOM)
def test_nets_with_random_weights_compute_caffes_blobs(engines, tmp_path: Path, name: str) -> None:
    net = share_root() / "prototxt" / name / "deploy.prototxt"
    write_caffemodel(tmp_path / "random.caffemodel", random_weights(read_net(net)))
    require_near(differences(engines, net, tmp_path / "random.caffemodel", 1))


# Training

RESIDUAL = """
layer {{ name: "data" type: "Data" top: "data" top: "label"
  transform_param {{ scale: 0.0078125 mean_value: 128 }}
  data_param {{ source: "{source}" batch_size: 16 backend: LMDB }} }}
layer {{ name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  param {{ lr_mult: 1 decay_mult: 1 }} param {{ lr_mult: 2 decay_mult: 0 }}
  convolution_param {{ num_output: 8 kernel_size: 3 pad: 1 weight_filler {{ type: "msra" }} }} }}
layer {{ name: "norm1" type: "LRN" bottom: "conv1" top: "norm1"
  lrn_param {{ local_size: 3 alpha: 0.1 beta: 0.75 }} }}
layer {{ name: "pool1" type: "Pooling" bottom: "norm1" top: "pool1"
  pooling_param {{ pool: AVE kernel_size: 3 stride: 2 }} }}
layer {{ name: "conv2" type: "Convolution" bottom: "pool1" top: "conv2"
  convolution_param {{ num_output: 8 kernel_size: 3 pad: 1 bias_term: false
    weight_filler {{ type: "msra" }} }} }}
layer {{ name: "bn2" type: "BatchNorm" bottom: "conv2" top: "conv2" }}
layer {{ name: "scale2" type: "Scale" bottom: "conv2" top: "conv2"
  scale_param {{ bias_term: true }} }}
layer {{ name: "act2" type: "{activation}" bottom: "conv2" top: "conv2" }}
layer {{ name: "drop2" type: "Dropout" bottom: "conv2" top: "conv2"
  dropout_param {{ dropout_ratio: 0 }} }}
layer {{ name: "conv3" type: "Convolution" bottom: "conv2" top: "conv3"
  convolution_param {{ num_output: 8 kernel_size: 3 pad: 1 group: 2
    weight_filler {{ type: "msra" }} }} }}
layer {{ name: "sum" type: "Eltwise" bottom: "pool1" bottom: "conv3" top: "sum" }}
layer {{ name: "act3" type: "{activation}" bottom: "sum" top: "sum" }}
layer {{ name: "branch" type: "Convolution" bottom: "sum" top: "branch" param {{ lr_mult: 0 }}
  convolution_param {{ num_output: 4 kernel_size: 1 weight_filler {{ type: "msra" }} }} }}
layer {{ name: "join" type: "Concat" bottom: "sum" bottom: "branch" top: "join" }}
layer {{ name: "pool" type: "Pooling" bottom: "join" top: "pool"
  pooling_param {{ pool: AVE global_pooling: true }} }}
layer {{ name: "ip" type: "InnerProduct" bottom: "pool" top: "ip"
  inner_product_param {{ num_output: 5 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "side" type: "InnerProduct" bottom: "branch" top: "side"
  inner_product_param {{ num_output: 5 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }}
layer {{ name: "loss2" type: "SoftmaxWithLoss" bottom: "side" bottom: "label" top: "loss2"
  loss_weight: 0.3 }}
layer {{ name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy"
  include {{ phase: TEST }} }}
"""


def trained(
    engines: tuple[Engine, Engine], folder: Path, activation: str, settings: str, iterations: int
) -> EngineComparison:
    random = np.random.default_rng(0)
    labels = np.arange(48) % 5
    images = random.integers(0, 200, (48, 3, 13, 13), np.uint8) + np.uint8(10) * labels.astype(
        np.uint8
    ).reshape(-1, 1, 1, 1)
    write_lmdb(folder / "images", [Batch(images, labels)], count=48, shape=(3, 13, 13))
    text = RESIDUAL.format(source=folder / "images", activation=activation)
    (folder / "net.prototxt").write_text(text)
    solver = folder / "solver.prototxt"
    solver.write_text(
        f'net: "net.prototxt" lr_policy: "fixed" weight_decay: 0.001 max_iter: 10 {settings}'
    )
    request = TrainRequest(solver=solver, net=folder / "net.prototxt", seed=1)
    weights = initial_weights(request, engines[0], folder / "initial")
    ways = [
        follow(replace(request, weights=weights), engine, iterations, folder / engine.name)
        for engine in engines
    ]
    return compare_trajectories(*ways)


@pytest.mark.parametrize(
    "settings",
    [
        "base_lr: 0.02 momentum: 0.9",
        "base_lr: 0.02 momentum: 0.9 iter_size: 2 clip_gradients: 0.5",
        'type: "Adam" base_lr: 0.001 momentum: 0.9 momentum2: 0.999 delta: 1e-4',
    ],
)
def test_a_residual_net_trains_as_in_caffe(engines, tmp_path: Path, settings: str) -> None:
    found = trained(engines, tmp_path, "TanH", settings, 10)
    assert [point.iteration for point in found.checkpoints] == [1, 10]
    assert found.difference is None


def test_a_residual_net_with_corners_has_caffes_first_step(engines, tmp_path: Path) -> None:
    found = trained(engines, tmp_path, "ReLU", "base_lr: 0.02 momentum: 0.9", 1)
    (point,) = found.checkpoints
    for part in point.differences:
        assert part.relative <= tolerance_at(1)


# Testing


@pytest.mark.mnist
def test_the_same_weights_judge_the_same_images_right(
    engines, mnist_source: Path, data_dir: Path, tmp_path: Path
) -> None:
    build_mnist(tmp_path / "mnist", mnist_source)
    weights = data_dir / "zoo" / TRAINED["lenet"][1]
    assert read_caffemodel(weights).layer("ip2").blobs
    net = tmp_path / "net.prototxt"
    write_prototxt(net, read_net(share_root() / "prototxt" / "lenet" / "train_val.prototxt"))
    scores = []
    for engine in engines:
        folder = RunFolder(tmp_path / engine.name)
        job = prepare_evaluation(net, [weights], tmp_path / "mnist", folder)
        scores += engine.evaluate(folder, job)
    ours, theirs = scores
    assert (ours.images, theirs.images) == (10_000, 10_000)
    assert theirs.accuracy > 0.985
    assert abs(ours.correct - theirs.correct) <= 1
    assert ours.loss == pytest.approx(theirs.loss, rel=1e-5)
