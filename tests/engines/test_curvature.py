"""Second derivatives, measured in a worker on the net's training images."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pycaffe_prune.engines.curvature import CurvatureRequest
from pycaffe_prune.engines.torch.curvature import (
    curvature_net,
    fisher_diagonal,
    hessian_diagonal,
)
from pycaffe_prune.engines.torch.engine import TorchEngine
from pycaffe_prune.engines.torch.net import Net
from pycaffe_prune.errors import EngineError, PruneError
from pycaffe_prune.formats.caffe_pb2 import TRAIN
from pycaffe_prune.formats.caffemodel import Caffemodel
from pycaffe_prune.formats.prototxt import read_net
from pycaffe_prune.net.graph import NetState

BLOBS = (("ip2", 0), ("ip1", 0))


def in_this_process(path: Path, digits: Path, batch: int) -> Net:
    """The net with the data where they are, so many images a batch."""
    net = read_net(path)
    for layer in net.layer:
        if layer.type == "Data":
            layer.data_param.source = str(digits / layer.data_param.source)
            layer.data_param.batch_size = batch
    return Net(curvature_net(net), NetState(TRAIN))


@pytest.fixture
def request_for_curvature(
    digits: Path, make_solver: Callable[..., Path]
) -> tuple[CurvatureRequest, Caffemodel]:
    """For a net with Dropout, at weights as its fillers leave them."""
    path = make_solver(random=False, batch=8).parent / "net.prototxt"
    drop = 'layer { name: "drop" type: "Dropout" bottom: "ip1" top: "ip1" }\nlayer { name: "ip2"'
    path.write_text(path.read_text().replace('layer { name: "ip2"', drop))
    net = in_this_process(path, digits, 8)
    model = net.weights
    net.close()
    request = CurvatureRequest(path, path, model, "hessian", 2, BLOBS, data=digits)
    return request, model


def test_it_is_the_mean_over_the_first_batches_of_the_training_images(
    request_for_curvature: tuple[CurvatureRequest, Caffemodel],
    torch_engine: TorchEngine,
    digits: Path,
) -> None:
    request, _ = request_for_curvature
    hessian = in_this_process(request.net, digits, 8)
    fisher = in_this_process(request.net, digits, 1)
    for kind, expected in [
        ("hessian", hessian_diagonal(hessian, 2)),
        ("fisher", fisher_diagonal(fisher, 16)),
    ]:
        found = torch_engine.curvature(replace(request, kind=kind))
        assert tuple(found) == BLOBS
        for key, blob in found.items():
            assert blob.any()
            np.testing.assert_allclose(blob, expected[key].numpy(), rtol=1e-5, atol=1e-12)
    hessian.close()
    fisher.close()


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('name: "ip2" type', 'name: "new" type', "has no weights for the net's layer 'new'"),
        ('type: "ReLU"', 'type: "Python"', "Python"),
        ("mnist_train_lmdb", "gone", "there is no LMDB at"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_sentence(
    request_for_curvature: tuple[CurvatureRequest, Caffemodel],
    torch_engine: TorchEngine,
    old: str,
    new: str,
    sentence: str,
) -> None:
    request, _ = request_for_curvature
    request.net.write_text(request.net.read_text().replace(old, new))
    with pytest.raises(PruneError, match=sentence):
        torch_engine.curvature(request)


def test_a_layer_without_a_rule_is_named(
    request_for_curvature: tuple[CurvatureRequest, Caffemodel], torch_engine: TorchEngine
) -> None:
    request, _ = request_for_curvature
    request.net.write_text(request.net.read_text().replace('"ReLU"', '"TanH"'))
    with pytest.raises(EngineError, match=r"'relu1' \(TanH\): second derivatives are not carried"):
        torch_engine.curvature(request)
