"""What pooling does with ties and NaN, and what it refuses; its values: tests/parity."""

import pytest
import torch

from pycaffe_prune.errors import EngineError
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


def test_places_of_maxima_are_refused_with_padding_of_more_than_half_a_kernel() -> None:
    settings = "pooling_param { kernel_size: 3 pad: 2 }"
    with pytest.raises(EngineError, match="no second top"):
        build_layer(parse_layer("Pooling", settings, tops=2), [(1, 1, 4, 4)])
