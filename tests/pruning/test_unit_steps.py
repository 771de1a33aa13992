import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel
from pycaffe_prune.pruning.criteria.units import units_to_delete
from pycaffe_prune.pruning.unit_choice import UnitScores, weight_scores
from pycaffe_prune.pruning.unit_steps import (
    lowest_in_steps,
    lowest_over_all_in_steps,
    step_ratios,
)
from pycaffe_prune.pruning.units import delete_units, mask_units
from tests.pruning.conftest import CaffeForward
from tests.pruning.test_unit_choice import MODEL, NET, net_of


def by_inorm(net: NetParameter, model: Caffemodel) -> UnitScores:
    return weight_scores(net, model, ["conv", "a"], criterion="inorm")


@settings(max_examples=50)
@given(st.integers(1, 300), st.floats(0, 0.999), st.integers(1, 40))
def test_steps_lead_to_the_same_number_as_one(units: int, ratio: float, steps: int) -> None:
    left, sizes = units, []
    for share in step_ratios(units, ratio, steps):
        sizes.append(units_to_delete(left, share))
        left -= sizes[-1]
    assert units - left == units_to_delete(units, ratio)
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_every_step_scores_what_the_last_one_left(steps: int) -> None:
    net, model = net_of(NET), MODEL
    seen: list[int] = []

    def counting(small: NetParameter, weights: Caffemodel) -> UnitScores:
        seen.append(len(weights.layer("a").blobs[1]))
        return by_inorm(small, weights)

    kept = lowest_in_steps(net, model, counting, {"conv": 0.5, "a": 0.8}, steps)
    assert seen == [10 - round(8 * step / steps) for step in range(steps)]
    assert {name: int(of.sum()) for name, of in kept.items()} == {"conv": 4, "a": 2, "b": 2}
    # By hand: the lowest of what is there, again and again.
    alive = np.arange(10)
    for step in range(steps):
        small_net, small = net, model
        if step:
            small_net, small = delete_units(net, model, _after(kept_so_far=step, steps=steps))
        scores = by_inorm(small_net, small)["a"]
        more = round(8 * (step + 1) / steps) - round(8 * step / steps)
        alive = np.delete(alive, np.argsort(scores, kind="stable")[:more])
    assert np.flatnonzero(kept["a"]).tolist() == alive.tolist()


def _after(kept_so_far: int, steps: int) -> dict[str, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    """What is kept after some of the steps: those of a shorter way to the share reached then."""
    shares = {"conv": round(4 * kept_so_far / steps) / 8, "a": round(8 * kept_so_far / steps) / 10}
    return lowest_in_steps(net_of(NET), MODEL, by_inorm, shares, kept_so_far)


@pytest.mark.parametrize("steps", [1, 3])
def test_over_all_the_number_is_exact_after_any_number_of_steps(steps: int) -> None:
    kept = lowest_over_all_in_steps(net_of(NET), MODEL, by_inorm, ["conv", "a"], 0.6, steps)
    assert int((~kept["conv"]).sum() + (~kept["a"]).sum()) == round(0.6 * 18)
    assert (kept["a"] == kept["b"]).all()


@pytest.mark.real_caffe
@pytest.mark.parametrize("over_all", [False, True])
def test_the_smaller_net_computes_what_the_masked_one_does(
    caffe_forward: CaffeForward, over_all: bool
) -> None:
    net = net_of(NET)
    if over_all:
        kept = lowest_over_all_in_steps(net, MODEL, by_inorm, ["conv", "a"], 0.7, 3)
    else:
        kept = lowest_in_steps(net, MODEL, by_inorm, {"conv": 0.5, "a": 0.8}, 2)
    images = np.random.default_rng(3).normal(size=(4, 3, 6, 6)).astype(np.float32)
    masked = caffe_forward(net, mask_units(net, MODEL, kept), {"data": images})["out"]
    deleted = caffe_forward(*delete_units(net, MODEL, kept), {"data": images})["out"]
    np.testing.assert_allclose(deleted, masked, rtol=1e-4, atol=1e-5)
    assert np.abs(masked).max() > 0.01


def test_no_steps_are_refused() -> None:
    with pytest.raises(SurgeryError, match="one step or more, not in 0"):
        step_ratios(10, 0.5, 0)
