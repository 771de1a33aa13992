"""What is allowed to each blob, and that it excuses no other."""

import math
from dataclasses import replace

import numpy as np
import pytest

from pycaffe_prune.engines.comparison.distances import (
    ROUNDING_FACTOR,
    Checkpoint,
    Difference,
    EngineComparison,
    allowing,
    gap_of,
)

TOLERANCE = 1e-5
NOISE, WEIGHTS = "history 1", "history 0"


def compared(**relative: float) -> EngineComparison:
    """Two engines after one iteration, so far apart in a matrix and in a blob that is noise."""
    still = Difference("training loss", 0.0, 1.0, TOLERANCE)
    history = (
        Difference(WEIGHTS, relative.get("weights", 0.0), 1.0, TOLERANCE),
        Difference(NOISE, relative.get("noise", 0.0) * 1e-9, 1e-9, TOLERANCE),
    )
    return EngineComparison(("one", "other"), (Checkpoint(1, still, (), history),), ())


def test_a_blob_that_is_noise_excuses_itself_and_no_other() -> None:
    rounding = compared(noise=0.9, weights=1e-7)
    assert allowing(compared(noise=2.0), [rounding]).is_same
    negated = allowing(compared(noise=2.0, weights=2.0), [rounding])
    assert negated.difference is not None
    assert WEIGHTS in negated.difference
    assert negated.checkpoints[0].history.what == WEIGHTS


def test_of_several_roundings_the_largest_counts_blob_by_blob() -> None:
    roundings = [compared(noise=0.1, weights=1e-3), compared(noise=1.0, weights=1e-6)]
    for noise, weights, same in ((3.9, 3.9e-3, True), (4.1, 0, False), (0, 4.1e-3, False)):
        found = allowing(compared(noise=noise, weights=weights), roundings)
        assert found.is_same is same
    history = found.checkpoints[0].history_blobs
    assert [blob.allowed for blob in history] == pytest.approx(
        [ROUNDING_FACTOR * 1e-3, ROUNDING_FACTOR]
    )


def test_the_worst_blob_is_the_one_furthest_beyond_what_it_is_allowed() -> None:
    found = allowing(compared(noise=1.0, weights=1e-4), [compared(noise=1.0)])
    assert found.checkpoints[0].history.what == WEIGHTS
    assert found.checkpoints[0].history.excess == pytest.approx(10)


@pytest.mark.parametrize("jitter", [0.0, math.inf])
def test_values_that_are_not_finite_are_never_the_same(jitter: float) -> None:
    gap, largest = gap_of(np.array([1, np.nan]), np.array([1, np.nan]))
    broken = Difference("weights ip/0", gap, largest, TOLERANCE)
    still = compared().checkpoints[0]
    twin = replace(still, weight_blobs=(replace(broken, gap=jitter),))
    rounding = EngineComparison(("one", "one"), (twin,), ())
    found = EngineComparison(("one", "other"), (replace(still, weight_blobs=(broken,)),), ())
    assert "weights ip/0 has values that are NaN" in (allowing(found, [rounding]).difference or "")


def test_a_twin_without_finite_values_allows_nothing() -> None:
    assert not allowing(compared(weights=0.5), [compared(weights=math.inf)]).is_same


def test_what_is_zero_in_the_first_may_be_what_rounding_makes_of_it() -> None:
    zero = Difference(NOISE, 1e-12, 0.0, TOLERANCE)
    assert not zero.is_same
    assert zero.relative == zero.excess == math.inf
    assert replace(zero, jitter=1e-12).is_same
    assert not replace(zero, jitter=1e-13).is_same
