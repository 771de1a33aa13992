"""How convolutions lie in memory, and by which way they go; their values: tests/parity."""

import numpy as np
import pytest
import torch

from pycaffe_prune.engines.torch.layers.columns import ConvolutionByColumns, DeconvolutionByColumns
from tests.parity.comparison import build_layer, parse_layer, shapes_around

WINDOW = "convolution_param { num_output: 6 kernel_size: 3 }"


@pytest.mark.parametrize("channels", [1, 4])
def test_on_a_cpu_tops_have_their_channels_last_whatever_the_bottom(channels: int) -> None:
    layer = build_layer(parse_layer("Convolution", WINDOW), [(2, channels, 8, 9)])
    bottom = torch.zeros(2, channels, 8, 9)
    params = [torch.zeros(6, channels, 3, 3), torch.zeros(6)]
    for tops in (layer.forward([bottom], params), layer.forward_saving([bottom], params)[0]):
        assert tops[0].is_contiguous(memory_format=torch.channels_last)


def test_a_kernel_that_hangs_over_the_end_reads_zeros_there() -> None:
    settings = "convolution_param { num_output: 1 kernel_size: 4 stride: 3 bias_term: false }"
    layer = build_layer(parse_layer("Convolution", settings), [(1, 1, 2, 3)])
    (top,) = layer.forward([torch.ones(1, 1, 2, 3)], [torch.ones(1, 1, 4, 4)])
    assert top.tolist() == [[[[6]]]]


def test_one_channel_under_a_stride_is_not_read_beyond_its_end() -> None:
    settings = "convolution_param { num_output: 4 kernel_h: 4 kernel_w: 5 stride_h: 1 stride_w: 2 }"
    layer = build_layer(parse_layer("Convolution", settings), [(3, 1, 10, 5)])
    generator = torch.Generator().manual_seed(1)
    bottom, weight, bias = (
        torch.randn(shape, generator=generator) for shape in ((3, 1, 10, 5), (4, 1, 4, 5), (4,))
    )
    exact = layer.forward([bottom.double()], [weight.double(), bias.double()])[0]
    for _ in range(20):
        assert (layer.forward([bottom], [weight, bias])[0] - exact).abs().max() < 1e-5


@pytest.mark.parametrize("kind", ["Convolution", "Deconvolution"])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_columns_convolve_as_pytorch_does(kind: str, axes: int) -> None:
    settings = (
        "convolution_param { num_output: 6 kernel_size: 3 stride: 2 pad: 1 dilation: 2 group: 2 }"
    )
    param, shape = parse_layer(kind, settings), (2, 4, *(7, 6, 8)[:axes])
    native = build_layer(param, [shape])
    by_columns = {"Convolution": ConvolutionByColumns, "Deconvolution": DeconvolutionByColumns}
    params = [torch.rand(shape) for shape in shapes_around(param, [shape]).params]
    bottom = torch.rand(shape)
    (wanted,), (found,) = (
        layer.forward([bottom], params) for layer in (native, by_columns[kind](native.setup))
    )
    torch.testing.assert_close(found, wanted)


def test_the_gradient_of_a_bottom_has_its_shape_where_the_batch_has_two_axes() -> None:
    settings = "convolution_param { num_output: 6 kernel_size: 3 axis: 2 }"
    layer = build_layer(parse_layer("Convolution", settings), [(2, 5, 4, 8, 9)])
    bottom, params = torch.ones(2, 5, 4, 8, 9), [torch.ones(6, 4, 3, 3), torch.zeros(6)]
    (top,), saved = layer.forward_saving([bottom], params)
    (found,) = layer.backward(saved, [torch.ones_like(top)], [True], [None, None])
    assert found is not None
    assert found.shape == bottom.shape
    assert np.isclose(found.sum().item(), top.sum().item())  # all weights are 1
