from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycaffe_prune.experiments.result import ExperimentResult, Point
from pycaffe_prune.reports.paper.claims import CLAIMS
from pycaffe_prune.reports.paper.compare import compare_shapes, compare_units
from pycaffe_prune.reports.paper.judge import Judged, judge, judge_together

Make = Callable[..., Point]
MakeResult = Callable[..., ExperimentResult]
SHAPE = {"ip1": 30, "ip2": 10}


def _found(result: ExperimentResult, name: str) -> Judged:
    return next(entry for entry in judge(result) if entry.claim.name == name)


@given(correct=st.integers(9_700, 9_800))
def test_the_baseline_turns_at_97_5(point: Make, result_of: MakeResult, correct: int) -> None:
    result = result_of([point("baseline", 0, correct)])
    assert (_found(result, "baseline-300-100").verdict == "reproduced") == (correct >= 9_750)


def test_the_baseline_turns_at_exactly_97_5(point: Make, result_of: MakeResult) -> None:
    at = {
        n: _found(result_of([point("baseline", 0, n)]), "baseline-300-100") for n in (9_749, 9_750)
    }
    assert at[9_749].verdict == "not reproduced"
    assert at[9_750].verdict == "reproduced"
    assert "97.50 %" in at[9_750].ours


# 239,580 of 266,200 weights are exactly 90 %
@pytest.mark.parametrize(
    ("removed", "loss", "verdict"),
    [
        (239_580, 50, "reproduced"),
        (239_580, 51, "not reproduced"),
        (239_579, 50, "not run"),
        (260_000, -20, "reproduced"),
    ],
)
def test_connections_turn_at_half_a_point_and_at_90_percent(
    point: Make, result_of: MakeResult, removed: int, loss: int, verdict: str
) -> None:
    points = [point("baseline", 0, 9_800), point("connections", removed, 9_800 - loss, alpha=1.0)]
    assert _found(result_of(points), "connections-90").verdict == verdict


def _against(
    point: Make, result_of: MakeResult, units: int, removed: int = 250_000
) -> ExperimentResult:
    return result_of(
        [
            point("baseline", 0, 9_800),
            point("connections", 245_000, 9_700, alpha=1.0),
            point("connections", 255_000, 9_500, alpha=1.5),
            point("units", removed, units, units=SHAPE),
        ]
    )


@pytest.mark.parametrize(
    ("units", "verdict"),
    [(9_599, "reproduced"), (9_600, "not reproduced"), (9_601, "not reproduced")],
)
def test_units_are_held_against_the_interpolated_curve(
    point: Make, result_of: MakeResult, units: int, verdict: str
) -> None:
    result = _against(point, result_of, units)
    found = _found(result, "units-below")
    assert found.verdict == verdict
    assert "interpolated between measured points at 1 of the 1 and measured at 0" in found.ours
    (row,) = compare_units(result)
    assert row.connections == pytest.approx(96.0)
    assert row.interpolated
    assert row.source == "α = 1 and α = 1.5"


def test_at_a_measured_point_nothing_is_interpolated(point: Make, result_of: MakeResult) -> None:
    (row,) = compare_units(_against(point, result_of, 9_000, removed=255_000))
    assert not row.interpolated
    assert row.connections == 95.0
    assert row.source == "α = 1.5"


@pytest.mark.parametrize("removed", [244_999, 255_001])
def test_nothing_is_extrapolated(point: Make, result_of: MakeResult, removed: int) -> None:
    result = _against(point, result_of, 9_000, removed=removed)
    assert compare_units(result) == []
    assert _found(result, "units-below").verdict == "not run"


def test_one_unit_point_above_is_enough_and_the_count_is_told(
    point: Make, result_of: MakeResult
) -> None:
    points = [
        *_against(point, result_of, 9_000).points,
        point("units", 246_000, 9_750, units={"ip1": 40, "ip2": 10}),
        point("units", 264_000, 9_000, units={"ip1": 5, "ip2": 10}),
    ]
    found = _found(result_of(points), "units-below")
    assert found.verdict == "not reproduced"
    assert "Below at 1 of 2 points (1 more lie outside" in found.ours


@given(first=st.integers(9_000, 9_900), second=st.integers(9_000, 9_900))
def test_small_models_turn_at_a_tenth_of_a_point_below(
    point: Make, result_of: MakeResult, first: int, second: int
) -> None:
    other = {"ip1": 10, "ip2": 10}
    points = [
        point("baseline", 0, 9_800),
        point("units", 240_000, 9_500, units=SHAPE),
        point("units", 255_000, 9_400, units=other),
        point("small", 240_000, first, units=SHAPE),
        point("small", 255_000, second, units=other),
        point("small", 255_000, 0, units=other, selected=False),
        point("small", 100_000, 0, units={"ip1": 200, "ip2": 10}),
    ]
    result = result_of(points)
    expected = "reproduced" if first - 9_500 + second - 9_400 >= -20 else "not reproduced"
    assert _found(result, "small-model").verdict == expected
    assert [row.difference for row in compare_shapes(result)] == pytest.approx(
        [(first - 9_500) / 100, (second - 9_400) / 100]
    )


@pytest.mark.parametrize(
    ("total", "verdict"), [(-10, "reproduced"), (-11, "not reproduced"), (0, "reproduced")]
)
def test_small_models_turn_at_exactly_a_tenth(
    point: Make, result_of: MakeResult, total: int, verdict: str
) -> None:
    points = [
        point("baseline", 0, 9_800),
        point("units", 240_000, 9_500, units=SHAPE),
        point("small", 240_000, 9_500 + total, units=SHAPE),
    ]
    assert _found(result_of(points), "small-model").verdict == verdict


def test_the_kept_rate_is_the_last_before_the_first_loss(
    point: Make, result_of: MakeResult
) -> None:
    points = [
        point("baseline", 0, 9_800),
        point("connections", 133_100, 9_750, alpha=0.5),
        point("connections", 159_720, 9_740, alpha=0.6),
        point("connections", 186_340, 9_800, alpha=0.7),
    ]
    found = _found(result_of(points), "keeps-baseline")
    assert found.verdict == "reproduced"
    assert "Measured: up to 50.00 % (α = 0.5)." in found.ours
    assert "Interpolated to the next point: 50.00 %." in found.ours
    assert "Unit pruning was not run." in found.ours
    worse = [points[0], *points[2:]]
    assert _found(result_of(worse), "keeps-baseline").verdict == "not reproduced"


def test_the_crossing_is_interpolated_between_its_two_points(
    point: Make, result_of: MakeResult
) -> None:
    points = [
        point("baseline", 0, 9_800),
        point("connections", 133_100, 9_800, alpha=0.5),
        point("connections", 266_199, 9_700, alpha=2.0),
    ]
    ours = _found(result_of(points), "keeps-baseline").ours
    assert "Interpolated to the next point: 75.00 %." in ours


def test_a_typical_run_reproduces_everything(typical: ExperimentResult) -> None:
    assert {entry.verdict for entry in judge(typical)} == {"reproduced"}


def test_a_sample_is_never_judged(sample: ExperimentResult) -> None:
    judged = judge(sample)
    assert len(judged) == len(CLAIMS["lenet-300-100"])
    assert {entry.verdict for entry in judged} == {"not run"}
    assert all("A sample" in entry.ours for entry in judged)


@given(data=st.data())
def test_every_claim_gets_one_verdict_with_its_reason_and_rule(
    any_result: st.SearchStrategy[ExperimentResult], data: st.DataObject
) -> None:
    result = data.draw(any_result)
    judged = judge(result)
    assert [entry.claim for entry in judged] == list(CLAIMS.get(result.experiment, ()))
    assert all(entry.ours and entry.rule for entry in judged)
    if not result.select("baseline") or result.data.is_sample:
        assert all(entry.verdict == "not run" for entry in judged)


@given(data=st.data())
def test_interpolated_values_lie_between_measured_ones(
    any_result: st.SearchStrategy[ExperimentResult], data: st.DataObject
) -> None:
    result = data.draw(any_result)
    measured = [100 * point.accuracy for point in result.select("connections")]
    for row in compare_units(result):
        assert row.reduction >= 90
        assert min(measured) - 1e-9 <= row.connections <= max(measured) + 1e-9
        assert row.below == (row.units < row.connections)


def _flowers(result_of: MakeResult, points: list[Point]) -> ExperimentResult:
    return result_of(points, experiment="transfer_squeezenet_oxford102")


def _transfer(point: Make, *units: tuple[int, int], top: int = 9_500) -> list[Point]:
    """A straight connection curve at 90 %, and units at the given removed weights and answers."""
    return [
        point("baseline", 0, top),
        point("connections", 200_000, 9_000, alpha=1.0),
        point("connections", 260_000, 9_000, alpha=2.0),
        *(point("units", removed, right, units=SHAPE) for removed, right in units),
    ]


@pytest.mark.parametrize(
    ("units", "verdict"),
    [
        ([(220_000, 9_001)], "reproduced"),
        ([(220_000, 9_000)], "not reproduced"),
        ([(220_000, 9_020), (230_000, 8_990)], "not reproduced"),  # above at one of two only
        ([(220_000, 9_020), (230_000, 8_990), (240_000, 9_001)], "reproduced"),
        ([(220_000, 9_010), (230_000, 8_900), (240_000, 9_001)], "not reproduced"),  # mean below
        ([(210_000, 9_020)], "not run"),  # 78.9 %: figure 7 begins at 80
    ],
)
def test_units_are_above_on_average_and_at_most_points(
    point: Make, result_of: MakeResult, units: list[tuple[int, int]], verdict: str
) -> None:
    result = _flowers(result_of, _transfer(point, *units))
    assert _found(result, "units-above").verdict == verdict


@pytest.mark.parametrize(("top", "verdict"), [(9_001, "reproduced"), (9_000, "not reproduced")])
def test_every_pruned_network_must_lie_below_the_baseline(
    point: Make, result_of: MakeResult, top: int, verdict: str
) -> None:
    result = _flowers(result_of, _transfer(point, (230_000, 8_000), top=top))
    assert _found(result, "all-below").verdict == verdict


@pytest.mark.parametrize(
    ("removed", "loss", "verdict"),
    [
        (239_580, 100, "reproduced"),
        (239_580, 101, "not reproduced"),
        (239_579, 100, "not run"),
    ],
)
def test_one_point_may_be_lost_at_90_percent(
    point: Make, result_of: MakeResult, removed: int, loss: int, verdict: str
) -> None:
    points = [point("baseline", 0, 9_500), point("connections", removed, 9_500 - loss, alpha=1.0)]
    assert _found(_flowers(result_of, points), "keeps-one-point").verdict == verdict


def _loses(
    point: Make, result_of: MakeResult, experiment: str, connections: int, units: int
) -> ExperimentResult:
    points = [point("baseline", 0, 9_900)]
    for removed in (240_000, 260_000):
        points.append(point("connections", removed, 9_900 - connections, alpha=1.0))
        points.append(point("units", removed, 9_900 - units, units=SHAPE))
    return result_of(points, experiment=experiment, title=experiment)


@pytest.mark.parametrize(
    ("connections", "units", "verdict"),
    [
        (99, 199, "reproduced"),
        (100, 199, "not reproduced"),
        (99, 200, "not reproduced"),
    ],
)
def test_lenet_5_must_lose_less_with_both_methods(
    point: Make, result_of: MakeResult, connections: int, units: int, verdict: str
) -> None:
    more = _loses(point, result_of, "lenet-300-100", 100, 200)
    less = _loses(point, result_of, "lenet-5", connections, units)
    for results in ([more, less], [less, more], [less, more, more]):
        (judged,) = judge_together(results)
        assert judged.verdict == verdict
    assert "connection pruning: less at" in judged.ours
    assert "unit pruning: less at" in judged.ours


def test_two_results_are_needed_to_compare_two_networks(
    typical: ExperimentResult, sample: ExperimentResult, point: Make, result_of: MakeResult
) -> None:
    (judged,) = judge_together([typical])
    assert (judged.verdict, "lenet-5" in judged.ours) == ("not run", True)
    lenet_5 = _loses(point, result_of, "lenet-5", 1, 1)
    (judged,) = judge_together([sample, lenet_5])
    assert (judged.verdict, "A sample" in judged.ours) == ("not run", True)
    assert judge_together([result_of([], experiment="my-net")]) == []


def test_a_part_of_the_images_is_not_the_papers_data(
    typical: ExperimentResult,
) -> None:
    data = typical.data.model_copy(update={"train_images": 59_999})
    judged = judge(typical.model_copy(update={"data": data}))
    assert {entry.verdict for entry in judged} == {"not run"}
    assert all("59,999 images instead of 60,000" in entry.ours for entry in judged)
