"""The figure of a sensitivity analysis: a curve a layer, whole and near the baseline."""

from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pycaffe_prune.experiments.sensitivity.result import SensitivityResult
from pycaffe_prune.reports.figures import DPI, GRID, INK, saved, style_axes, words
from pycaffe_prune.reports.paper.figures_and_tables import Axis
from pycaffe_prune.reports.plot import axis_around
from pycaffe_prune.reports.rows import accuracy, percent
from pycaffe_prune.reports.sensitivity.tables import sample_note

__all__ = ["draw", "png", "svg"]

# Okabe and Ito's colours; with the markers, 35 layers can be told apart.
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#222222")
_MARKERS = ("o", "s", "^", "D", "v")
_SIZE = (11.0, 5.2)  # inches
_RATES = Axis(0, 100, 10)
_NEAR = 5.0
"""Points below the baseline that the second panel shows."""


def png(result: SensitivityResult) -> bytes:
    """Return the figure as PNG."""
    return saved(lambda: draw(result), "png")


def svg(result: SensitivityResult) -> bytes:
    """Return the figure as SVG; the same result gives the same bytes."""
    return saved(lambda: draw(result), "svg")


def draw(result: SensitivityResult) -> Figure:
    """Draw the result; nothing of pyplot's global state is touched."""
    figure = Figure(figsize=_SIZE, dpi=DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    whole, near = figure.subplots(1, 2)
    top = percent(accuracy(result.baseline))
    shown = [percent(accuracy(point.score)) for point in result.points]
    _draw_panel(whole, result, "whole", axis_around([top, *shown]))
    close = [value for value in shown if value >= top - _NEAR]
    _draw_panel(near, result, "near", axis_around([top, top - _NEAR, *close]))
    near.set_title("Near the baseline", fontsize=12, color=INK)
    whole.set_title(words(result.title), fontsize=12, color=INK)
    figure.legend(*whole.get_legend_handles_labels(), loc="outside right upper", edgecolor=GRID)
    what = "weights" if result.settings.method == "connections" else "units"
    figure.supxlabel(
        words(
            f"{what.capitalize()} of one layer that are pruned (%); the other layers whole, "
            f"not retrained; {result.settings.images:,} test images of {result.data}"
        ),
        fontsize=10,
        color=INK,
    )
    note = sample_note(result)
    if note is not None:
        figure.suptitle(fill(words(note), 110), color="#b00020", fontsize=10, fontweight="bold")
    return figure


def _draw_panel(axes: Axes, result: SensitivityResult, panel: str, y: Axis) -> None:
    style_axes(axes, _RATES, y, result.accuracy_name)
    top = percent(accuracy(result.baseline))
    axes.axhline(
        top, color=INK, linestyle=(0, (6, 3)), linewidth=1.2, label=f"baseline ({top:.2f} %)"
    )
    for place, layer in enumerate(result.settings.layers):
        points = result.curve(layer.layer)
        (line,) = axes.plot(
            [0.0, *(percent(point.rate) for point in points)],
            [top, *(percent(accuracy(point.score)) for point in points)],
            color=_COLORS[place % len(_COLORS)],
            marker=_MARKERS[place // len(_COLORS) % len(_MARKERS)],
            markersize=5,
            linewidth=1.6,
            gid=f"{panel}-{place}",
        )
        line.set_label(words(layer.layer))
