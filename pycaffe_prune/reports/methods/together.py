"""One figure of several results of one net: accuracy against bytes of all their methods."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from textwrap import fill

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pycaffe_prune.experiments.result import ExperimentResult
from pycaffe_prune.reports.figures import DPI, INK, numbered_style, saved, words
from pycaffe_prune.reports.methods.curves import MethodCurve, common_forms, method_curves, unpruned
from pycaffe_prune.reports.methods.figure import (
    Measure,
    accuracy_limits,
    draw_begun,
    draw_curve,
    draw_published,
    dress,
    place_limits,
)
from pycaffe_prune.reports.methods.published import published
from pycaffe_prune.reports.rows import accuracy_name, accuracy_title
from pycaffe_prune.shown import shown

__all__ = ["curves_together", "png", "svg"]

_LEGEND_LINE = 0.195  # inches
_BYTES = Measure("Bytes stored", lambda point: point.stored, lambda theirs: theirs.stored)


def png(results: Sequence[ExperimentResult]) -> bytes:
    """Return the figure of results of one net (`groups.of_one_net`) as PNG."""
    return saved(lambda: _draw(results), "png")


def svg(results: Sequence[ExperimentResult]) -> bytes:
    """Return the figure as SVG; the same results give the same bytes."""
    return saved(lambda: _draw(results), "svg")


def curves_together(results: Sequence[ExperimentResult]) -> list[MethodCurve]:
    """Return the curves of all results; where several have one title, it tells the result too."""
    found = [(result, curve) for result in results for curve in method_curves(result)]
    titles = Counter(curve.title for _, curve in found)
    return [
        replace(curve, title=f"{curve.title}, {result.experiment} {result.preset}")
        if titles[curve.title] > 1
        else curve
        for result, curve in found
    ]


def _draw(results: Sequence[ExperimentResult]) -> Figure:
    curves, theirs = curves_together(results), published(results[0])
    height = max(6.4, _LEGEND_LINE * (len(curves) + len(theirs) + len(results)) + 1.5)
    figure = Figure(figsize=(12.0, height), dpi=DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    begun = [point for point in map(unpruned, results) if point is not None]
    low, top = accuracy_limits(curves, begun, theirs)
    for number, curve in enumerate(curves):
        draw_curve(axes, curve, _BYTES, numbered_style(number), f"curve-{number + 1}")
    draw_published(axes, theirs, _BYTES)
    for accuracy, point in {f"{point.accuracy:.2f}": point for point in begun}.items():
        draw_begun(axes, point, f"unpruned ({accuracy} %)")
    dress(axes, _BYTES)
    axes.set_xlim(*place_limits(curves, theirs, _BYTES, low))
    axes.set_ylim(low, top)
    judged = accuracy_title(accuracy_name(*results))
    axes.set_ylabel(shown(judged), fontsize=12, color=INK, parse_math=False)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=9)
    figure.supxlabel(fill(words(_told(results)), 150), fontsize=9)
    figure.suptitle(words(f"{results[0].title}: all methods of these runs"), color=INK, fontsize=13)
    return figure


def _told(results: Sequence[ExperimentResult]) -> str:
    by_forms: dict[str, list[str]] = defaultdict(list)
    for result in results:
        forms = ", ".join(sorted(common_forms(result)))
        by_forms[forms].append(f"{result.experiment} {result.preset}")
    told = "; ".join(f"{', '.join(names)}: {forms}" for forms, names in by_forms.items())
    return (
        "Lines: means over seeds; bands: from the lowest to the highest of them. Bytes are those "
        f"of the smallest form that all nets of a run were measured in ({told}). Hollow marks: as "
        "published by their authors, not run here. Points below the axis are left out."
    )
