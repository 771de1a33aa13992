"""The figure of all methods: accuracy against kept weights and against bytes, bands over seeds.

What authors report for the same net stands beside the curves (`published`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from pycaffe_prune.experiments.result import ExperimentResult
from pycaffe_prune.reports.charts import size_text
from pycaffe_prune.reports.figures import DPI, GRID, INK, Style, numbered_style, saved, words
from pycaffe_prune.reports.methods.curves import (
    MethodCurve,
    MethodPoint,
    method_curves,
    unpruned,
)
from pycaffe_prune.reports.methods.published import Published, published
from pycaffe_prune.reports.rows import accuracy_name, accuracy_title, sample_warning
from pycaffe_prune.shown import shown

__all__ = [
    "Measure",
    "accuracy_limits",
    "draw_begun",
    "draw_curve",
    "draw_published",
    "dress",
    "place_limits",
    "png",
    "svg",
]


@dataclass(frozen=True)
class Measure:
    """What a panel shows accuracy against."""

    name: str
    of: Callable[[MethodPoint], float]
    of_theirs: Callable[[Published], float | None]


_MEASURES = (
    Measure("Weights kept (%)", lambda point: point.kept, lambda theirs: theirs.kept),
    Measure(
        "Bytes stored, the smallest form",
        lambda point: point.stored,
        lambda theirs: theirs.stored,
    ),
)
_BELOW = 3.0
"""Points of accuracy below the unpruned net's that the axis shows at most ..."""
_LOST = 10.0
"""... or as far below it as most curves stay, up to so many."""
_ROOM = 1.25
"""Factor beside the outermost points."""
_THEIR_MARKERS = ("o", "s", "^")


def png(result: ExperimentResult) -> bytes:
    """Return the figure as PNG; `method_curves` must not be empty."""
    return saved(lambda: _draw(result), "png")


def svg(result: ExperimentResult) -> bytes:
    """Return the figure as SVG; the same result gives the same bytes."""
    return saved(lambda: _draw(result), "svg")


def _draw(result: ExperimentResult) -> Figure:
    figure = Figure(figsize=(12.0, 6.4), dpi=DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    curves, begun, theirs = method_curves(result), unpruned(result), published(result)
    judged = accuracy_title(accuracy_name(result))
    panels = figure.subplots(1, len(_MEASURES), sharey=True)
    low, top = accuracy_limits(curves, [] if begun is None else [begun], theirs)
    for axes, measure in zip(panels, _MEASURES, strict=True):
        for number, curve in enumerate(curves):
            draw_curve(axes, curve, measure, numbered_style(number), f"method-{curve.name}")
        draw_published(axes, theirs, measure)
        if begun is not None:
            draw_begun(axes, begun, f"unpruned ({begun.accuracy:.2f} %)")
        dress(axes, measure)
        axes.set_xlim(*place_limits(curves, theirs, measure, low))
    panels[0].set_ylabel(shown(judged), fontsize=12, color=INK, parse_math=False)
    panels[0].set_ylim(low, top)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=10)
    seeds = {point.seeds for curve in curves for point in curve.points}
    many = " to ".join(str(count) for count in sorted({min(seeds), max(seeds)}))
    told = f"Lines: means over {many} seeds; bands: from the lowest to the highest of them."
    told = "One seed." if seeds == {1} else told
    told += " Hollow: as published by their authors, not run here." if theirs else ""
    figure.supxlabel(fill(f"{told} Points below the axis are left out.", 130), fontsize=9)
    title = f"{result.title}, preset {result.preset}: all methods"
    warning = sample_warning(result)
    figure.suptitle(
        fill(words(title if warning is None else f"{title}. {warning}"), 110),
        color=INK if warning is None else "#b00020",
        fontsize=13,
    )
    return figure


def draw_curve(
    axes: Axes, curve: MethodCurve, measure: Measure, style: Style, identity: str
) -> None:
    """Draw a method's points, and the band of its seeds."""
    points = [point for point in curve.points if measure.of(point) > 0]
    places = [measure.of(point) for point in points]
    axes.plot(
        places,
        [point.accuracy for point in points],
        color=style.color,
        linestyle=style.line,
        marker=style.marker,
        markersize=style.size,
        markeredgecolor="white",
        linewidth=1.6,
        label=words(curve.title),
        gid=identity,
    )
    axes.fill_between(
        places,
        [point.lowest for point in points],
        [point.highest for point in points],
        color=style.color,
        alpha=0.15,
        linewidth=0,
    )


def draw_published(axes: Axes, theirs: Sequence[Published], measure: Measure) -> None:
    """Draw what authors report, hollow; nothing of those who do not tell this size."""
    for number, (one, marker) in enumerate(zip(theirs, cycle(_THEIR_MARKERS), strict=False), 1):
        place = measure.of_theirs(one)
        if place is None:
            continue
        axes.plot(
            [place],
            [one.accuracy],
            linestyle="none",
            marker=marker,
            markersize=11,
            markerfacecolor="none",
            markeredgecolor=INK,
            markeredgewidth=1.6,
            label=f"{one.source}, as published",
            gid=f"published-{number}",
        )


def draw_begun(axes: Axes, begun: MethodPoint, label: str) -> None:
    """Draw the accuracy of the nets that were pruned as a level."""
    axes.axhline(begun.accuracy, color=INK, linestyle=(0, (6, 3)), linewidth=1.4, label=label)


def dress(axes: Axes, measure: Measure) -> None:
    """Give axes their scale, grid and name."""
    axes.set_xscale("log")
    axes.set_xlabel(measure.name, fontsize=12, color=INK)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: size_text(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(visible=True, which="both", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=10, colors=INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def place_limits(
    curves: Sequence[MethodCurve], theirs: Sequence[Published], measure: Measure, low: float
) -> tuple[float, float]:
    """Return the ends of the axis of sizes, largest first; points below ``low`` do not count."""
    near = [point for curve in curves for point in curve.points if point.accuracy >= low]
    told = [place for place in map(measure.of_theirs, theirs) if place is not None]
    places = [place for place in (*map(measure.of, near), *told) if place > 0] or [1.0]
    return max(places) * _ROOM, min(places) / _ROOM


def accuracy_limits(
    curves: Sequence[MethodCurve], begun: Sequence[MethodPoint], theirs: Sequence[Published]
) -> tuple[float, float]:
    """Return accuracies near the unpruned nets': one dead net would flatten all curves."""
    found = sorted(point.accuracy for curve in curves for point in curve.points)
    told = [one.accuracy for one in theirs]
    best = max([*found, *(point.highest for point in begun)])
    middle = found[len(found) // 4]
    low = max(min(middle, best - _BELOW), best - _LOST)
    top = max([best, *told])
    margin = 0.05 * (top - low)
    return min([low, *told]) - margin, top + margin
