import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pycaffe_prune.engines.torch.layers.base import LayerSetup
from pycaffe_prune.engines.torch.layers.random import Dropout
from pycaffe_prune.errors import EngineError
from pycaffe_prune.formats.caffe_pb2 import TEST, TRAIN, LayerParameter

COUNT = 200_000


def _dropout(ratio: float, phase: int = TRAIN) -> Dropout:
    param = LayerParameter(name="drop6", type="Dropout")
    param.dropout_param.dropout_ratio = ratio
    return Dropout(LayerSetup(param, ((COUNT,),), ((COUNT,),), phase))


def _mask(layer: Dropout, key: int) -> torch.Tensor:
    layer.reseed(key)
    ((top,), _) = layer.forward_saving([torch.ones(COUNT)], [])
    return top


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.5, 0.8])
def test_the_right_share_is_kept_and_the_mean_stays(ratio: float) -> None:
    mask = _mask(_dropout(ratio), 1)
    kept = mask[mask != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - ratio)))
    five_sigma = 5 * (ratio * (1 - ratio) / COUNT) ** 0.5
    assert float((mask > 0).double().mean()) == pytest.approx(1 - ratio, abs=five_sigma + 1e-9)
    assert float(mask.double().mean()) == pytest.approx(1, abs=five_sigma / (1 - ratio) + 1e-6)


@given(st.integers(-(2**70), 2**70), st.integers(1, 2**40))
def test_masks_follow_from_their_keys(key: int, distance: int) -> None:
    layer = _dropout(0.5)
    first, other = _mask(layer, key), _mask(layer, key + distance)
    assert torch.equal(_mask(_dropout(0.5), key), first)
    assert torch.equal(_mask(layer, key), first)
    agreeing = float((first == other).double().mean())
    assert agreeing == pytest.approx(0.5, abs=6 * 0.5 / COUNT**0.5)


def test_the_masks_of_one_key_differ() -> None:
    layer = _dropout(0.5)
    first = _mask(layer, 3)
    ((second,), _) = layer.forward_saving([torch.ones(COUNT)], [])
    assert not torch.equal(first, second)


@pytest.mark.parametrize("in_place", [False, True])
def test_top_and_gradient_have_the_same_mask(in_place: bool) -> None:
    layer = _dropout(0.4)
    layer.in_place = in_place
    bottom, diff = torch.randn(COUNT) + 10, torch.randn(COUNT)
    kept = bottom.clone()
    ((top,), saved) = layer.forward_saving([bottom], [])
    (found,) = layer.backward(saved, [diff], [True], [])
    assert found is not None
    factors = torch.where(top != 0, 1 / 0.6, 0.0)
    torch.testing.assert_close(top, kept * factors)
    torch.testing.assert_close(found, diff * factors)
    assert (top.data_ptr() == bottom.data_ptr()) == in_place


def test_testing_changes_nothing() -> None:
    bottom, layer = torch.randn(COUNT), _dropout(0.5, TEST)
    assert torch.equal(layer.forward([bottom], [])[0], bottom)
    assert torch.equal(layer.forward_saving([bottom], [])[0][0], bottom)


def test_training_is_not_a_function_of_the_bottom() -> None:
    with pytest.raises(EngineError, match=r"'drop6'.*random numbers.*one by one"):
        _dropout(0.5).forward([torch.ones(COUNT)], [])


@pytest.mark.parametrize("ratio", [1.0, -0.1, float("nan")])
def test_an_impossible_ratio_is_refused(ratio: float) -> None:
    with pytest.raises(EngineError, match=r"'drop6'.*dropout_ratio"):
        _dropout(ratio)
