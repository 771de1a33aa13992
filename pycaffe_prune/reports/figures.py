"""The paper's figure, accuracy against the reduction of FC weights, as PNG and as SVG.

Like `sensitivity_figure` it imports matplotlib, which takes a second; no other module does.
"""

from collections.abc import Callable, Mapping
from io import BytesIO
from textwrap import fill
from typing import Literal, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pycaffe_prune.reports.paper.figures_and_tables import Axis
from pycaffe_prune.reports.plot import (
    METHOD_KINDS,
    PAPERS_CURVE,
    PRESET_KINDS,
    STRIP,
    Curve,
    Plot,
    caption,
    ticks,
)
from pycaffe_prune.reports.rows import accuracy_title
from pycaffe_prune.shown import shown

__all__ = [
    "DPI",
    "GRID",
    "INK",
    "SIZE",
    "STYLES",
    "Style",
    "draw",
    "numbered_style",
    "png",
    "saved",
    "style_axes",
    "svg",
    "words",
]


class Style(NamedTuple):
    """How a curve is drawn."""

    color: str
    marker: str
    size: float
    line: str = "-"


# Okabe and Ito's colours, which people with any common colour blindness tell apart
_PRESETSTYLES = (
    Style("#0072b2", "o", 7),
    Style("#d55e00", "s", 6.5),
    Style("#009e73", "^", 8),
    Style("#cc79a7", "D", 6.5),
    Style("#56b4e9", "v", 8),
    Style("#e69f00", "P", 8),
    Style("#000000", "X", 8),
    Style("#8c6d31", "p", 8),
)
# A ninth and later ones are dashed, with the next one's marker
_DASHED_PRESETS = tuple(
    Style(style.color, other.marker, other.size, "--")
    for style, other in zip(_PRESETSTYLES, (*_PRESETSTYLES[1:], _PRESETSTYLES[0]), strict=True)
)
_METHOD_MARKERS = ("D", "v", "P", "X", "p", "<", ">", "*")
_METHOD_COLORS = [style.color for style in (*_PRESETSTYLES[3:], *_PRESETSTYLES[:3])]
_METHODSTYLES = [
    Style(color, marker, 7.5, dash)
    for dash in ("-", "--")
    for color, marker in zip(_METHOD_COLORS, _METHOD_MARKERS, strict=True)
]
STYLES: Mapping[str, Style] = {
    "units": Style("#d55e00", "s", 6.5),
    "connections": Style("#0072b2", "o", 7),
    "small": Style("#009e73", "^", 8),
    **dict(zip(PRESET_KINDS, (*_PRESETSTYLES, *_DASHED_PRESETS), strict=True)),
    **dict(zip(METHOD_KINDS, _METHODSTYLES, strict=True)),
}
_NUMBERED_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_NUMBERED_LINES = ("-", "--", "-.", ":")


def numbered_style(number: int) -> Style:
    """Return one of 56 styles, of which no two have the same colour and marker."""
    number %= len(_PRESETSTYLES) * len(_NUMBERED_MARKERS)
    color = _PRESETSTYLES[number % len(_PRESETSTYLES)].color
    marker = _NUMBERED_MARKERS[number % len(_NUMBERED_MARKERS)]
    line = _NUMBERED_LINES[number // len(_PRESETSTYLES) % len(_NUMBERED_LINES)]
    return Style(color, marker, 7, line)


INK = "#222222"
GRID = "#dddddd"
SIZE = (8.0, 5.6)  # inches
DPI = 100
_MANY = 1_000


def png(plot: Plot) -> bytes:
    """Return the figure as PNG, twice the size of its nominal 800 pixels."""
    return saved(lambda: draw(plot), "png")


def svg(plot: Plot) -> bytes:
    """Return the figure as SVG; the same plot gives the same bytes."""
    return saved(lambda: draw(plot), "svg")


def saved(make: Callable[[], Figure], kind: Literal["png", "svg"]) -> bytes:
    """Return the figure that ``make`` draws as a file's content; equal figures give equal SVGs."""
    buffer = BytesIO()
    with mpl.rc_context({"svg.hashsalt": "pycaffe-prune", "svg.fonttype": "path"}):
        make().savefig(
            buffer,
            format=kind,
            dpi=2 * DPI,
            metadata={"Date": None} if kind == "svg" else None,
        )
    return buffer.getvalue()


def words(text: str) -> str:
    """Return a name or sentence as a figure takes it: `shown`, and no dollar begins a formula."""
    return shown(text).replace("$", r"\$")


def draw(plot: Plot) -> Figure:
    """Draw the plot; nothing of pyplot's global state is touched."""
    figure = Figure(figsize=SIZE, dpi=DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _draw_axes(axes, plot)
    for curve in plot.curves:
        _draw_curve(axes, curve, plot)
    if plot.paper:
        axes.plot(
            *zip(*plot.paper, strict=True),
            color="#666666",
            linestyle=":",
            marker="x",
            markersize=5,
            linewidth=1.3,
            label=PAPERS_CURVE,
            gid="paper",
        )
    if plot.baseline is not None and plot.baseline_inside:
        axes.axhline(
            plot.baseline,
            color=INK,
            linestyle=(0, (6, 3)),
            linewidth=1.4,
            zorder=1.5,
            label=f"baseline ({plot.baseline:.2f} %)",
            gid="baseline",
        )
    if plot.strip is not None:
        axes.axhspan(*plot.strip, color=INK, alpha=0.12, linewidth=0, label=STRIP, gid="strip")
    if plot.curves or plot.baseline_inside or plot.strip is not None:
        # Where it covers least takes long to find among many points
        few = sum(len(curve.points) for curve in plot.curves) <= _MANY
        axes.legend(
            loc="best" if few else "lower left",
            frameon=True,
            framealpha=0.9,
            edgecolor=GRID,
            fontsize=11,
        )
    figure.supxlabel(fill(words(caption(plot)), 110), fontsize=8.5, color="#555555")
    if plot.warning is not None:
        figure.suptitle(
            fill(words(plot.warning), 90), color="#b00020", fontsize=10, fontweight="bold"
        )
    return figure


def _draw_axes(axes: Axes, plot: Plot) -> None:
    axes.set_xlabel("FC parameter reduction rate (%)", fontsize=12, color=INK)
    axes.set_title(words(plot.title), fontsize=13, color=INK)
    style_axes(axes, plot.x, plot.y, plot.accuracy_name)


def style_axes(axes: Axes, x: Axis, y: Axis, accuracy_name: str | None) -> None:
    """Give a figure of a layer's accuracies its limits, ticks and grid."""
    axes.set_xlim(x.low, x.high)
    axes.set_ylim(y.low, y.high)
    axes.set_xticks(ticks(x))
    axes.set_yticks(ticks(y))
    axes.set_ylabel(shown(accuracy_title(accuracy_name)), fontsize=12, color=INK, parse_math=False)
    axes.tick_params(labelsize=11, colors=INK)
    axes.grid(visible=True, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _draw_curve(axes: Axes, curve: Curve, plot: Plot) -> None:
    style = STYLES[curve.kind]
    shown = [row for row in curve.points if plot.shows(row)]
    axes.plot(
        [row.reduction for row in curve.points],
        [row.after for row in curve.points],
        color=style.color,
        linestyle=style.line,
        linewidth=1.8,
        gid=f"line-{curve.kind}",
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
        gid=f"points-{curve.kind}",
    )
    axes.plot(
        [],
        [],
        color=style.color,
        linestyle=style.line,
        linewidth=1.8,
        marker=style.marker,
        markersize=style.size,
        label=words(curve.name),
    )
