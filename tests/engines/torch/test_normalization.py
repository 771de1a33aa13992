"""Statistics that BatchNorm keeps, and how exact it is; other values: tests/parity."""

import pytest
import torch

from pycaffe_prune.formats.caffe_pb2 import TEST, TRAIN
from tests.parity.comparison import build_layer, parse_layer


def test_kept_averages_follow_those_of_the_batches() -> None:
    settings = "batch_norm_param { moving_average_fraction: 0.9 eps: 0 }"
    param, shape = parse_layer("BatchNorm", settings), (8, 3, 2, 2)
    train, test = build_layer(param, [shape], TRAIN), build_layer(param, [shape], TEST)
    params = [torch.zeros(3), torch.zeros(3), torch.zeros(1)]
    generator = torch.Generator().manual_seed(1)
    batches = [torch.randn(shape, generator=generator) for _ in range(4)]
    for batch in batches:
        train.forward_saving([batch], params)
    shares = torch.tensor([0.9**age for age in (3, 2, 1, 0)])
    variances, means = zip(*(torch.var_mean(batch, (0, 2, 3)) for batch in batches), strict=True)
    mean = (torch.stack(means) * shares[:, None]).sum(0) / shares.sum()
    variance = (torch.stack(variances) * shares[:, None]).sum(0) / shares.sum()
    wanted = (batches[0] - mean[:, None, None]) / variance.sqrt()[:, None, None]
    torch.testing.assert_close(test.forward([batches[0]], params)[0], wanted)


def test_a_batch_of_one_value_per_channel_has_no_variance() -> None:
    layer = build_layer(parse_layer("BatchNorm"), [(1, 3)], TRAIN)
    params = [torch.zeros(3), torch.zeros(3), torch.zeros(1)]
    (top,), _ = layer.forward_saving([torch.tensor([[1.5, -2.5, 100]])], params)
    assert top.tolist() == [[0, 0, 0]]
    assert [param.tolist() for param in params] == [[1.5, -2.5, 100], [0, 0, 0], [1]]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_many_values_far_from_0_are_normalized_exactly(layout: torch.memory_format) -> None:
    generator = torch.Generator().manual_seed(1)
    bottom = (torch.randn(32, 4, 64, 64, generator=generator) + 3).contiguous(memory_format=layout)
    layer = build_layer(parse_layer("BatchNorm"), [tuple(bottom.shape)], TRAIN)
    params = [torch.zeros(4), torch.zeros(4), torch.zeros(1)]
    exact = layer.forward([bottom.double()], params)[0]
    (top,), _ = layer.forward_saving([bottom], params)
    assert (top - exact).abs().max() < 1e-5


def test_a_constant_row_has_a_gradient_in_mvn() -> None:
    layer = build_layer(parse_layer("MVN"), [(1, 1, 2, 2)])
    tops, pull = torch.func.vjp(
        lambda bottom: layer.forward([bottom], [])[0], torch.ones(1, 1, 2, 2)
    )
    assert tops.tolist() == [[[[0, 0], [0, 0]]]]
    assert pull(torch.ones(1, 1, 2, 2))[0].isfinite().all()
