"""Traps of Accuracy; the rest of it is compared with the real Caffe in tests/parity."""

import math

import pytest
import torch

from pycaffe_prune.engines.torch.layers.accuracy import Accuracy
from pycaffe_prune.engines.torch.layers.base import LayerSetup
from pycaffe_prune.formats.caffe_pb2 import TEST, LayerParameter

NAN = math.nan


def _accuracy(
    scores: list[list[float]], labels: list[float], param: LayerParameter | None = None
) -> list[float]:
    tensor = torch.tensor(scores)
    tops = ((), tensor.shape[1:])
    setup = LayerSetup(param or LayerParameter(), (tensor.shape, (len(labels),)), tops, TEST)
    share, shares = Accuracy(setup).forward([tensor, torch.tensor(labels)], [])
    assert share.shape == ()
    return [float(share), *shares.tolist()]


@pytest.mark.parametrize(
    ("scores", "wanted"),
    [
        ([0, 1, 0], 1),
        ([0, 1, 2], 0),
        ([1, 1, 1], 0),  # a tie is lost
        ([NAN, NAN, NAN], 1),  # a dead net looks perfect, as in Caffe
        ([0, NAN, 5], 1),
        ([NAN, 0, -1], 1),
    ],
)
def test_one_place(scores: list[float], wanted: float) -> None:
    assert _accuracy([scores], [1]) == [wanted, 0, wanted, 0]


def test_no_place_is_no_share() -> None:
    param = LayerParameter()
    param.accuracy_param.ignore_label = -1
    assert _accuracy([[0, 1]], [-1], param) == [0, 0, 0]


def test_shares_of_classes() -> None:
    scores = [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]
    assert _accuracy(scores, [0, 1, 1, 1]) == pytest.approx([3 / 4, 1, 2 / 3])
