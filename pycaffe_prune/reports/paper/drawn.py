"""The paper's figures 5 to 7 as far as they can be read: what a report opens with, beside ours."""

from collections.abc import Sequence

from pycaffe_prune.experiments.result import ExperimentResult
from pycaffe_prune.reports.paper.figures_and_tables import BASELINES, FIGURES, TABLE_5
from pycaffe_prune.reports.plot import Plot

__all__ = ["opened_by", "papers_plot"]

_BASELINES = {"lenet-5": 99.10, "caffenet-oxford102": 91.82}
_STRIPS = {"lenet-300-100": (98.0, 99.0)}
"""Where the decimals are lost."""
_DRAWN = {
    "units": "unit pruning",
    "connections": "connection pruning",
    "baseline": "baseline",
    "small": "small model",
}


def opened_by(results: Sequence[ExperimentResult]) -> list[ExperimentResult]:
    """Return the results that a report opens with: of each of the paper's figures the first."""
    first: dict[str, ExperimentResult] = {}
    for result in results:
        if result.experiment in FIGURES:
            first.setdefault(result.experiment, result)
    return list(first.values())


def papers_plot(experiment: str) -> Plot:
    """Return the paper's own figure: its axes, its baseline, and of figure 7 one curve.

    Raises:
        KeyError: The paper has none of this experiment.
    """
    figure, baseline = FIGURES[experiment], BASELINES[experiment].accuracy
    curves = ", ".join(_DRAWN[name] for name in figure.curves)
    is_table_5 = experiment == "caffenet-oxford102"
    known = (
        "Connection pruning is table 5's; of the other curves the points"
        if is_table_5
        else "The points of its curves"
    )
    told = (
        f"The axes of the paper's figure {figure.number}. Drawn in it: {curves}. {known} cannot be "
        f"read from the scan. The baseline is printed as {baseline}"
        f"{', its decimals lost' if experiment in _STRIPS else ''}."
    )
    return Plot(
        title=f"The paper's figure {figure.number}: {figure.title}",
        axes=told,
        x=figure.x,
        y=figure.y,
        curves=(),
        baseline=_BASELINES.get(experiment),
        warning=None,
        paper=tuple((row.all_fc, row.accuracy) for row in TABLE_5) if is_table_5 else (),
        strip=_STRIPS.get(experiment),
    )
