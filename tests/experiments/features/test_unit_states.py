"""Entropy over training images, and the images themselves, against NumPy and the real Caffe."""

from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format

from pycaffe_prune.engines.caffe.engine import CaffeEngine
from pycaffe_prune.engines.torch.engine import TorchEngine
from pycaffe_prune.errors import DataError, FormatError, SurgeryError
from pycaffe_prune.experiments.features.training_images import training_images
from pycaffe_prune.experiments.features.unit_states import entropy_scores
from pycaffe_prune.formats.caffe_pb2 import TEST, NetParameter
from pycaffe_prune.formats.lmdb_images import stored_images
from pycaffe_prune.pruning.criteria.entropy import entropy
from tests.pruning.random_nets import random_weights

NET = """
layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  transform_param { scale: 0.01 mean_value: 30 crop_size: 20 mirror: true }
  data_param { source: "mnist_train_lmdb" batch_size: 32 backend: LMDB } }
layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TEST }
  transform_param { scale: 0.01 mean_value: 30 crop_size: 20 }
  data_param { source: "mnist_test_lmdb" batch_size: 100 backend: LMDB } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 3 kernel_size: 5 stride: 3 } }
layer { name: "s" type: "Sigmoid" bottom: "conv" top: "conv" }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
  inner_product_param { num_output: 6 } }
layer { name: "r" type: "ReLU" bottom: "ip" top: "ip" }
layer { name: "drop" type: "Dropout" bottom: "ip" top: "ip" }
layer { name: "out" type: "InnerProduct" bottom: "ip" top: "out"
  inner_product_param { num_output: 10 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "out" bottom: "label" top: "loss" }
"""


def net_of(text: str) -> NetParameter:
    return text_format.Parse(text, NetParameter())


def deploy(text: str) -> NetParameter:
    """For random weights: the net behind an Input layer."""
    net = net_of(text)
    data = NetParameter()
    data.layer.add(name="data", type="Input", top=["data"]).input_param.shape.add(
        dim=[1, 1, 20, 20]
    )
    data.layer.extend(layer for layer in net.layer if layer.type not in ("Data", "SoftmaxWithLoss"))
    return data


def test_images_come_as_the_data_layer_prepares_them(digits: Path) -> None:
    source = training_images(net_of(NET), digits / "net.prototxt", digits)
    assert (source.count, source.data, source.shape) == (1500, "data", (1, 20, 20))
    found = source.read(7, 2)
    stored = list(stored_images(digits / "mnist_train_lmdb"))[7:9]
    assert found.labels.tolist() == [image.label for image in stored]
    for image, record in zip(found.images, stored, strict=True):
        wanted = (record.pixels[:, 4:24, 4:24].astype(np.float32) - 30) * np.float32(0.01)
        np.testing.assert_allclose(image, wanted, atol=1e-6)
    assert [len(part.labels) for part in source.batches(1490, 10, 4)] == [4, 4, 2]
    with pytest.raises(DataError, match="has no images 1499 to 1501"):
        source.read(1499, 2)


@pytest.mark.parametrize(
    ("old", "new", "error", "words"),
    [
        ("mnist_test_lmdb", "mnist_train_lmdb", DataError, "read the same images"),
        ("mirror: true", "force_gray: true", FormatError, "has force_gray"),
        ("mean_value: 30 crop", "mean_value: [1, 2] crop", FormatError, "2 mean_values"),
        ('name: "d" type: "Data"', 'name: "d" type: "MemoryData"', FormatError, "one Data layer"),
    ],
)
def test_other_sources_are_refused(
    digits: Path, old: str, new: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        training_images(net_of(NET.replace(old, new)), digits / "net.prototxt", digits)


@pytest.mark.real_caffe
def test_entropy_is_that_of_counts_by_hand(caffe_python: Path, digits: Path) -> None:
    engine = CaffeEngine(caffe_python)
    net, path, model = net_of(NET), digits / "net.prototxt", random_weights(deploy(NET), 5)
    source = training_images(net, path, digits)
    found = entropy_scores(net, path, model, ["conv", "ip"], source, range(40, 140), engine)
    engine.close()
    images = source.read(40, 100).images
    windows = np.lib.stride_tricks.sliding_window_view(images[:, 0], (5, 5), (1, 2))[:, ::3, ::3]
    weights, bias = model.layer("conv").blobs
    maps = np.einsum("nyxij,cij->ncyx", windows, weights[:, 0]) + bias[:, None, None]
    maps = 1 / (1 + np.exp(-maps))
    weights, bias = model.layer("ip").blobs
    units = maps.reshape(100, -1) @ weights.T + bias
    seen = maps[0, 0].size * 100
    np.testing.assert_allclose(found["conv"], entropy((maps > 0.5).sum((0, 2, 3)), seen), atol=1e-3)
    np.testing.assert_allclose(found["ip"], entropy((units > 0).sum(0), 100), atol=0.05)
    assert found["ip"].max() > 0.1


def test_a_net_that_takes_more_than_the_images_is_refused(digits: Path) -> None:
    text = NET.replace('bottom: "data" top: "conv"', 'bottom: "other" top: "conv"')
    net, path, model = net_of(text), digits / "net.prototxt", random_weights(deploy(NET), 5)
    net.layer.add(name="o", type="Input", top=["other"]).include.add(phase=TEST)
    net.layer.insert(0, net.layer.pop())
    source = training_images(net, path, digits)
    with pytest.raises(SurgeryError, match="depend on the data blobs other, and the"):
        entropy_scores(net, path, model, ["ip"], source, range(3), TorchEngine())
