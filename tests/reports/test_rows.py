from collections import Counter
from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycaffe_prune.experiments.result import ExperimentResult, Point
from pycaffe_prune.reports.rows import baseline_of, parameter, percent, rows, sample_warning

Make = Callable[..., Point]
MakeResult = Callable[..., ExperimentResult]


@given(data=st.data())
def test_every_point_is_one_row(
    any_result: st.SearchStrategy[ExperimentResult], data: st.DataObject
) -> None:
    result = data.draw(any_result)
    found = rows(result)
    assert Counter((row.method, row.parameter, row.seed, row.selected) for row in found) == Counter(
        (point.method, parameter(point), point.seed, point.selected) for point in result.points
    )
    assert sorted(row.after for row in found) == pytest.approx(
        sorted(100 * point.accuracy for point in result.points)
    )


@given(data=st.data())
def test_rows_come_by_method_and_rising_reduction(
    any_result: st.SearchStrategy[ExperimentResult], data: st.DataObject
) -> None:
    result = data.draw(any_result)
    order = [record.name for record in result.methods]
    keys = [(order.index(row.method), row.reduction) for row in rows(result)]
    assert keys == sorted(keys)


@given(data=st.data())
def test_the_overall_rate_is_the_weighted_mean_of_the_layers(
    any_result: st.SearchStrategy[ExperimentResult], data: st.DataObject
) -> None:
    result = data.draw(any_result)
    weights = {"ip1": 235_200, "ip2": 30_000, "ip3": 1_000}
    for row in rows(result):
        mean = sum(row.layers[name] * weights[name] for name in weights) / sum(weights.values())
        assert row.reduction == pytest.approx(mean)


def test_differences_are_to_the_selected_baseline(point: Make, result_of: MakeResult) -> None:
    result = result_of(
        [
            point("baseline", 0, 9_700, selected=False),
            point("baseline", 0, 9_800),
            point("connections", 200_000, 9_750, alpha=1.0),
        ]
    )
    assert [row.difference for row in rows(result)] == [0.0, -1.0, -0.5]
    assert [row.note for row in rows(result)] == ["", "another seed is better", ""]


def test_without_a_baseline_there_is_no_difference(point: Make, result_of: MakeResult) -> None:
    result = result_of([point("connections", 200_000, 9_750, alpha=1.0, finite=False)])
    assert baseline_of(result) is None
    (row,) = rows(result)
    assert row.difference is None
    assert row.note == "loss not finite"


def test_parameters_in_words(point: Make) -> None:
    assert parameter(point("baseline", 0, 1)) == "–"
    assert parameter(point("connections", 1, 1, alpha=1.5)) == "α = 1.5"
    assert parameter(point("units", 1, 1, units={"ip1": 30, "ip2": 10})) == "ip1 30, ip2 10"


def test_only_a_sample_is_warned_of(typical: ExperimentResult, sample: ExperimentResult) -> None:
    assert sample_warning(typical) is None
    assert "NOT THE REAL DATA SET" in (sample_warning(sample) or "")


@given(share=st.fractions(-1, 1) | st.floats(0, 1))
def test_a_percentage_is_the_float_nearest_to_a_hundred_times_the_share(
    share: Fraction | float,
) -> None:
    assert percent(share) == float(share * 100)
