"""Layers with weights, windows or statistics against the real Caffe, over drawn settings."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pycaffe_prune.formats.caffe_pb2 import TEST, TRAIN
from tests.engines.torch.weighted_cases import CASES
from tests.parity.comparison import require_parity
from tests.parity.conftest import CaffeLayer

pytestmark = pytest.mark.real_caffe


@pytest.mark.parametrize("kind", sorted(CASES))
@settings(
    max_examples=20,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data(), phase=st.sampled_from([TRAIN, TEST]))
def test_tops_gradients_and_statistics_are_caffes(
    caffe_layer: CaffeLayer, kind: str, data: st.DataObject, phase: int
) -> None:
    case = data.draw(CASES[kind]())
    require_parity(
        caffe_layer, case.param, case.bottoms, case.params, case.top_diffs(), phase, case.propagate
    )
