import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.pruning.criteria.units import (
    UNIT_CRITERIA,
    squared_distances,
    unit_criterion,
    units_to_delete,
    units_to_keep,
)

scores_with_ties = hnp.arrays(np.float64, st.integers(1, 40), elements=st.integers(0, 5))
ratios = st.floats(0, 1, exclude_max=True)


@st.composite
def weights_around(draw: st.DrawFn) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    units, inputs, outputs = (draw(st.integers(1, 7)) for _ in range(3))
    elements = st.floats(-8, 8, width=32)
    incoming = draw(hnp.arrays(np.float32, (units, inputs), elements=elements))
    outgoing = draw(hnp.arrays(np.float32, (outputs, units), elements=elements))
    return incoming, outgoing


@given(weights_around())
def test_onorm_is_the_mean_absolute_outgoing_weight(
    weights: tuple[NDArray[np.float32], NDArray[np.float32]],
) -> None:
    incoming, outgoing = weights
    by_hand = [sum(abs(float(w)) for w in column) / len(column) for column in outgoing.T]
    scores = unit_criterion("onorm")(incoming, outgoing, 0)
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores, by_hand, rtol=1e-12)
    np.testing.assert_allclose(scores, np.abs(outgoing).mean(axis=0), rtol=1e-5, atol=1e-30)


@given(weights_around())
def test_inorm_is_the_mean_absolute_incoming_weight(
    weights: tuple[NDArray[np.float32], NDArray[np.float32]],
) -> None:
    incoming, outgoing = weights
    by_hand = [sum(abs(float(w)) for w in row) / len(row) for row in incoming]
    scores = unit_criterion("inorm")(incoming, outgoing, 0)
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores, by_hand, rtol=1e-12)


@given(weights_around())
def test_l1_and_l2_are_the_norms_of_the_incoming_weights(
    weights: tuple[NDArray[np.float32], NDArray[np.float32]],
) -> None:
    incoming, outgoing = weights
    for name, order in (("l1", 1), ("l2", 2)):
        scores = unit_criterion(name)(incoming, outgoing, 0)
        assert scores.dtype == np.float64
        by_hand = np.linalg.norm(incoming.astype(np.float64), ord=order, axis=1)
        np.testing.assert_allclose(scores, by_hand, rtol=1e-6, atol=1e-30)


@given(weights_around())
def test_the_geometric_median_is_where_the_sum_of_distances_is_lowest(
    weights: tuple[NDArray[np.float32], NDArray[np.float32]],
) -> None:
    incoming, outgoing = weights
    rows = incoming.astype(np.float64)
    by_hand = [sum(np.linalg.norm(row - other) for other in rows) for row in rows]
    scores = unit_criterion("geometric-median")(incoming, outgoing, 0)
    assert scores.dtype == np.float64
    # Of equal rows the squares' digits are lost: 1e-3 of the weights' size.
    np.testing.assert_allclose(scores, by_hand, rtol=1e-4, atol=0.1)


@given(weights_around())
def test_squared_distances_are_those_of_every_two_rows(
    weights: tuple[NDArray[np.float32], NDArray[np.float32]],
) -> None:
    rows = weights[0].astype(np.float64)
    by_hand = np.square(rows[:, None] - rows).sum(axis=-1)
    np.testing.assert_allclose(squared_distances(rows), by_hand, atol=1e-10)


def test_random_depends_on_the_seed_alone() -> None:
    random = unit_criterion("random")
    one, other = np.ones((50, 3), np.float32), np.zeros((50, 3), np.float32)
    np.testing.assert_array_equal(random(one, one.T, 7), random(other, other.T, 7))
    assert (random(one, one.T, 7) != random(one, one.T, 8)).any()
    assert random(one, one.T, 7).shape == (50,)


def test_the_registry_holds_the_names_that_users_type() -> None:
    assert set(UNIT_CRITERIA) == {"geometric-median", "inorm", "l1", "l2", "onorm", "random"}
    for name, criterion in UNIT_CRITERIA.items():
        assert unit_criterion(name) is criterion


def test_an_unknown_criterion_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SurgeryError, match=r"'entropie'.*inorm, l1, l2, onorm, random"):
        unit_criterion("entropie")


@given(scores_with_ties, ratios)
def test_exactly_the_rounded_share_goes_lowest_first_ties_earlier_first(
    scores: NDArray[np.float64], ratio: float
) -> None:
    kept = units_to_keep(scores, ratio)
    order = sorted(range(scores.size), key=lambda unit: (scores[unit], unit))
    gone = min(round(ratio * scores.size), scores.size - 1)
    assert kept.dtype == np.bool_
    assert sorted(np.flatnonzero(~kept)) == sorted(order[:gone])
    assert units_to_delete(scores.size, ratio) == gone
    assert kept.any()


@given(scores_with_ties)
def test_ratio_zero_deletes_nothing(scores: NDArray[np.float64]) -> None:
    assert units_to_keep(scores, 0).all()


@pytest.mark.parametrize("units", [1, 2, 100])
def test_one_unit_is_always_left(units: int) -> None:
    assert units_to_keep(np.zeros(units), 0.9999).sum() == 1


@pytest.mark.parametrize("ratio", [-0.01, 1.0, 90, float("nan"), float("inf")])
def test_a_ratio_out_of_range_is_refused(ratio: float) -> None:
    for refused in (lambda: units_to_delete(10, ratio), lambda: units_to_keep(np.ones(10), ratio)):
        with pytest.raises(SurgeryError, match=f"not {ratio}"):
            refused()
