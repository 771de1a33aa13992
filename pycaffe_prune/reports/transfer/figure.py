"""The figure of a study: both methods' curves with and without pre-training, and their order."""

from collections.abc import Sequence
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pycaffe_prune.reports.figures import DPI, GRID, INK, Style, saved, words
from pycaffe_prune.reports.transfer.study import TransferStudy, Variant

__all__ = ["png", "svg"]

# Okabe and Ito's colours: one a method; one a variant
_UNITS, _CONNECTIONS = Style("#d55e00", "s", 6.5), Style("#0072b2", "o", 7)
_PRETRAINED, _CONTROL = Style("#009e73", "^", 8), Style("#777777", "v", 7.5, "--")
_ASIDE = 0.12  # %, so that two intervals at one reduction are both seen


def png(study: TransferStudy) -> bytes:
    """Return the figure as PNG."""
    return saved(lambda: _draw(study), "png")


def svg(study: TransferStudy) -> bytes:
    """Return the figure as SVG; the same study gives the same bytes."""
    return saved(lambda: _draw(study), "svg")


def _draw(study: TransferStudy) -> Figure:
    figure = Figure(figsize=(12.0, 5.4), dpi=DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for variant, name, line in (
        (study.pretrained, "pre-trained", "-"),
        (study.control, "from random values", "--"),
    ):
        _draw_curves(left, variant, name, line)
    left.set_ylabel("Accuracy (%)", fontsize=12, color=INK)
    for variant, name, style, aside in (
        (study.pretrained, "pre-trained", _PRETRAINED, -_ASIDE),
        (study.control, "from random values", _CONTROL, _ASIDE),
    ):
        _draw_order(right, variant, name, style, aside)
    right.axhline(0, color=INK, linewidth=1.0)
    right.set_ylabel("Unit minus connection pruning (points)", fontsize=12, color=INK)
    for axes in (left, right):
        axes.set_xlabel("FC parameter reduction rate (%)", fontsize=12, color=INK)
        axes.grid(visible=True, color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.legend(frameon=False, fontsize=10, loc="lower left")
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    figure.suptitle(words(study.title), fontsize=13, color=INK)
    told = (
        f"Means over {_seeds(study.pretrained.seeds)} and {study.test_images:,} test images. Bars: "
        "over the images, all of a curve together at 95 %; what other seeds would give is in the "
        "table."
    )
    figure.supxlabel(fill(told, 130), fontsize=9, color="#555555")
    return figure


def _seeds(seeds: Sequence[int]) -> str:
    return f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''}"


def _draw_curves(axes: Axes, variant: Variant, name: str, line: str) -> None:
    places = [level.reduction for level in variant.levels]
    curves = (
        (_UNITS, "unit pruning", [level.units for level in variant.levels]),
        (_CONNECTIONS, "connection pruning", [level.connections for level in variant.levels]),
    )
    for style, method, values in curves:
        axes.plot(
            places,
            values,
            color=style.color,
            linestyle=line,
            marker=style.marker,
            markersize=style.size,
            markeredgecolor="white",
            label=f"{method}, {name}",
        )
    top = sum(variant.baseline) / len(variant.baseline)
    axes.axhline(
        top, color=INK, linestyle=line, linewidth=1.0, label=f"unpruned, {name} ({top:.2f} %)"
    )


def _draw_order(axes: Axes, variant: Variant, name: str, style: Style, aside: float) -> None:
    places = [level.reduction + aside for level in variant.levels]
    middles = [level.difference.points for level in variant.levels]
    spans = [level.difference.over_images for level in variant.levels]
    down = [middle - low for middle, (low, _) in zip(middles, spans, strict=True)]
    up = [high - middle for middle, (_, high) in zip(middles, spans, strict=True)]
    axes.errorbar(
        places,
        middles,
        yerr=[down, up],
        color=style.color,
        linestyle=style.line,
        marker=style.marker,
        markersize=style.size,
        capsize=3,
        label=f"{name}: {variant.order.points:+.2f} on average",
    )
