"""All methods' points as a table of text."""

from pycaffe_prune.experiments.result import ExperimentResult
from pycaffe_prune.reports.methods.curves import MethodPoint, method_curves, unpruned
from pycaffe_prune.reports.tables import Grid

__all__ = ["methods_grid"]


def methods_grid(result: ExperimentResult) -> Grid:
    """Return a line for each setting of each method; none where nets were not measured."""
    heads = (
        "method",
        "setting",
        "kept %",
        "fewer",
        "without dead units, parameters %",
        "bytes",
        "accuracy %",
        "seeds %",
        "seeds",
        "images seen",
    )
    curves, begun = method_curves(result), unpruned(result)
    lines = [] if begun is None or not curves else [_line("baseline", begun)]
    lines += [_line(curve.title, point) for curve in curves for point in curve.points]
    return Grid(heads, tuple(lines), numbers=8)


def _line(title: str, point: MethodPoint) -> tuple[str, ...]:
    one = point.seeds == 1
    return (
        title,
        point.setting,
        f"{point.kept:.3g}",
        f"{point.smaller:.3g}x",
        "–" if point.alive is None else f"{point.alive:.3g}",
        f"{point.stored:,.0f}",
        f"{point.accuracy:.2f}",
        "–" if one else f"{point.lowest:.2f} to {point.highest:.2f}",
        str(point.seeds),
        "–" if point.images is None else f"{point.images:,.0f}",
    )
