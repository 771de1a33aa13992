from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycaffe_prune.experiments.result import ExperimentResult, Point
from pycaffe_prune.reports.plot import (
    PRESET_KINDS,
    Plot,
    caption,
    own_plot,
    paper_plot,
    plot_of,
    preset_plots,
    ticks,
)
from pycaffe_prune.reports.rows import rows

Make = Callable[..., Point]
MakeResult = Callable[..., ExperimentResult]
Results = st.SearchStrategy[ExperimentResult]


@given(data=st.data())
def test_own_axes_show_every_point_and_the_baseline(
    any_result: Results, data: st.DataObject
) -> None:
    plot = own_plot(data.draw(any_result))
    assert plot.outside == []
    assert plot.baseline is None or plot.baseline_inside
    for axis in (plot.x, plot.y):
        assert 0 <= axis.low < axis.high <= 100
        assert ticks(axis)[-1] == pytest.approx(axis.high)
        assert 2 <= len(ticks(axis)) <= 12


@given(data=st.data())
def test_a_point_is_either_shown_or_named_in_the_caption(
    any_result: Results, data: st.DataObject
) -> None:
    result = data.draw(any_result)
    plot = plot_of(result)
    selected = [row for row in rows(result) if row.selected and row.method != "baseline"]
    if len(result.select("baseline")) > 1:  # each was pruned: a point is a setting, over its seeds
        selected = list({(row.method, row.parameter): row for row in selected}.values())
    assert len(plot.inside) + len(plot.outside) == len(selected)
    words = caption(plot)
    for row in plot.outside:
        assert f"{row.parameter} ({row.reduction:.2f} %, {row.after:.2f} %)" in words
    assert ("The baseline" in words) == (plot.baseline is not None and not plot.baseline_inside)


@pytest.mark.parametrize(
    ("removed", "correct", "shown"),
    [
        (212_960, 9_000, True),  # exactly 80 % and 90 %: the axes' corner
        (212_959, 9_000, False),
        (212_960, 8_999, False),
        (266_199, 9_900, True),
        (266_199, 9_901, False),
    ],
)
def test_the_ends_of_the_papers_axes_belong_to_them(
    point: Make, result_of: MakeResult, removed: int, correct: int, shown: bool
) -> None:
    plot = paper_plot(result_of([point("connections", removed, correct, alpha=1.0)]))
    assert plot is not None
    assert len(plot.inside) == shown


def test_the_papers_axes_are_left_only_when_they_would_be_empty(
    point: Make, result_of: MakeResult
) -> None:
    low = point("connections", 100_000, 9_500, alpha=0.5)
    high = point("connections", 250_000, 9_500, alpha=1.5)
    assert plot_of(result_of([low])).x.low < 80
    both = plot_of(result_of([low, high]))
    assert (both.x, both.y) == ((80, 100, 2), (90, 99, 1))
    assert "α = 0.5" in caption(both)
    assert (plot_of(result_of([])).x.low, "figure 5" in plot_of(result_of([])).axes) == (80, True)


def test_an_experiment_that_the_paper_does_not_know_has_its_own_axes(
    point: Make, result_of: MakeResult
) -> None:
    result = result_of([point("connections", 250_000, 9_500, alpha=1.5)], experiment="mine")
    assert paper_plot(result) is None
    assert "not the paper's" in plot_of(result).axes


def test_runs_with_another_seed_are_not_drawn(typical: ExperimentResult) -> None:
    plot = plot_of(typical)
    assert all(row.selected for curve in plot.curves for row in curve.points)
    assert {curve.kind: len(curve.points) for curve in plot.curves} == {
        "units": 4,
        "connections": 6,
        "small": 4,
    }


def test_transfer_has_figure_7s_rates_and_its_own_accuracies(
    point: Make, result_of: MakeResult
) -> None:
    points = [
        point("baseline", 0, 8_500),
        point("connections", 100_000, 2_000, alpha=0.5),
        point("connections", 250_000, 8_000, alpha=1.5),
    ]
    plot = plot_of(result_of(points, experiment="transfer_squeezenet_oxford102"))
    assert plot.x == (80, 100, 2)
    assert 70 < plot.y.low <= 80 < 85 <= plot.y.high < 95
    assert plot.baseline_inside
    assert [row.reduction < 80 for row in plot.outside] == [True]


def test_presets_of_one_experiment_share_a_plot_of_each_method_in_which_they_differ(
    typical: ExperimentResult, point: Make, result_of: MakeResult
) -> None:
    better = [
        p.model_copy(
            update={
                "rounds": (
                    *p.rounds[:-1],
                    p.rounds[-1].model_copy(update={"after": p.rounds[-1].before}),
                )
            }
        )
        if p.method == "connections"
        else p
        for p in typical.points
    ]
    other = typical.model_copy(update={"preset": "other", "points": tuple(better)})
    same = typical.model_copy(update={"preset": "same"})
    elsewhere = result_of([point("units", 250_000, 1)], experiment="lenet-5")
    (plot,) = preset_plots([typical, other, elsewhere, same])
    assert "connection pruning" in plot.title
    assert [curve.name for curve in plot.curves] == ["quick, same", "other"]
    drawn = [row for curve in plot.curves for row in curve.points]
    assert drawn == [
        row
        for result in (typical, other)
        for curve in plot_of(result).curves
        for row in curve.points
        if row.method == "connections"
    ]
    assert (plot.x, plot.y) == (plot_of(typical).x, plot_of(typical).y)
    assert all(
        f"other {row.parameter}" in caption(plot)
        for row in plot.curves[1].points
        if not plot.shows(row)
    )


def test_one_preset_or_equal_presets_need_no_plot_of_presets(typical: ExperimentResult) -> None:
    assert preset_plots([]) == preset_plots([typical]) == []
    assert preset_plots([typical, typical.model_copy(update={"preset": "same"})]) == []


def test_every_preset_has_its_own_curve_even_when_kinds_run_out(
    point: Make, result_of: MakeResult
) -> None:
    results = [
        result_of([point("units", 250_000, correct)], preset=f"p{correct}", experiment="mine")
        for correct in range(9_000, 9_019)
    ]
    (plot,) = preset_plots(results)
    assert len(plot.curves) == 19
    assert {curve.kind for curve in plot.curves} == set(PRESET_KINDS)
    assert plot.outside == []


def test_the_papers_curve_is_drawn_where_the_axes_show_some_of_it(
    point: Make, result_of: MakeResult
) -> None:
    def plot(correct: int) -> Plot:
        points = [point("connections", 250_000, correct, alpha=1.5)]
        return plot_of(result_of(points, experiment="caffenet-oxford102"))

    assert len(plot(9_100).paper) == 14
    assert plot(50).paper == ()
