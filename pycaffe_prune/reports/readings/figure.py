"""All readings on one figure: a panel each, on the paper's axes, the best fit first.

Like `reports.figures` it imports matplotlib, which takes a second.
"""

from collections.abc import Sequence
from math import ceil
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pycaffe_prune.reports.figures import DPI, INK, STYLES, saved, words
from pycaffe_prune.reports.paper.figures_and_tables import FIGURES
from pycaffe_prune.reports.plot import ticks
from pycaffe_prune.reports.readings.curves import Spot
from pycaffe_prune.reports.readings.fit import METHODS, Reading

__all__ = ["draw", "png", "svg"]

_COLUMNS = 3
_PANEL = (4.0, 3.0)  # inches
_NAMES = {"connections": "connection pruning", "units": "unit pruning", "small": "small model"}
_OTHERS = "#c8c8c8"


def png(group: Sequence[Reading]) -> bytes:
    """Return the figure of the readings of one experiment as PNG."""
    return saved(lambda: draw(group), "png")


def svg(group: Sequence[Reading]) -> bytes:
    """Return the figure as SVG; the same readings give the same bytes."""
    return saved(lambda: draw(group), "svg")


def draw(group: Sequence[Reading]) -> Figure:
    """Draw a panel for each reading; nothing of pyplot's global state is touched."""
    columns = min(_COLUMNS, len(group))
    lines = ceil(len(group) / columns)
    size = (_PANEL[0] * columns, _PANEL[1] * lines + 1.2)
    figure = Figure(figsize=size, dpi=DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).flat
    for reading, axes in zip(group, panels, strict=False):
        _draw_panel(axes, reading, group)
    for axes in list(panels)[: lines * columns - len(group)]:
        axes.set_visible(False)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside upper center",
        ncols=5 if columns == _COLUMNS else 3,
        frameon=False,
        fontsize=10,
    )
    figure.supxlabel("FC parameter reduction rate (%)", fontsize=11, color=INK)
    figure.supylabel("Accuracy (%)", fontsize=11, color=INK)
    return figure


def _draw_panel(axes: Axes, reading: Reading, group: Sequence[Reading]) -> None:
    figure = FIGURES[reading.experiment]
    axes.set_xlim(figure.x.low, figure.x.high)
    axes.set_ylim(figure.y.low, figure.y.high)
    axes.set_xticks(ticks(figure.x)[::2])
    axes.set_yticks(ticks(figure.y))
    axes.grid(visible=True, color="#eeeeee", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9, colors=INK, labelbottom=True, labelleft=True)
    for other in group:
        if other is not reading:
            axes.plot(*_line(other.curves["connections"]), color=_OTHERS, linewidth=1, zorder=1)
    axes.plot([], [], color=_OTHERS, linewidth=1, label="connection pruning of the others")
    for method in METHODS:
        _draw_curve(axes, method, reading.curves[method])
    for spot in reading.curves["baseline"]:
        axes.axhline(spot.accuracy, color=INK, linestyle=(0, (6, 3)), linewidth=1, label="baseline")
        axes.axhspan(spot.lowest, spot.highest, color=INK, alpha=0.12, linewidth=0)
    title = f"{reading.place}. {reading.preset}: {reading.met} of {reading.judged} signs"
    axes.set_title(words(fill(title, 46)), fontsize=10, color=INK)


def _draw_curve(axes: Axes, method: str, spots: Sequence[Spot]) -> None:
    style = STYLES[method]
    rates, values = _line(spots)
    if any(spot.seeds > 1 for spot in spots):
        low, high = ([getattr(spot, end) for spot in spots] for end in ("lowest", "highest"))
        axes.fill_between(rates, low, high, color=style.color, alpha=0.25, linewidth=0, zorder=2)
    axes.plot(
        rates,
        values,
        color=style.color,
        marker=style.marker,
        markersize=style.size * 0.6,
        markeredgecolor="white",
        markeredgewidth=0.4,
        linewidth=1.4,
        zorder=3,
        label=_NAMES[method],
    )


def _line(spots: Sequence[Spot]) -> tuple[list[float], list[float]]:
    return [spot.reduction for spot in spots], [spot.accuracy for spot in spots]
