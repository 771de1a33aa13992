"""Convolutions by columns are the engine's convolutions."""

import pytest
import torch
from google.protobuf import text_format
from torch import Tensor

from pycaffe_prune.engines.torch.layers.base import Layer, LayerSetup
from pycaffe_prune.engines.torch.layers.registry import make_layer
from pycaffe_prune.formats.caffe_pb2 import TRAIN, LayerParameter
from pycaffe_prune.net.shapes import infer_shapes
from pycaffe_prune.pycaffe.few_images import ByColumns, layer_on

CPU = torch.device("cpu")


def setup_of(settings: str, *shape: int) -> tuple[LayerSetup, tuple[tuple[int, ...], ...]]:
    param = LayerParameter(name="c", type="Convolution", bottom=["b"], top=["t"])
    text_format.Parse(settings, param.convolution_param)
    (around,) = infer_shapes([param], {"b": shape})
    tops = tuple(top for top in around.tops if top is not None)
    return LayerSetup(param, (shape,), tops, TRAIN), around.params


def passes(layer: Layer, bottom: Tensor, params: list[Tensor], diff: Tensor) -> list[Tensor]:
    (top,), saved = layer.forward_saving([bottom], params)
    (tested,) = layer.forward([bottom], params)
    grads = [torch.ones_like(param) for param in params]
    (bottom_diff,) = layer.backward(saved, [diff], [True], grads)
    assert bottom_diff is not None
    assert layer.backward(saved, [diff], [False], [None] * len(params)) == [None]
    return [top, tested, bottom_diff, *grads]


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        ("num_output: 4 kernel_size: 3", (2, 3, 6, 5)),
        ("num_output: 4 kernel_h: 3 kernel_w: 2 stride: 2 pad_h: 1 bias_term: false", (1, 2, 7, 6)),
        ("num_output: 1 kernel_size: 1 pad: 2", (1, 1, 1, 1)),
        ("num_output: 512 kernel_size: 3", (1, 512, 7, 7)),
    ],
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_both_ways_are_one(
    settings: str, shape: tuple[int, ...], layout: torch.memory_format
) -> None:
    torch.manual_seed(1)
    setup, blobs = setup_of(settings, *shape)
    bottom = torch.randn(shape).contiguous(memory_format=layout)
    diff = torch.randn(setup.tops[0]).contiguous(memory_format=layout)
    params = [torch.randn(blob) for blob in blobs]
    layer = layer_on(CPU, setup)
    assert isinstance(layer, ByColumns)
    expected = passes(make_layer(setup), bottom, params, diff)
    for value, other in zip(passes(layer, bottom, params, diff), expected, strict=True):
        torch.testing.assert_close(value, other, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        ("num_output: 4 kernel_size: 3 dilation: 2", (1, 2, 7, 7)),
        ("num_output: 4 kernel_size: 3 group: 2", (1, 2, 7, 7)),
        ("num_output: 4 kernel_size: 3", (1, 2, 7)),
        ("num_output: 4 kernel_size: 3 axis: 2", (1, 1, 2, 7, 7)),
        ("num_output: 4 kernel_size: 5 stride: 4 pad: 1", (1, 2, 2, 9)),
        ("num_output: 4 kernel_size: 3", (64, 8, 32, 32)),
    ],
)
def test_others_are_left_to_the_engine(settings: str, shape: tuple[int, ...]) -> None:
    assert not isinstance(layer_on(CPU, setup_of(settings, *shape)[0]), ByColumns)


def test_a_gpu_has_its_own_way() -> None:
    setup, _ = setup_of("num_output: 4 kernel_size: 3", 1, 3, 6, 5)
    assert not isinstance(layer_on(torch.device("cuda"), setup), ByColumns)
