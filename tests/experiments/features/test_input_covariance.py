"""The covariance of what a layer reads, against NumPy over the blobs of the engine."""

from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format

from pycaffe_prune.engines.torch.engine import TorchEngine
from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.experiments.features.input_covariance import input_covariance
from pycaffe_prune.experiments.features.net_outputs import net_outputs
from pycaffe_prune.experiments.features.training_images import training_images
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from tests.experiments.features.test_unit_states import NET, deploy
from tests.pruning.random_nets import random_weights

IMAGES = range(5, 65)


def test_it_is_numpys_over_all_images(digits: Path) -> None:
    path, net = digits / "net.prototxt", text_format.Parse(NET, NetParameter())
    model = random_weights(deploy(NET), 4)
    source = training_images(net, path, digits)
    first = 'layer { name: "early" type: "InnerProduct" bottom: "data" top: "early"\n'
    first += "  inner_product_param { num_output: 2 transpose: true } }"
    wide = NET.replace('layer { name: "conv"', f'{first}\nlayer {{ name: "conv"')
    engine = TorchEngine()
    ((blobs, _),) = net_outputs(net, path, model, ["conv", "ip"], source, IMAGES, engine)
    values = {"ip": blobs[0], "out": blobs[1], "early": source.read(5, 60).images}
    samples = np.array([1, 3, 5])
    net, model = text_format.Parse(wide, NetParameter()), random_weights(deploy(wide), 4)
    for name, read in values.items():
        if name != "early":
            net, model = text_format.Parse(NET, NetParameter()), random_weights(deploy(NET), 4)
        else:
            net, model = text_format.Parse(wide, NetParameter()), random_weights(deploy(wide), 4)
        found, variances = input_covariance(net, path, model, name, samples, source, IMAGES, engine)
        wanted = np.cov(read.reshape(60, -1).T.astype(np.float64), bias=True)
        np.testing.assert_allclose(found, wanted[:, samples], atol=1e-6)
        np.testing.assert_allclose(variances, np.diag(wanted), atol=1e-6)


def test_what_cannot_be_followed_is_refused(digits: Path) -> None:
    path, net = digits / "net.prototxt", text_format.Parse(NET, NetParameter())
    source, model = training_images(net, path, digits), random_weights(deploy(NET), 4)
    late = text_format.Parse(NET, NetParameter())
    late.layer.append(late.layer.pop(5))  # the ReLU of ip, behind the layer that reads it
    samples = np.array([0])
    for given, name, message in (
        (net, "conv", r"layer 'conv' \(Convolution\) reads parts of a blob"),
        (net, "other", "the TEST net has no layer 'other'"),
        (late, "out", "layer 'out' reads the blob 'ip' before layer 'r' writes it over"),
    ):
        with pytest.raises(SurgeryError, match=message):
            input_covariance(given, path, model, name, samples, source, IMAGES, TorchEngine())
