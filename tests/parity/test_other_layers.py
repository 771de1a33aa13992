"""Layers without weights against the real Caffe, forward and backward, over drawn settings."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pycaffe_prune.formats.caffe_pb2 import TEST
from tests.engines.torch.layer_case import LAYERS, Array, Case
from tests.engines.torch.layer_cases import CASES
from tests.parity.conftest import CaffeLayer

pytestmark = pytest.mark.real_caffe


def _assert_close(found: torch.Tensor, wanted: Array, what: str) -> None:
    assert tuple(found.shape) == wanted.shape, what
    np.testing.assert_allclose(found.numpy(), wanted, 1e-5, 1e-5, err_msg=what)


def _check(caffe_layer: CaffeLayer, case: Case) -> None:
    top_diffs = case.top_diffs()
    caffe = caffe_layer(
        case.param, case.bottoms, case.params, () if case.is_loss else top_diffs, TEST
    )
    layer, params = case.layer(), [torch.from_numpy(param) for param in case.params]
    pure = layer.forward(case.tensors(), params)
    tops, saved = layer.forward_saving(case.tensors(), params)
    for found in (pure, tops):
        assert len(found) == len(caffe.tops)
        for top, wanted in zip(found, caffe.tops, strict=True):
            _assert_close(top, wanted, "top")
    param_diffs = [torch.zeros_like(param) for param in params]
    diffs = layer.backward(
        saved,
        [None if diff is None else torch.from_numpy(diff) for diff in top_diffs],
        case.propagate,
        param_diffs,
    )
    for diff, wanted, wants in zip(diffs, caffe.bottom_diffs, case.propagate, strict=True):
        if wants:
            _assert_close(torch.zeros(wanted.shape) if diff is None else diff, wanted, "gradient")
        else:
            assert diff is None
    for diff, wanted in zip(param_diffs, caffe.param_diffs, strict=True):
        _assert_close(diff, wanted, "gradient of a parameter")


def test_every_type_is_tried() -> None:
    assert set(CASES) == set(LAYERS)


@pytest.mark.parametrize("kind", sorted(CASES))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_tops_and_gradients_are_caffes(
    caffe_layer: CaffeLayer, kind: str, data: st.DataObject
) -> None:
    _check(caffe_layer, data.draw(CASES[kind]()))
