"""The real Caffe's verdict: a net with deleted units computes what the masked net computes."""

from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from numpy.typing import NDArray

from pycaffe_prune.engines.caffe.engine import CaffeEngine
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import (
    Caffemodel,
    Layer,
    read_caffemodel,
    write_caffemodel,
)
from pycaffe_prune.formats.prototxt import read_net, write_prototxt
from pycaffe_prune.pruning.units import choose_units, delete_units, mask_units
from pycaffe_prune.share import share_root

pytestmark = pytest.mark.real_caffe

LENET = """
name: "LeNet"
layer { name: "data" type: "Input" top: "data"
  input_param { shape { dim: 16 dim: 1 dim: 28 dim: 28 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 20 kernel_size: 5 } }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1"
  pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layer { name: "conv2" type: "Convolution" bottom: "pool1" top: "conv2"
  convolution_param { num_output: 50 kernel_size: 5 } }
layer { name: "pool2" type: "Pooling" bottom: "conv2" top: "pool2"
  pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layer { name: "ip1" type: "InnerProduct" bottom: "pool2" top: "ip1"
  inner_product_param { num_output: 500 } }
layer { name: "relu1" type: "ReLU" bottom: "ip1" top: "ip1" }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
  inner_product_param { num_output: 10 } }
"""


def random_weights(net: NetParameter, inputs: int) -> Caffemodel:
    """Weights of a chain of InnerProduct layers, of the size that keeps activations near 1."""
    random = np.random.default_rng(0)
    layers = []
    for layer in net.layer:
        if layer.type == "InnerProduct":
            param = layer.inner_product_param
            shape = (param.num_output, inputs)
            weights = random.normal(0, inputs**-0.5, shape).astype(np.float32)
            bias = random.normal(0, 0.1, param.num_output).astype(np.float32)
            layers.append(Layer(layer, (weights.T if param.transpose else weights, bias)))
            inputs = param.num_output
    return Caffemodel(tuple(layers), NetParameter(name=net.name))


def check_in_caffe(
    folder: Path, python: Path, net: NetParameter, model: Caffemodel, ratios: dict[str, float]
) -> None:
    """Delete units and mask them; the last layer must give the same in both nets."""
    keep = choose_units(net, model, ratios)
    assert not any(flags.all() for flags in keep.values())
    small_net, small = delete_units(net, model, keep)
    images = np.random.default_rng(1).random((16, 1, 28, 28), np.float32)
    last = [layer.top[0] for layer in net.layer if layer.type == "InnerProduct"][-1]
    logits: dict[str, NDArray[np.float32]] = {}
    for kind, definition, weights in (
        ("masked", net, mask_units(net, model, keep)),
        ("deleted", small_net, small),
    ):
        write_prototxt(folder / f"{kind}.prototxt", definition)
        write_caffemodel(folder / f"{kind}.caffemodel", weights)
        (logits[kind],) = CaffeEngine(python).forward(
            folder / f"{kind}.prototxt", folder / f"{kind}.caffemodel", {"data": images}, [last]
        )
    size = np.abs(logits["masked"]).max()
    assert size > 0.1
    assert np.abs(logits["masked"] - logits["deleted"]).max() <= 1e-5 * size


@pytest.mark.parametrize("transpose", [False, True])
def test_lenet_300_100(tmp_path: Path, caffe_python: Path, transpose: bool) -> None:
    net = read_net(share_root() / "prototxt/lenet_300_100/deploy.prototxt")
    for layer in net.layer:
        if layer.type == "InnerProduct" and transpose:
            layer.inner_product_param.transpose = True
    check_in_caffe(tmp_path, caffe_python, net, random_weights(net, 784), {"ip1": 0.7, "ip2": 0.4})


def test_ip1_of_a_trained_lenet(tmp_path: Path, caffe_python: Path, data_dir: Path) -> None:
    model = read_caffemodel(data_dir / "zoo" / "lenet" / "lenet_iter_10000.caffemodel")
    net = text_format.Parse(LENET, NetParameter())
    check_in_caffe(tmp_path, caffe_python, net, model, {"ip1": 0.9})
