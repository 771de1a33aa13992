"""Fillers draw other numbers than Caffe's, so that their distributions are compared."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from scipy import stats

from pycaffe_prune.engines.torch.fillers import fill
from pycaffe_prune.formats.caffe_pb2 import FillerParameter, LayerParameter

pytestmark = pytest.mark.real_caffe

DRAWN = [
    ('type: "uniform" min: -0.25 max: 1.5', (200, 300)),
    ('type: "uniform" min: 0.5 max: 0.5', (3, 4)),
    ('type: "gaussian" mean: 0.25 std: 0.01', (200, 300)),
    ('type: "gaussian" std: 2 sparse: 5', (50, 1000)),
    ('type: "gaussian" sparse: 0', (10, 10)),
    ('type: "positive_unitball"', (40, 50, 3, 3)),
    *(
        (f'type: "{kind}" variance_norm: {norm}', shape)
        for kind in ("xavier", "msra")
        for norm in ("FAN_IN", "FAN_OUT", "AVERAGE")
        for shape in ((20, 50, 5, 5), (100, 400), (20_000,))
    ),
]
FIXED = [
    ("value: 0.75", (2, 3, 4)),
    *(('type: "bilinear"', (2, 3, side, side)) for side in (1, 2, 3, 4, 5, 16)),
]


def both(
    caffe_layer: Callable[..., object], text: str, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    layer = LayerParameter(name="data", type="DummyData", top=["data"])
    layer.dummy_data_param.shape.add(dim=shape)
    filler = text_format.Parse(text, layer.dummy_data_param.data_filler.add())
    assert isinstance(filler, FillerParameter)
    theirs = caffe_layer(layer, []).tops[0]
    ours = torch.empty(shape)
    fill(ours, filler, torch.Generator().manual_seed(1))
    return ours.numpy(), theirs


@pytest.mark.parametrize(("text", "shape"), DRAWN)
def test_values_are_distributed_as_caffes(
    text: str, shape: tuple[int, ...], caffe_layer: Callable[..., object]
) -> None:
    ours, theirs = both(caffe_layer, text, shape)
    assert ours.shape == theirs.shape
    # Caffe's seed is another one in each process: a fair draw fails once in a million.
    assert stats.ks_2samp(ours.reshape(-1), theirs.reshape(-1)).pvalue > 1e-6
    np.testing.assert_allclose(
        [(ours == 0).mean(), ours.mean(), ours.std()],
        [(theirs == 0).mean(), theirs.mean(), theirs.std()],
        atol=0.05 * theirs.std() + 1e-6,
    )
    np.testing.assert_allclose(ours.std(), theirs.std(), rtol=0.05, atol=1e-7)


@pytest.mark.parametrize(("text", "shape"), FIXED)
def test_values_that_are_not_drawn_are_caffes(
    text: str, shape: tuple[int, ...], caffe_layer: Callable[..., object]
) -> None:
    ours, theirs = both(caffe_layer, text, shape)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)
