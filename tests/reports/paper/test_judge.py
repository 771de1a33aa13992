from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycaffe_prune.experiments.result import ExperimentResult, Point, Score
from pycaffe_prune.formats.right_answers import pack_answers
from pycaffe_prune.reports.paper.claims import CLAIMS
from pycaffe_prune.reports.paper.compare import compare_shapes, compare_units
from pycaffe_prune.reports.paper.judge import Judged, judge, judge_together, kept_up_to
from pycaffe_prune.reports.paper.weigh import noise_note

Make = Callable[..., Point]
MakeResult = Callable[..., ExperimentResult]
SHAPE = {"ip1": 30, "ip2": 10}


def _found(result: ExperimentResult, name: str) -> Judged:
    return next(entry for entry in judge(result) if entry.claim.name == name)


@pytest.mark.parametrize(
    ("correct", "verdict"),
    [
        ([9_783], "reproduced"),
        ([9_770], "within noise"),  # Wilson: 97.39 to 97.98 %
        ([9_700], "not reproduced"),
        ([9_770, 9_765, 9_775], "reproduced"),  # t: 97.58 to 97.82 %
        ([9_700, 9_800, 9_760], "within noise"),
        ([9_740, 9_741, 9_739], "not reproduced"),
    ],
)
def test_the_baseline_is_clear_of_97_5_over_its_seeds_or_the_images_of_one(
    point: Make, result_of: MakeResult, correct: list[int], verdict: str
) -> None:
    points = [
        point("baseline", 0, right, seed=seed, selected=right == max(correct))
        for seed, right in enumerate(correct)
    ]
    found = _found(result_of(points), "baseline-300-100")
    assert found.verdict == verdict
    assert f"was pruned: {max(correct) / 100:.2f} %" in found.ours


# 239,580 of 266,200 weights are exactly 90 %
@pytest.mark.parametrize(
    ("removed", "loss", "verdict"),
    [
        (239_580, 5, "reproduced"),
        (239_580, 50, "within noise"),
        (239_580, 100, "not reproduced"),
        (239_579, 5, "not run"),
        (260_000, -20, "reproduced"),
    ],
)
def test_connections_are_clear_of_half_a_point_at_90_percent(
    point: Make, result_of: MakeResult, removed: int, loss: int, verdict: str
) -> None:
    points = [
        point("baseline", 0, 9_800),
        point("connections", removed, 9_800 - loss, alpha=1.0),
        point("connections", 265_000, 9_850, alpha=2.0),  # further off: not looked at
    ]
    points = points if verdict != "not run" else points[:2]
    assert _found(result_of(points), "connections-90").verdict == verdict


def test_what_counts_alone_leave_open_is_clear_image_by_image(
    point: Make, result_of: MakeResult
) -> None:
    """28 of 10,000 images are lost and no others gained: at most 0.5 points, surely."""
    right = np.arange(10_000) < 9_800
    points = [
        point("baseline", 0, 9_800),
        point("connections", 240_000, 9_772, alpha=1.0),
    ]
    told = [_answered(points[0], right), _answered(points[1], right & (np.arange(10_000) >= 28))]
    assert _found(result_of(points), "connections-90").verdict == "within noise"
    assert _found(result_of(told), "connections-90").verdict == "reproduced"
    assert "image by image" in noise_note(result_of(told))
    assert "it is not known which images" in noise_note(result_of(points))


def _answered(point: Point, right: np.ndarray) -> Point:
    last = point.rounds[-1]
    score = last.after.model_copy(update={"right_answers": pack_answers(right)})
    step = last.model_copy(update={"after": Score.model_validate(score.model_dump())})
    return point.model_copy(update={"rounds": (*point.rounds[:-1], step)})


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
    [
        (9_400, "reproduced"),
        (9_480, "within noise"),  # below 95.00 % by too little
        (9_600, "within noise"),  # between the nets on its two sides
        (9_720, "within noise"),
        (9_790, "not reproduced"),
    ],
)
def test_units_are_held_against_the_nets_on_both_sides(
    point: Make, result_of: MakeResult, units: int, verdict: str
) -> None:
    result = _against(point, result_of, units)
    found = _found(result, "units-below")
    assert found.verdict == verdict
    low, high = units / 100 - 97, units / 100 - 95
    assert f"{low:+.2f} to {high:+.2f} points" in found.ours
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
        point("units", 246_000, 9_800, units={"ip1": 40, "ip2": 10}),
        point("units", 264_000, 9_000, units={"ip1": 5, "ip2": 10}),
    ]
    found = _found(result_of(points), "units-below")
    assert found.verdict == "not reproduced"
    assert "Of 2 compared, 1 clearly below connection pruning, 1 clearly above" in found.ours


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        ([9_600, 9_601, 9_602], [9_500, 9_501, 9_502], "reproduced"),
        ([9_500, 9_501, 9_502], [9_400, 9_401, 9_402], "within noise"),
        ([9_600, 9_000, 9_602], [9_500, 9_501, 9_502], "within noise"),  # one seed failed
        ([9_600, 9_601, 9_602], [9_000, 9_001, 9_002], "not reproduced"),
    ],
)
def test_small_models_are_judged_by_the_mean_of_all_seeds(
    point: Make, result_of: MakeResult, first: list[int], second: list[int], verdict: str
) -> None:
    other = {"ip1": 10, "ip2": 10}
    points = [
        point("baseline", 0, 9_800),
        point("units", 240_000, 9_500, units=SHAPE, seed=7),
        point("units", 255_000, 9_400, units=other, seed=7),
        point("small", 100_000, 0, units={"ip1": 200, "ip2": 10}),
    ]
    for removed, units, seeds in ((240_000, SHAPE, first), (255_000, other, second)):
        points += [
            point("small", removed, right, units=units, seed=seed, selected=right == max(seeds))
            for seed, right in enumerate(seeds)
        ]
    result = result_of(points)
    found = _found(result, "small-model")
    assert found.verdict == verdict
    assert f"{sum(first) / 300 - 95:+.2f} (ip1 30, ip2 10)" in found.ours
    assert [row.difference for row in compare_shapes(result)] == pytest.approx(
        [(max(first) - 9_500) / 100, (max(second) - 9_400) / 100]
    )


def test_the_kept_rate_is_told_as_far_as_it_is_clear_and_as_far_as_it_may_be(
    point: Make, result_of: MakeResult
) -> None:
    points = [
        point("baseline", 0, 9_800),
        point("connections", 133_100, 9_795, alpha=0.5),
        point("connections", 159_720, 9_750, alpha=0.6),
        point("connections", 186_340, 9_000, alpha=0.7),
        point("connections", 212_960, 9_800, alpha=0.8),
    ]
    found = _found(result_of(points), "keeps-baseline")
    assert found.verdict == "reproduced"
    assert "clearly up to 50.00 %, within noise up to 60.00 %." in found.ours
    assert "Unit pruning was not run." in found.ours
    for left, verdict in ((2, "within noise"), (3, "not reproduced")):
        fewer = [points[0], *points[left:]]
        assert _found(result_of(fewer), "keeps-baseline").verdict == verdict
    assert [kept_up_to(result_of(points[:1] + points[left:])) for left in (1, 3)] == [
        Fraction(3, 5),
        None,
    ]


def test_a_typical_run_reproduces_all_that_is_clear(typical: ExperimentResult) -> None:
    found = {entry.claim.name: entry.verdict for entry in judge(typical)}
    unclear = {name for name, verdict in found.items() if verdict == "within noise"}
    assert unclear == {"baseline-300-100", "small-model"}  # the seeds are two, and far apart
    found = {name: verdict for name, verdict in found.items() if name not in unclear}
    assert set(found.values()) == {"reproduced"}


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
        ([(220_000, 9_100)], "reproduced"),
        ([(220_000, 9_010)], "within noise"),
        ([(220_000, 9_200), (230_000, 8_800)], "not reproduced"),
        ([(220_000, 9_200), (230_000, 8_990)], "within noise"),  # clear of one of two only
        ([(220_000, 9_200), (230_000, 8_990), (240_000, 9_200)], "reproduced"),
        ([(210_000, 9_200)], "not run"),  # 78.9 %: figure 7 begins at 80
    ],
)
def test_units_are_above_where_most_are_clear_and_none_of_the_opposite(
    point: Make, result_of: MakeResult, units: list[tuple[int, int]], verdict: str
) -> None:
    pairs = _transfer(point, *units)
    shapes = [point("units", 0, 0, units={"ip1": n}) for n in range(1, len(units) + 1)]
    named = [
        one.model_copy(update={"units": shape.units, "setting": shape.setting})
        for one, shape in zip(pairs[3:], shapes, strict=True)
    ]
    result = _flowers(result_of, [*pairs[:3], *named])
    assert _found(result, "units-above").verdict == verdict


@pytest.mark.parametrize(
    ("top", "verdict"),
    [(9_200, "reproduced"), (9_001, "within noise"), (8_800, "not reproduced")],
)
def test_pruned_networks_must_lie_below_the_baseline(
    point: Make, result_of: MakeResult, top: int, verdict: str
) -> None:
    result = _flowers(result_of, _transfer(point, (230_000, 8_000), top=top))
    found = _found(result, "all-below")
    assert found.verdict == verdict


@pytest.mark.parametrize(
    ("removed", "loss", "verdict"),
    [
        (239_580, 5, "reproduced"),
        (239_580, 100, "within noise"),
        (239_580, 200, "not reproduced"),
        (239_579, 5, "not run"),
    ],
)
def test_one_point_may_be_lost_at_90_percent(
    point: Make, result_of: MakeResult, removed: int, loss: int, verdict: str
) -> None:
    points = [point("baseline", 0, 9_500), point("connections", removed, 9_500 - loss, alpha=1.0)]
    assert _found(_flowers(result_of, points), "keeps-one-point").verdict == verdict
    worse = [*points, point("connections", 100_000, 9_000, alpha=0.5)]
    expected = "not run" if verdict == "not run" else "not reproduced"
    assert _found(_flowers(result_of, worse), "keeps-one-point").verdict == expected


def _loses(
    point: Make, result_of: MakeResult, experiment: str, connections: int, units: int
) -> ExperimentResult:
    points = [point("baseline", 0, 9_900)]
    for number, removed in enumerate((240_000, 260_000), 1):
        points.append(point("connections", removed, 9_900 - connections, alpha=number))
        points.append(point("units", removed, 9_900 - units, units={"ip1": number}))
    return result_of(points, experiment=experiment, title=experiment)


@pytest.mark.parametrize(
    ("connections", "units", "verdict"),
    [
        (10, 50, "reproduced"),
        (99, 50, "within noise"),
        (10, 199, "within noise"),
        (10, 350, "not reproduced"),
    ],
)
def test_lenet_5_must_clearly_lose_less_with_both_methods(
    point: Make, result_of: MakeResult, connections: int, units: int, verdict: str
) -> None:
    more = _loses(point, result_of, "lenet-300-100", 100, 200)
    less = _loses(point, result_of, "lenet-5", connections, units)
    for results in ([more, less], [less, more], [less, more, more]):
        (judged,) = judge_together(results)
        assert judged.verdict == verdict
    assert "connection pruning: Of 2 compared" in judged.ours
    assert "unit pruning: Of 2 compared" in judged.ours


def test_a_median_of_two_images_of_ten_thousand_is_noise(
    point: Make, result_of: MakeResult
) -> None:
    more = _loses(point, result_of, "lenet-300-100", 100, 200)
    less = _loses(point, result_of, "lenet-5", 98, 198)
    (judged,) = judge_together([less, more])
    assert judged.verdict == "within noise"
    assert judge_together([more, more.model_copy(update={"experiment": "lenet-5"})])[0].verdict == (
        "within noise"
    )


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
