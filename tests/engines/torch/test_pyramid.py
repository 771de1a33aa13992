"""What a pyramid of pools draws; its other values: tests/parity."""

import pytest
import torch

from pycaffe_prune.engines.torch.layers.pyramid import StochasticPyramidPooling
from pycaffe_prune.formats.caffe_pb2 import TEST, TRAIN
from tests.parity.comparison import build_layer, parse_layer

SHAPE = (2, 3, 4, 8)


def _pyramid(phase: int, height: int) -> StochasticPyramidPooling:
    settings = f"spp_param {{ pyramid_height: {height} pool: STOCHASTIC }}"
    layer = build_layer(parse_layer("SPP", settings), [SHAPE], phase)
    assert isinstance(layer, StochasticPyramidPooling)
    return layer


@pytest.mark.parametrize("height", [1, 3])
def test_each_level_draws_from_its_windows_and_gives_the_gradient_back(height: int) -> None:
    bottom, layer = torch.arange(1.0, 193).reshape(SHAPE), _pyramid(TRAIN, height)
    layer.reseed(1)
    (top,), saved = layer.forward_saving([bottom], [])
    assert top.shape == ((2, 3, 1, 1) if height == 1 else (2, 3 * (1 + 4 + 16)))
    (found,) = layer.backward(saved, [top], [True], [])
    assert found is not None
    times = found / bottom
    assert times.sum() == pytest.approx(top.numel())
    assert (times <= height).all()
    for image in range(2):
        assert set(top[image].flatten().tolist()) <= set(bottom[image].flatten().tolist())
    layer.reseed(1)
    assert torch.equal(layer.forward_saving([bottom], [])[0][0], top)
    layer.reseed(2)
    assert not torch.equal(layer.forward_saving([bottom], [])[0][0], top)


def test_in_test_it_is_what_draws_expect() -> None:
    bottom = torch.rand(SHAPE)
    (top,) = _pyramid(TEST, 2).forward([bottom], [])
    whole = bottom.square().sum((2, 3)) / bottom.sum((2, 3))
    torch.testing.assert_close(top[:, :3], whole)
