"""The paper's figure, accuracy against the reduction of FC weights, as PNG and as SVG.

The only module that imports matplotlib, which takes a second.
"""

from io import BytesIO
from textwrap import fill
from typing import NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pycaffe_prune.experiments.result import Method
from pycaffe_prune.reports.plot import Curve, Plot, caption, ticks

__all__ = ["draw", "png", "svg"]


class _Style(NamedTuple):
    color: str
    marker: str
    size: float


# Okabe and Ito's colours, which people with any common colour blindness tell apart
_STYLES: dict[Method, _Style] = {
    "units": _Style("#d55e00", "s", 6.5),
    "connections": _Style("#0072b2", "o", 7),
    "small": _Style("#009e73", "^", 8),
}
_INK = "#222222"
_GRID = "#dddddd"
_SIZE = (8.0, 5.6)  # inches
_DPI = 100


def png(plot: Plot) -> bytes:
    """Return the figure as PNG, twice the size of its nominal 800 pixels."""
    return _save(plot, "png")


def svg(plot: Plot) -> bytes:
    """Return the figure as SVG; the same plot gives the same bytes."""
    return _save(plot, "svg")


def _save(plot: Plot, kind: str) -> bytes:
    buffer = BytesIO()
    with mpl.rc_context({"svg.hashsalt": "pycaffe-prune", "svg.fonttype": "path"}):
        draw(plot).savefig(
            buffer,
            format=kind,
            dpi=2 * _DPI,
            metadata={"Date": None} if kind == "svg" else None,
        )
    return buffer.getvalue()


def draw(plot: Plot) -> Figure:
    """Draw the plot; nothing of pyplot's global state is touched."""
    figure = Figure(figsize=_SIZE, dpi=_DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _draw_axes(axes, plot)
    for curve in plot.curves:
        _draw_curve(axes, curve, plot)
    if plot.baseline is not None and plot.baseline_inside:
        axes.axhline(
            plot.baseline,
            color=_INK,
            linestyle=(0, (6, 3)),
            linewidth=1.4,
            zorder=1.5,
            label=f"baseline ({plot.baseline:.2f} %)",
            gid="baseline",
        )
    if plot.curves or plot.baseline_inside:
        axes.legend(loc="best", frameon=True, framealpha=0.9, edgecolor=_GRID, fontsize=11)
    below = figure.supxlabel(fill(caption(plot), 110), fontsize=8.5, color="#555555")
    below.set_parse_math(False)
    if plot.warning is not None:
        warning = figure.suptitle(
            fill(plot.warning, 90), color="#b00020", fontsize=10, fontweight="bold"
        )
        warning.set_parse_math(False)
    return figure


def _draw_axes(axes: Axes, plot: Plot) -> None:
    axes.set_xlim(plot.x.low, plot.x.high)
    axes.set_ylim(plot.y.low, plot.y.high)
    axes.set_xticks(ticks(plot.x))
    axes.set_yticks(ticks(plot.y))
    axes.set_xlabel("FC parameter reduction rate (%)", fontsize=12, color=_INK)
    axes.set_ylabel("Accuracy (%)", fontsize=12, color=_INK)
    axes.set_title(plot.title, fontsize=13, color=_INK, parse_math=False)
    axes.tick_params(labelsize=11, colors=_INK)
    axes.grid(visible=True, color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _draw_curve(axes: Axes, curve: Curve, plot: Plot) -> None:
    style = _STYLES[curve.method]
    shown = [row for row in curve.points if plot.shows(row)]
    axes.plot(
        [row.reduction for row in curve.points],
        [row.after for row in curve.points],
        color=style.color,
        linewidth=1.8,
        gid=f"line-{curve.method}",
    )
    # Apart from the line, which the axes cut off: a marker on their edge is shown whole
    axes.plot(
        [row.reduction for row in shown],
        [row.after for row in shown],
        color=style.color,
        linestyle="none",
        marker=style.marker,
        markersize=style.size,
        markeredgecolor="white",
        markeredgewidth=0.8,
        clip_on=False,
        zorder=3,
        gid=f"points-{curve.method}",
    )
    axes.plot(
        [],
        [],
        color=style.color,
        linewidth=1.8,
        marker=style.marker,
        markersize=style.size,
        label=curve.name,
    )
