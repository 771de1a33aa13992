"""Every setting of every method once, over its seeds: what is left, and what accuracy it has.

What is left is measured on the whole net (`pruning.sizes`), convolutions and biases too, unlike the
paper's rates, which count the weights of FC layers. Results of older versions were not measured so.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from statistics import mean

from pycaffe_prune.experiments.result import ExperimentResult, Point
from pycaffe_prune.pruning.sizes import ModelSizes, NetSize
from pycaffe_prune.reports.once import once
from pycaffe_prune.reports.plot import curve_kinds
from pycaffe_prune.reports.rows import accuracy, parameter, percent

__all__ = [
    "MethodCurve",
    "MethodPoint",
    "common_forms",
    "method_curves",
    "smallest_bytes",
    "unpruned",
]


@dataclass(frozen=True)
class MethodPoint:
    """One setting of a method; means over its seeds."""

    setting: str
    seeds: int
    accuracy: float
    """%."""
    lowest: float
    highest: float
    kept: float
    """Weights that are not zero, in % of the unpruned net's weights."""
    stored: float
    """Bytes in the smallest form of those that all nets of the result have (`smallest_bytes`)."""
    alive: float | None
    """Parameters without dead units, in % of the unpruned net's: what is won without any code for
    zeros. None: dead units cannot be told."""
    images: float | None
    """Training images seen, of the initial training those of an unpruned net alone; None: not
    counted."""

    @property
    def smaller(self) -> float:
        """How many times fewer weights than the unpruned net's; infinite where none is left."""
        return float("inf") if self.kept == 0 else 100 / self.kept


@dataclass(frozen=True)
class MethodCurve:
    """The points of one method, by what is left, most first."""

    name: str
    title: str
    kind: str
    """How the figure of the paper draws it (`reports.plot.Curve.kind`)."""
    points: tuple[MethodPoint, ...]


def smallest_bytes(sizes: ModelSizes, forms: Collection[str]) -> int:
    """Return the bytes of the smallest file that holds the net, dead units or not.

    Args:
        sizes: Of the net.
        forms: Those that are looked at, all of them measured.
    """
    nets = [sizes.whole, *([] if sizes.alive is None else [sizes.alive])]
    return min(net.stored_bytes[form] for net in nets for form in forms)


def common_forms(result: ExperimentResult) -> frozenset[str]:
    """Return the forms of which all nets were measured: stages of an older version have fewer."""
    sizes = [point.sizes for point in result.points if point.sizes is not None]
    nets = [net for size in sizes for net in (size.whole, size.alive) if net is not None]
    forms = [frozenset(net.stored_bytes) for net in nets]
    return frozenset.intersection(*forms) if forms else frozenset()


@once
def method_curves(result: ExperimentResult) -> Sequence[MethodCurve]:
    """Return a curve for each method; none where a net was not measured (schema 1)."""
    found: dict[str, dict[str, list[Point]]] = defaultdict(lambda: defaultdict(list))
    for point in result.points:
        if point.selected:
            found[point.method][parameter(point)].append(point)
    whole = _whole(result)
    measured = all(p.sizes for same in found.values() for some in same.values() for p in some)
    forms = common_forms(result)
    if whole is None or not measured or not forms:
        return ()
    curves = []
    for name, kind in curve_kinds(result).items():
        made = [_point(setting, same, whole, forms) for setting, same in found[name].items()]
        made.sort(key=lambda point: (-point.kept, -point.stored, -point.accuracy))
        if made:
            curves.append(MethodCurve(name, result.title_of(name), kind, tuple(made)))
    return tuple(curves)


def unpruned(result: ExperimentResult) -> MethodPoint | None:
    """Return the unpruned net, over all its seeds that were pruned; None: it was not measured."""
    points, whole, forms = result.select("baseline"), _whole(result), common_forms(result)
    return _point("unpruned", points, whole, forms) if whole is not None and forms else None


def _whole(result: ExperimentResult) -> NetSize | None:
    sizes = next((point.sizes for point in result.select("baseline")), None)
    return None if sizes is None else sizes.whole


def _point(
    setting: str, points: Sequence[Point], whole: NetSize, forms: Collection[str]
) -> MethodPoint:
    shares = [percent(accuracy(point.rounds[-1].after)) for point in points]
    sizes = [point.sizes for point in points if point.sizes is not None]
    alive = [size.alive.parameters for size in sizes if size.alive is not None]
    seen = [[step.images for step in point.rounds] for point in points]
    images = [sum(filter(None, steps)) for steps in seen if None not in steps]
    return MethodPoint(
        setting=setting,
        seeds=len(points),
        accuracy=mean(shares),
        lowest=min(shares),
        highest=max(shares),
        kept=100 * mean(size.whole.non_zero_weights for size in sizes) / whole.weights,
        stored=mean(smallest_bytes(size, forms) for size in sizes),
        alive=100 * mean(alive) / whole.parameters if len(alive) == len(sizes) else None,
        images=mean(images) if len(images) == len(points) else None,
    )
