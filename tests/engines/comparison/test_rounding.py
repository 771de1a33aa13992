"""A job with other roundings: everything moves by as little as float32 allows."""

from pathlib import Path

import numpy as np
import pytest

from pycaffe_prune.engines.comparison.rounding import rounded_otherwise
from pycaffe_prune.engines.job import TrainRequest
from pycaffe_prune.formats.blobs import Blob
from pycaffe_prune.formats.caffemodel import read_caffemodel, write_caffemodel
from pycaffe_prune.formats.named_model import named_model
from pycaffe_prune.formats.prototxt import read_net

NET = """
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
layer { name: "aux" type: "EuclideanLoss" bottom: "ip" bottom: "to" top: "aux" loss_weight: 0.3 }
"""
BLOB = np.random.default_rng(1).normal(size=(20, 30)).astype(np.float32)
BLOB[3] = 0


@pytest.fixture
def request_(tmp_path: Path) -> TrainRequest:
    write_caffemodel(tmp_path / "start.caffemodel", named_model({("ip", 0): BLOB}))
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(f'net: "{tmp_path}/net.prototxt"')
    return TrainRequest(solver=tmp_path / "solver.prototxt", weights=tmp_path / "start.caffemodel")


def moved(request: TrainRequest, number: int) -> tuple[Blob, list[float]]:
    """The steps of each weight, in units of the last place, and the loss weights."""
    assert request.weights is not None
    folder = request.solver.parent / str(number)
    job = rounded_otherwise(request, request.weights, folder, number)
    assert job.weights is not None
    assert job.net is not None
    blob = read_caffemodel(job.weights).layer("ip").blobs[0]
    losses = [weight for layer in read_net(job.net).layer for weight in layer.loss_weight]
    return (blob - BLOB) / np.spacing(np.abs(BLOB)), losses


@pytest.mark.parametrize("number", range(4))
def test_each_weight_but_zero_moves_to_the_next_float32(
    request_: TrainRequest, number: int
) -> None:
    steps, losses = moved(request_, number)
    assert not steps[3].any()
    others = np.delete(steps, 3, axis=0)
    # Below a power of two the next float32 is half as far.
    assert set(np.abs(others).ravel()) <= {0.5, 1.0}
    assert 0.4 < (others > 0).mean() < 0.6
    np.testing.assert_allclose(losses, [1, 0.3], 1e-6)
    assert 1 not in losses


def test_each_second_one_moves_everything_the_other_way(request_: TrainRequest) -> None:
    found = [moved(request_, number) for number in range(4)]
    for (steps, losses), (others, other_losses) in (found[0:2], found[2:4]):
        np.testing.assert_array_equal(np.sign(steps), -np.sign(others))
        assert np.all((np.array(losses) > [1, 0.3]) & (np.array(other_losses) < [1, 0.3]))
    assert not np.array_equal(found[0][0], found[2][0])
