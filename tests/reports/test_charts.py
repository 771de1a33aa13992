from collections.abc import Callable
from math import log10

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pycaffe_prune.experiments.result import ExperimentResult, Point
from pycaffe_prune.reports.charts import Chart, Mark, chart, size_charts, size_text
from pycaffe_prune.reports.plot import own_plot, plot_of
from pycaffe_prune.reports.sizes import size_rows

Make = Callable[..., Point]
MakeResult = Callable[..., ExperimentResult]


def _marks(placed: Chart) -> list[Mark]:
    return [mark for line in placed.lines for mark in line.marks]


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_marks_within_the_axes_are_shown_and_no_others(
    any_result: st.SearchStrategy[ExperimentResult], data: st.DataObject
) -> None:
    plot = plot_of(data.draw(any_result))
    placed = chart(plot)
    shown = [mark for mark in _marks(placed) if mark.shown]
    assert len(shown) == len(plot.inside)
    assert len(_marks(placed)) == len(plot.inside) + len(plot.outside)
    for mark in shown:
        assert placed.left <= mark.x <= placed.right
        assert placed.top <= mark.y <= placed.bottom


def test_higher_accuracy_is_drawn_higher_and_more_reduction_further_right(
    typical: ExperimentResult,
) -> None:
    plot = own_plot(typical)
    for curve, line in zip(plot.curves, chart(plot).lines, strict=True):
        by_x = sorted(zip(line.marks, curve.points, strict=True), key=lambda pair: pair[0].x)
        assert [row for _, row in by_x] == sorted(curve.points, key=lambda row: row.reduction)
        by_y = sorted(zip(line.marks, curve.points, strict=True), key=lambda pair: -pair[0].y)
        assert [row for _, row in by_y] == sorted(curve.points, key=lambda row: row.after)


def test_sizes_have_a_chart_for_each_measure_with_every_network(with_net: ExperimentResult) -> None:
    rows = size_rows(with_net)
    placed = size_charts(rows, plot_of(with_net))
    assert len(placed) == 4
    for found in placed:
        assert len(_marks(found)) == len(rows) > 10
        assert found.logarithmic
    parameters = sorted(log10(row.cost.parameters) for row in rows)
    assert sorted(mark.u for mark in _marks(placed[0])) == pytest.approx(parameters)


def test_only_what_was_run_with_several_seeds_has_a_spread(with_net: ExperimentResult) -> None:
    for line in size_charts(size_rows(with_net), plot_of(with_net))[0].lines:
        assert all(
            (mark.spread is None) == (line.kind in ("units", "connections")) for mark in line.marks
        )
    assert size_charts([], plot_of(with_net)) == []


@pytest.mark.parametrize(
    ("value", "text"), [(5, "5"), (999, "999"), (20_000, "20k"), (5e6, "5M"), (2e9, "2G")]
)
def test_sizes_in_words(value: float, text: str) -> None:
    assert size_text(value) == text


def test_the_papers_curve_is_drawn_for_caffenet_only(
    typical: ExperimentResult, result_of: MakeResult, point: Make
) -> None:
    points = [point("connections", 250_000, 9_000, alpha=1.5)]
    caffenet = chart(plot_of(result_of(points, experiment="caffenet-oxford102")))
    papers = [line for line in caffenet.lines if line.kind == "paper"]
    assert [len(line.marks) for line in papers] == [14]
    assert all(line.kind != "paper" for line in chart(plot_of(typical)).lines)


def test_a_net_of_which_nothing_is_left_is_counted_and_has_no_place(
    with_net: ExperimentResult, point: Callable[..., Point]
) -> None:
    dead = point("connections", 266_200, 980, alpha=9.0)
    plot, alive = plot_of(with_net), size_rows(with_net)
    gone = size_rows(with_net.model_copy(update={"points": (*with_net.points, dead)}))
    assert len(gone) == len(alive) + 1
    before, after = (size_charts(rows, plot)[1] for rows in (alive, gone))
    assert len(_marks(after)) == len(_marks(before)) == len(alive)
    left_out = len(gone) - sum(mark.shown for mark in _marks(after))
    assert f" {left_out} points lie outside the axes" in after.caption
