"""Who wins at each level."""

from collections.abc import Callable
from fractions import Fraction

import pytest

from pycaffe_prune.experiments.result import ExperimentResult, Point
from pycaffe_prune.pruning.sizes import ModelSizes, NetSize
from pycaffe_prune.reports.methods.winners import winners, winners_grid

Make = Callable[..., Point]
MakeResult = Callable[..., ExperimentResult]
WHOLE = 100_000


def _sized(point: Point, left: int) -> Point:
    net = NetSize(
        parameters=WHOLE,
        weights=WHOLE,
        non_zero_weights=left,
        macs=None,
        non_zero_macs=None,
        stored_bytes={"caffemodel": 4 * WHOLE},
        units={},
    )
    return point.model_copy(update={"sizes": ModelSizes(whole=net, alive=net)})


@pytest.fixture
def raced(point: Make, result_of: MakeResult) -> ExperimentResult:
    make = point
    units = {"ip1": 30}
    return result_of(
        [
            _sized(make("baseline", 0, 9_900), WHOLE),
            _sized(make("connections", 240_000, 9_850, alpha=1.0), 9_000),
            _sized(make("connections", 260_000, 9_700, alpha=2.0), 1_500),
            _sized(make("units", 240_000, 9_840, units=units), 9_500),
            _sized(make("small", 240_000, 9_000, units=units), 4_000),
        ]
    )


def test_each_level_has_the_best_of_the_nearest_nets_at_or_beyond_it(
    raced: ExperimentResult,
) -> None:
    found = {winner.level: winner for winner in winners(raced)}
    assert {level: winner.best.setting for level, winner in found.items()} == {
        Fraction(90, 100): "α = 1",
        Fraction(95, 100): "α = 2",
        Fraction(98, 100): "α = 2",
    }  # at 99 % there is no net
    first = found[Fraction(90, 100)]
    assert [rival.entrant.method for rival in first.within_noise] == ["unit pruning"]
    assert {rival.entrant.method for rival in first.rivals} == {"unit pruning", "small model"}


def test_a_line_tells_who_is_behind(raced: ExperimentResult) -> None:
    line = winners_grid(raced).lines[0]
    assert line[:4] == ("90", "connection pruning", "98.50", "9")
    assert line[5:] == ("unit pruning 98.40", "small model 90.00")


def test_nets_that_were_not_measured_are_in_no_race(typical: ExperimentResult) -> None:
    assert winners(typical) == ()
    assert winners_grid(typical).lines == ()
