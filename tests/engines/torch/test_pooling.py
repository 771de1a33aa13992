"""What pooling does with ties and NaN, and what it refuses; its values: tests/parity."""

import numpy as np
import pytest
import torch

from pycaffe_prune.engines.torch.layers.pooling import StochasticPooling
from pycaffe_prune.errors import EngineError
from pycaffe_prune.formats.caffe_pb2 import TEST, TRAIN
from tests.parity.comparison import build_layer, parse_layer


@pytest.mark.parametrize("pad", [0, 1, 2])
def test_of_equal_values_the_first_takes_the_gradient(pad: int) -> None:
    settings = f"pooling_param {{ kernel_size: 3 stride: 3 pad: {pad} }}"
    layer = build_layer(parse_layer("Pooling", settings), [(1, 1, 4, 4)])
    (top,), saved = layer.forward_saving([torch.zeros(1, 1, 4, 4)], [])
    (found,) = layer.backward(saved, [torch.ones_like(top)], [True], [])
    assert found is not None
    firsts = [max(0, 3 * number - pad) for number in range(top.shape[2])]
    wanted = [
        [float(row in firsts and column in firsts) for column in range(4)] for row in range(4)
    ]
    assert found[0, 0].tolist() == wanted


def test_a_maximum_of_nan_is_given_on() -> None:
    layer = build_layer(parse_layer("Pooling", "pooling_param { kernel_size: 2 }"), [(1, 1, 2, 2)])
    (top,) = layer.forward([torch.tensor([[[[1, 2], [torch.nan, 0]]]])], [])
    assert top.isnan().all()


def test_a_window_behind_the_end_is_refused() -> None:
    settings = "pooling_param { kernel_size: 1 stride: 5 }"
    with pytest.raises(EngineError, match="stride 5 puts the last window behind"):
        build_layer(parse_layer("Pooling", settings), [(1, 1, 3, 3)])


STOCHASTIC = "pooling_param { pool: STOCHASTIC kernel_size: 3 stride: 2 }"


def _stochastic(shape: tuple[int, ...], phase: int) -> StochasticPooling:
    layer = build_layer(parse_layer("Pooling", STOCHASTIC), [shape], phase)
    assert isinstance(layer, StochasticPooling)
    return layer


def test_in_test_a_window_is_the_mean_that_draws_from_it_expect() -> None:
    bottom = torch.rand(2, 3, 6, 8) - 0.2
    bottom[0, 0] = 0
    (top,) = _stochastic(tuple(bottom.shape), TEST).forward([bottom], [])
    assert top.shape == (2, 3, 3, 4)
    for row, column in np.ndindex(3, 4):
        window = bottom[:, :, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3].flatten(2)
        total = window.sum(2)
        wanted = torch.where(total > 0, window.square().sum(2) / total, 0)
        torch.testing.assert_close(top[:, :, row, column], wanted)


def test_a_value_is_drawn_as_often_as_its_share_of_its_window() -> None:
    bottom = torch.tensor([[0.0, 1, 2, 5, 0, 2], [3, 0, 4, 0, 1, 1]]).expand(1, 10_000, 2, 6)
    layer = _stochastic(tuple(bottom.shape), TRAIN)
    layer.reseed(3)
    places = layer.drawn_places(bottom)
    assert places.shape == (1, 10_000, 1, 3)
    for number in range(3):
        counts = places[0, :, 0, number].bincount(minlength=12).reshape(2, 6).double() / 10_000
        window = torch.zeros(2, 6)
        part = slice(2 * number, 2 * number + 3)
        window[:, part] = bottom[0, 0, :, part]
        torch.testing.assert_close(counts, (window / window.sum()).double(), rtol=0, atol=0.025)
    layer.reseed(3)
    assert torch.equal(layer.drawn_places(bottom), places)
    layer.reseed(4)
    assert not torch.equal(layer.drawn_places(bottom), places)


def test_the_gradient_goes_where_the_value_was_drawn() -> None:
    bottom = torch.rand(2, 3, 7, 7)
    layer = _stochastic(tuple(bottom.shape), TRAIN)
    (top,), saved = layer.forward_saving([bottom], [])
    (found,) = layer.backward(saved, [top], [True], [])
    assert found is not None
    # Each drawn value came back once a window: so often it is in the gradient.
    times = found / bottom
    torch.testing.assert_close(times, times.round())
    assert times.sum() == pytest.approx(top.numel(), rel=1e-5)
    with pytest.raises(EngineError, match=r"Pooling.* draws random numbers .* one by one"):
        layer.forward([bottom], [])
