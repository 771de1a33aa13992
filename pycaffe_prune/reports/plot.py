"""What the paper's figures 5 to 7 show of a result, as data: axes, curves, and what is outside.

And what they would show if each preset of an experiment gave a curve: `preset_plots`.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import cycle
from math import ceil, floor, log10
from statistics import fmean

from pycaffe_prune.experiments.result import ExperimentResult
from pycaffe_prune.reports.paper.figures_and_tables import FIGURES, TABLE_5, Axis
from pycaffe_prune.reports.rows import Row, accuracy_name, rows, sample_warning

__all__ = [
    "METHOD_KINDS",
    "PAPERS_CURVE",
    "PRESET_KINDS",
    "STRIP",
    "Curve",
    "Plot",
    "axis_around",
    "caption",
    "curve_kinds",
    "own_plot",
    "paper_plot",
    "plot_of",
    "preset_plots",
    "ticks",
]

PAPERS_CURVE = "the paper's connection pruning (table 5)"

STRIP = "baseline, somewhere in this strip"

PRESET_KINDS = tuple(f"preset-{number}" for number in range(1, 17))
"""Kinds of the curves of presets; more presets than that use them again."""

METHOD_KINDS = tuple(f"method-{number}" for number in range(1, 17))
"""Kinds of the curves of methods that the paper has not; more methods use them again."""

_PAPERS = ("units", "connections", "small")
_TRANSFER = "transfer_squeezenet_oxford102"
_OWN_AXES = "Axes chosen to show every point, not the paper's."
_MOST_NAMED = 40
_MARGIN = 1.0  # % to each side of values that are all the same


@dataclass(frozen=True)
class Curve:
    """The selected points of one method by rising reduction."""

    kind: str
    """How it is drawn: a method, or one of `PRESET_KINDS`."""
    name: str
    """As the paper calls the method, or the presets that gave these points."""
    points: tuple[Row, ...]


@dataclass(frozen=True)
class Plot:
    """Accuracy (y, %) against the reduction of FC weights (x, %)."""

    title: str
    axes: str
    """Whose axes they are, in words."""
    x: Axis
    y: Axis
    curves: tuple[Curve, ...]
    baseline: float | None
    warning: str | None
    """Not None for sample data."""
    paper: tuple[tuple[float, float], ...] = ()
    """The paper's own connection curve (reduction and accuracy in %), where the axes show some."""
    accuracy_name: str | None = None
    """The layer whose answers were judged; None: not known."""
    kinds: Mapping[str, str] = field(default_factory=dict)
    """How each method is drawn, by its name (`curve_kinds`)."""
    strip: tuple[float, float] | None = None
    """Between which accuracies (%) a baseline is whose decimals are lost."""

    def shows(self, row: Row) -> bool:
        """Whether a point lies within the axes (their ends included)."""
        return self.x.low <= row.reduction <= self.x.high and self.y.low <= row.after <= self.y.high

    @property
    def inside(self) -> list[Row]:
        """The points within the axes."""
        return [row for curve in self.curves for row in curve.points if self.shows(row)]

    @property
    def outside(self) -> list[Row]:
        """The points that the axes leave out."""
        return [row for curve in self.curves for row in curve.points if not self.shows(row)]

    @property
    def baseline_inside(self) -> bool:
        """Whether there is a baseline and the axes show it."""
        return self.baseline is not None and self.y.low <= self.baseline <= self.y.high


def plot_of(result: ExperimentResult) -> Plot:
    """Return the paper's figure, or one with its own limits where the paper's would be empty."""
    transfer = result.experiment == _TRANSFER
    plot = _transfer_plot(result) if transfer else paper_plot(result)
    if plot is None or (plot.outside and not plot.inside):
        return own_plot(result)
    return plot


def paper_plot(result: ExperimentResult) -> Plot | None:
    """Return the plot on the axes of the paper's figure; None when the paper has none."""
    figure = FIGURES.get(result.experiment)
    if figure is None:
        return None
    return _plot(result, f"Axes as in the paper's figure {figure.number}.", figure.x, figure.y)


def _transfer_plot(result: ExperimentResult) -> Plot:
    """The plot in the style of figure 7: its reduction rates, and the accuracies found there."""
    x = FIGURES["caffenet-oxford102"].x
    curves, baseline = _content(result)
    found = [row.after for curve in curves for row in curve.points if row.reduction >= x.low]
    y = axis_around([*found, *([] if baseline is None else [baseline])])
    axes = (
        "Reduction rates as in the paper's figure 7; accuracies chosen to show every point there."
    )
    return _plot(result, axes, x, y)


def own_plot(result: ExperimentResult) -> Plot:
    """Return the plot on axes that show every point."""
    curves, baseline = _content(result)
    points = [row for curve in curves for row in curve.points]
    x = axis_around(row.reduction for row in points)
    y = axis_around([*(row.after for row in points), *([] if baseline is None else [baseline])])
    return _plot(result, _OWN_AXES, x, y)


def _plot(result: ExperimentResult, axes: str, x: Axis, y: Axis) -> Plot:
    curves, baseline = _content(result)
    known = TABLE_5 if result.experiment == "caffenet-oxford102" else ()
    paper = tuple((row.all_fc, row.accuracy) for row in known)
    if not any(x.low <= rate <= x.high and y.low <= value <= y.high for rate, value in paper):
        paper = ()
    warning, judged = sample_warning(result), accuracy_name(result)
    kinds = curve_kinds(result)
    return Plot(result.title, axes, x, y, curves, baseline, warning, paper, judged, kinds)


def _content(result: ExperimentResult) -> tuple[tuple[Curve, ...], float | None]:
    shown = [row for row in rows(result) if row.selected]
    if len(result.select("baseline")) > 1:
        shown = _over_seeds(shown)
    curves = (
        Curve(kind, result.title_of(name), tuple(row for row in shown if row.method == name))
        for name, kind in curve_kinds(result).items()
    )
    baselines = [row.after for row in shown if row.method == "baseline"]
    return tuple(curve for curve in curves if curve.points), next(iter(baselines), None)


def _over_seeds(found: Iterable[Row]) -> list[Row]:
    """One row for each setting: the mean of its seeds, where each initial training was pruned."""
    alike: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in found:
        alike[row.method, row.parameter].append(row)
    means = (
        same[0]
        if len(same) == 1
        else replace(
            same[0],
            reduction=fmean(row.reduction for row in same),
            after=fmean(row.after for row in same),
        )
        for same in alike.values()
    )
    return sorted(means, key=lambda row: row.reduction)


def curve_kinds(result: ExperimentResult) -> dict[str, str]:
    """Return how the curve of each method is drawn: the paper's as ever and first, then the others.

    Args:
        result: Whose methods; its baseline has no curve.

    Returns:
        The kind (`Curve.kind`) by the method's name, in the order of the legend.
    """
    names = [record.name for record in result.methods if record.kind != "baseline"]
    papers = [name for name in _PAPERS if name in names]
    others = [name for name in names if name not in papers]
    return dict(zip(papers, papers, strict=True)) | dict(
        zip(others, cycle(METHOD_KINDS), strict=False)
    )


def preset_plots(results: Sequence[ExperimentResult]) -> list[Plot]:
    """Return a plot for each experiment and method in which presets gave different points.

    Presets that gave the same points share a curve, since a reading may leave a method as it is.
    """
    experiments: dict[str, list[ExperimentResult]] = defaultdict(list)
    for result in results:
        experiments[result.experiment].append(result)
    return [plot for group in experiments.values() for plot in _preset_plots(group)]


def _preset_plots(results: Sequence[ExperimentResult]) -> Iterator[Plot]:
    for method in dict.fromkeys(name for result in results for name in curve_kinds(result)):
        names: dict[object, list[str]] = defaultdict(list)
        points: dict[object, tuple[Row, ...]] = {}
        for result in results:
            found = [row for row in rows(result) if row.selected and row.method == method]
            if found:
                places = tuple((row.parameter, row.reduction, row.after) for row in found)
                names[places].append(result.preset)
                points[places] = tuple(found)
        if len(names) > 1:
            title = next(r.title_of(method) for r in results if method in curve_kinds(r))
            curves = tuple(
                Curve(kind, ", ".join(presets), points[places])
                for kind, (places, presets) in zip(cycle(PRESET_KINDS), names.items(), strict=False)
            )
            yield _presets_plot(results, title, curves)


def _presets_plot(
    results: Sequence[ExperimentResult], method: str, curves: tuple[Curve, ...]
) -> Plot:
    result, judged = results[0], accuracy_name(*results)
    found = [row for curve in curves for row in curve.points]
    figure = FIGURES.get(result.experiment)
    if figure is None:
        x, y = axis_around(row.reduction for row in found), axis_around(row.after for row in found)
        axes = _OWN_AXES
    else:
        x, y, axes = figure.x, figure.y, f"Axes as in the paper's figure {figure.number}."
    title = f"{result.title}: {method} by preset"
    return Plot(title, axes, x, y, curves, None, sample_warning(result), (), judged)


def caption(plot: Plot) -> str:
    """Say whose axes they are and name the points that they leave out, or the first 40 of them."""
    parts = [plot.axes]
    outside = [
        f"{curve.name} {row.parameter} ({row.reduction:.2f} %, {row.after:.2f} %)"
        for curve in plot.curves
        for row in curve.points
        if not plot.shows(row)
    ]
    if outside:
        listed = "; ".join(outside[:_MOST_NAMED])
        more = len(outside) - _MOST_NAMED
        parts.append(f"Outside the axes: {listed}{f'; and {more:,} more' if more > 0 else ''}.")
    if plot.baseline is not None and not plot.baseline_inside:
        parts.append(f"The baseline ({plot.baseline:.2f} %) lies outside the axes.")
    return " ".join(parts)


def ticks(axis: Axis) -> list[float]:
    """Return the values of an axis's ticks."""
    count = round((axis.high - axis.low) / axis.tick)
    return [axis.low + index * axis.tick for index in range(count + 1)]


def axis_around(values: Iterable[float]) -> Axis:
    """Return an axis in % with at most ten round steps around ``values``, within 0 to 100."""
    found = list(values) or [0.0, 100.0]
    low, high = min(found), max(found)
    if high - low < _MARGIN:
        low, high = max(0.0, low - _MARGIN), min(100.0, high + _MARGIN)
    rough = (high - low) / 9
    power = Fraction(10) ** floor(log10(rough))
    step = next(size * power for size in (1, 2, 5, 10) if size * power >= rough)
    return Axis(
        float(floor(Fraction(low) / step) * step),
        float(ceil(Fraction(high) / step) * step),
        float(step),
    )
