"""Nets beside each other, and the verdict on several comparisons."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycaffe_prune.reports.paper.weigh import (
    Net,
    around,
    less_loss,
    nets_of,
    verdict_on_all,
    verdict_on_one,
)
from pycaffe_prune.reports.uncertainty.intervals import Interval
from pycaffe_prune.reports.uncertainty.trials import Trial, compare

ABOVE, BELOW, OPEN = Interval(0.1, 0.2), Interval(-0.2, -0.1), Interval(-0.1, 0.1)
INTERVALS = st.lists(st.sampled_from([ABOVE, BELOW, OPEN]), min_size=1, max_size=7)


@given(intervals=INTERVALS)
def test_one_clear_opposite_refutes_and_more_than_half_bear_out(intervals):
    found = verdict_on_all(intervals, "above")
    if BELOW in intervals:
        assert found == "not reproduced"
    elif intervals.count(ABOVE) > intervals.count(OPEN):
        assert found == "reproduced"
    else:
        assert found == "within noise"
    assert verdict_on_one("within noise", "above") == "within noise"


@given(intervals=INTERVALS)
def test_the_opposite_claim_has_the_mirrored_verdict(intervals):
    mirrored = [Interval(-one.high, -one.low) for one in intervals]
    assert verdict_on_all(intervals, "above") == verdict_on_all(mirrored, "below")
    shifted = [Interval(one.low + 1, one.high + 1) for one in intervals]
    assert verdict_on_all(intervals, "below") == verdict_on_all(shifted, "below", 1)


def _net(reduction: int) -> Net:
    return Net(str(reduction), Fraction(reduction, 100), frozenset(), (), ())


@given(at=st.integers(0, 100), places=st.sets(st.integers(0, 100), max_size=6))
def test_a_reduction_lies_between_the_nets_around_it(at, places):
    found = around([_net(place) for place in sorted(places)], Fraction(at, 100))
    reductions = [net.reduction * 100 for net in found]
    if at in places:
        assert reductions == [at]
    elif places and min(places) < at < max(places):
        assert reductions[0] < at < reductions[1]
        assert not any(reductions[0] < place < reductions[1] for place in places)
    else:
        assert reductions == []


def test_the_seeds_of_a_setting_are_one_net_against_the_baselines_of_its_seeds(point, result_of):
    points = [
        point("baseline", 0, 9_800, seed=1),
        point("baseline", 0, 9_700, seed=2),
        point("connections", 200_000, 9_600, alpha=1.0, seed=1),
        point("connections", 199_000, 9_400, alpha=1.0, seed=2),
        point("connections", 100_000, 9_500, alpha=0.5, seed=1),
    ]
    first, second = nets_of(result_of(points), "connections")
    assert (first.name, second.name) == ("α = 0.5", "α = 1")
    assert second.reduction == Fraction(199_000, 266_200)
    assert second.accuracy == Fraction(95, 100)
    assert [trial.correct for trial in second.baselines] == [9_800, 9_700]
    assert [trial.correct for trial in first.baselines] == [9_800]
    assert second.against_baseline().difference == Fraction(-25, 1_000)


@given(rights=st.lists(st.integers(0, 50), min_size=4, max_size=4))
def test_a_difference_of_losses_mirrors_and_holds_what_was_measured(rights):
    one, other = (
        compare([Trial(1, net, 50)], [Trial(1, top, 50)]) for net, top in (rights[:2], rights[2:])
    )
    low, high = less_loss(one, other)
    assert less_loss(other, one) == pytest.approx((-high, -low), abs=1e-12)
    assert low - 1e-12 <= other.difference - one.difference <= high + 1e-12
