"""The paper's own figures: what can be read of them and nothing else."""

import pytest

from pycaffe_prune.reports.paper.drawn import opened_by, papers_plot
from pycaffe_prune.reports.paper.figures_and_tables import BASELINES, FIGURES


@pytest.mark.parametrize("experiment", FIGURES)
def test_the_papers_figure_has_its_axes_and_its_printed_baseline(experiment):
    plot = papers_plot(experiment)
    assert (plot.x, plot.y) == (FIGURES[experiment].x, FIGURES[experiment].y)
    assert plot.curves == ()
    printed = BASELINES[experiment].accuracy
    assert printed in plot.axes
    if plot.baseline is None:
        assert all(f"{end:.0f}".startswith("9") for end in plot.strip)
        assert printed == "98.x %"
    else:
        assert printed == f"{plot.baseline:.2f} %"
        assert plot.strip is None


def test_a_report_opens_with_the_first_result_of_each_of_the_papers_figures(result_of):
    names = ("lenet-5", "methods-lenet-5", "lenet-300-100", "lenet-5")
    results = [result_of([], experiment=name, preset=str(at)) for at, name in enumerate(names)]
    assert [one.preset for one in opened_by(results)] == ["0", "2"]
