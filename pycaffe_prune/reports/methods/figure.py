"""The figure of all methods: accuracy against kept weights and against bytes, bands over seeds."""

from collections.abc import Callable, Sequence
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from pycaffe_prune.experiments.result import ExperimentResult
from pycaffe_prune.reports.charts import size_text
from pycaffe_prune.reports.figures import DPI, GRID, INK, STYLES, saved, words
from pycaffe_prune.reports.methods.curves import (
    MethodCurve,
    MethodPoint,
    method_curves,
    unpruned,
)
from pycaffe_prune.reports.rows import accuracy_name, accuracy_title, sample_warning
from pycaffe_prune.shown import shown

__all__ = ["png", "svg"]

_MEASURES: dict[str, Callable[[MethodPoint], float]] = {
    "Weights kept (%)": lambda point: point.kept,
    "Bytes stored, the smallest form": lambda point: point.stored,
}
_BELOW = 3.0
"""Points of accuracy below the unpruned net's that the axis shows at most ..."""
_LOST = 10.0
"""... or as far below it as most curves stay, up to so many."""
_ROOM = 1.25
"""Factor beside the outermost points."""


def png(result: ExperimentResult) -> bytes:
    """Return the figure as PNG; `method_curves` must not be empty."""
    return saved(lambda: _draw(result), "png")


def svg(result: ExperimentResult) -> bytes:
    """Return the figure as SVG; the same result gives the same bytes."""
    return saved(lambda: _draw(result), "svg")


def _draw(result: ExperimentResult) -> Figure:
    figure = Figure(figsize=(12.0, 6.4), dpi=DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    curves, begun = method_curves(result), unpruned(result)
    judged = accuracy_title(accuracy_name(result))
    panels = figure.subplots(1, len(_MEASURES), sharey=True)
    low, top = _limits(curves, begun)
    for axes, (name, measure) in zip(panels, _MEASURES.items(), strict=True):
        _draw_panel(axes, curves, begun, measure)
        axes.set_xlabel(name, fontsize=12, color=INK)
        near = [point for curve in curves for point in curve.points if point.accuracy >= low]
        places = [place for place in map(measure, near) if place > 0] or [1.0]
        axes.set_xlim(max(places) * _ROOM, min(places) / _ROOM)
    panels[0].set_ylabel(shown(judged), fontsize=12, color=INK, parse_math=False)
    panels[0].set_ylim(low, top)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=10)
    seeds = max(point.seeds for curve in curves for point in curve.points)
    told = f"Lines: means over {seeds} seeds; bands: from the lowest to the highest of them."
    told = "One seed." if seeds == 1 else told
    figure.supxlabel(fill(f"{told} Points below the axis are left out.", 130), fontsize=9)
    title = f"{result.title}, preset {result.preset}: all methods"
    warning = sample_warning(result)
    figure.suptitle(
        fill(words(title if warning is None else f"{title}. {warning}"), 110),
        color=INK if warning is None else "#b00020",
        fontsize=13,
    )
    return figure


def _draw_panel(
    axes: Axes,
    curves: Sequence[MethodCurve],
    begun: MethodPoint | None,
    measure: Callable[[MethodPoint], float],
) -> None:
    axes.set_xscale("log")
    for curve in curves:
        style = STYLES[curve.kind]
        points = [point for point in curve.points if measure(point) > 0]
        places = [measure(point) for point in points]
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
            gid=f"method-{curve.name}",
        )
        axes.fill_between(
            places,
            [point.lowest for point in points],
            [point.highest for point in points],
            color=style.color,
            alpha=0.15,
            linewidth=0,
        )
    if begun is not None:
        label = f"unpruned ({begun.accuracy:.2f} %)"
        axes.axhline(begun.accuracy, color=INK, linestyle=(0, (6, 3)), linewidth=1.4, label=label)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: size_text(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(visible=True, which="both", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=10, colors=INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _limits(curves: Sequence[MethodCurve], begun: MethodPoint | None) -> tuple[float, float]:
    """Accuracies near the unpruned net's: one dead net would flatten all curves."""
    found = sorted(point.accuracy for curve in curves for point in curve.points)
    top = max([*found, *([] if begun is None else [begun.highest])])
    middle = found[len(found) // 4]
    low = max(min(middle, top - _BELOW), top - _LOST)
    margin = 0.05 * (top - low)
    return low - margin, top + margin
