"""Curves of a reading: means over seeds, and where the paper's axes show no more of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycaffe_prune.reports.paper.figures_and_tables import FIGURES
from pycaffe_prune.reports.readings.curves import Spot, after_sets, curve, line_at, reach

FIGURE = FIGURES["lenet-300-100"]  # 80 to 100 %, 90 to 99 %


def spots(*places: tuple[float, float]) -> list[Spot]:
    return [Spot(f"{rate}", None, 1, rate, value, value, value) for rate, value in places]


def test_a_spot_is_the_mean_of_the_seeds_that_were_pruned(point, result_of):
    found = result_of(
        [point("baseline", 0, 9_800, seed=1), point("baseline", 0, 9_700, seed=2)]
        + [point("connections", 240_000, 9_600 + 100 * s, alpha=1.0, seed=s) for s in (1, 2)]
    )
    (spot,) = curve(found, "connections")
    assert (spot.seeds, spot.value, spot.lowest, spot.highest) == (2, 1.0, 97.0, 98.0)
    assert spot.accuracy == pytest.approx(97.5)
    assert spot.reduction == pytest.approx(100 * 240_000 / 266_200)


def test_of_initialisations_of_which_the_best_is_reported_only_that_one_is_drawn(point, result_of):
    found = result_of(
        [point("baseline", 0, 9_800), point("baseline", 0, 9_700, seed=2, selected=False)]
    )
    assert [spot.accuracy for spot in curve(found, "baseline")] == [98.0]


def test_a_result_of_several_sets_tells_where_fewer_would_have_ended(point, result_of):
    long = point("connections", 213_000, 9_815, alpha=0.6, rounds=3)
    other = point("connections", 240_000, 9_700, alpha=1.2, rounds=3)
    steps = [
        step.model_copy(update={"reduction": 0.4 + 0.2 * at}) for at, step in enumerate(long.rounds)
    ]
    long = long.model_copy(update={"rounds": tuple(steps)})
    found = after_sets(result_of([other, long]))
    assert [round(spot.reduction) for spot in found] == [40, 60, 80]
    assert {(spot.value, spot.accuracy) for spot in found} == {(0.6, 98.15)}
    assert found[:2] == after_sets(
        result_of([other, long.model_copy(update={"rounds": long.rounds[:2]})])
    )
    assert after_sets(result_of([])) == ()


@given(st.lists(st.tuples(st.floats(60, 100), st.floats(10, 99)), min_size=1, max_size=6))
def test_a_curve_leaves_between_the_last_spot_within_the_axes_and_the_first_below(places):
    drawn = spots(*sorted(places))
    found = reach(drawn, FIGURE)
    seen = [spot for spot in drawn if spot.reduction >= FIGURE.x.low]
    if found is None:
        assert not seen or seen[0].accuracy < FIGURE.y.low
        return
    before = [spot for spot in seen if spot.reduction <= found.reduction]
    assert found.leaves == any(spot.accuracy < FIGURE.y.low for spot in seen)
    assert before
    assert found.reduction <= seen[-1].reduction
    if not found.leaves:
        assert found.reduction == seen[-1].reduction


def test_the_crossing_lies_on_the_line_between_two_spots():
    drawn = spots((82, 98), (90, 96), (94, 84))
    found = reach(drawn, FIGURE)
    assert found.leaves
    assert found.reduction == pytest.approx(92)
    assert line_at(drawn, found.reduction) == pytest.approx(FIGURE.y.low)


def test_nothing_is_read_beyond_the_ends_of_a_line():
    drawn = spots((82, 98), (90, 96))
    assert line_at(drawn, 81.9) is None
    assert line_at(drawn, 90.1) is None
    assert line_at([], 85) is None
    assert line_at(drawn, 86) == pytest.approx(97)
