"""Methods held against each other at the same reduction or shape, and rows of table 5.

All comparisons are made on exact fractions (correct of images, kept of weights): which of two is
above does not hang on the rounding of the numbers that are shown. What of it is more than noise,
`reports.paper.judge` says.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from pycaffe_prune.experiments.result import ExperimentResult, Point
from pycaffe_prune.reports.once import once
from pycaffe_prune.reports.rows import accuracy, baseline_of, parameter, percent, reduction

__all__ = [
    "Knot",
    "ShapeRow",
    "UnitRow",
    "accuracy_of",
    "compare_shapes",
    "compare_units",
    "compared_from",
    "curve_of",
    "from_compared",
    "on_curve",
    "same_shapes",
    "why_not_comparable",
]

_MOST_NAMED = 20  # of points at the same reduction
_FROM = Fraction("0.9")
_FROM_FLOWERS = Fraction("0.8")  # figure 7 begins there, and its curves are close from there on

_TRAINING_IMAGES = {
    "lenet-300-100": 60_000,
    "lenet-5": 60_000,
    "caffenet-oxford102": 6_149,
    "transfer_squeezenet_oxford102": 6_149,
}


@dataclass(frozen=True)
class UnitRow:
    """Unit pruning against connection pruning at the same reduction; all in %."""

    parameter: str
    reduction: float
    units: float
    connections: float
    interpolated: bool
    """True when ``connections`` lies on the line between two measured points."""
    source: str
    """The measured point, or the two that it lies between."""
    gap: Fraction
    """Unit pruning minus connection pruning, exact, as a share."""

    @property
    def below(self) -> bool:
        """Unit pruning lies below."""
        return self.gap < 0


@dataclass(frozen=True)
class ShapeRow:
    """A small model against unit pruning at the same shape; accuracies in %."""

    parameter: str
    reduction: float
    units: float
    small: float
    difference: float
    """Small model minus unit pruning, in points."""


def compared_from(result: ExperimentResult) -> Fraction:
    """Return the reduction from which this experiment's methods are compared, 0 to 1."""
    return _FROM_FLOWERS if result.experiment.endswith("oxford102") else _FROM


def why_not_comparable(result: ExperimentResult) -> str | None:
    """Return why a result cannot be held against the paper's; None when it can."""
    if result.data.is_sample:
        return "A sample of a data set: its numbers cannot be held against the paper's."
    images = _TRAINING_IMAGES.get(result.experiment, 0)
    if result.data.train_images < images:
        return (
            f"Trained on {result.data.train_images:,} images instead of {images:,}: its numbers "
            "cannot be held against the paper's."
        )
    if result.experiment == "caffenet-oxford102" and not result.settings.get("weights"):
        return (
            "Trained from scratch, not from the ImageNet weights: this is not the paper's "
            "experiment."
        )
    if baseline_of(result) is None:
        return "The result holds no baseline."
    return None


@once
def compare_units(result: ExperimentResult) -> Sequence[UnitRow]:
    """Set each unit point from `compared_from` on against the connection curve.

    The curve is a straight line between measured points; unit points outside its reach are left
    out, nothing is extrapolated.
    """
    curve = curve_of(result.select("connections"))
    found = []
    for point in from_compared(result, result.select("units")):
        at = on_curve(curve, reduction(point))
        if at is None:
            continue
        value, source = at
        units = accuracy_of(point)
        found.append(
            UnitRow(
                parameter=parameter(point),
                reduction=percent(reduction(point)),
                units=percent(units),
                connections=percent(value),
                interpolated=len(source) > 1,
                source=" and ".join(source),
                gap=units - value,
            )
        )
    return found


def compare_shapes(result: ExperimentResult) -> list[ShapeRow]:
    """Set each small model against the unit-pruned network of the same shape."""
    return [
        ShapeRow(
            parameter=parameter(units),
            reduction=percent(reduction(units)),
            units=percent(accuracy_of(units)),
            small=percent(accuracy_of(small)),
            difference=percent(accuracy_of(small) - accuracy_of(units)),
        )
        for units, small in same_shapes(result)
    ]


def accuracy_of(point: Point) -> Fraction:
    """Return a point's exact share of right answers, after its last round."""
    return accuracy(point.rounds[-1].after)


def from_compared(result: ExperimentResult, points: Sequence[Point]) -> list[Point]:
    """Return the points whose reduction is at least `compared_from`."""
    return [point for point in points if reduction(point) >= compared_from(result)]


Knot = tuple[Fraction, Fraction, str]
"""Reduction, accuracy, and the name of what was measured there."""


def curve_of(points: Sequence[Point]) -> list[Knot]:
    """Return knots by rising reduction; equal reductions become their mean."""
    groups: dict[Fraction, list[Point]] = defaultdict(list)
    for point in points:
        groups[reduction(point)].append(point)
    return [
        (
            rate,
            sum((accuracy_of(point) for point in group), Fraction(0)) / len(group),
            _named(group),
        )
        for rate, group in sorted(groups.items())
    ]


def _named(points: Sequence[Point]) -> str:
    named = ", ".join(map(parameter, points[:_MOST_NAMED]))
    more = len(points) - _MOST_NAMED
    return f"{named} and {more:,} more" if more > 0 else named


def on_curve(curve: Sequence[Knot], rate: Fraction) -> tuple[Fraction, tuple[str, ...]] | None:
    """Return the curve's accuracy at ``rate`` and the knots it comes from; None beyond its ends."""
    place = bisect_left(curve, rate, key=lambda knot: knot[0])
    if place < len(curve) and curve[place][0] == rate:
        return curve[place][1], (curve[place][2],)
    if not 0 < place < len(curve):
        return None
    (low, first, left), (high, second, right) = curve[place - 1 : place + 1]
    return first + (second - first) * (rate - low) / (high - low), (left, right)


def same_shapes(result: ExperimentResult) -> list[tuple[Point, Point]]:
    """Return pairs of a unit-pruned network and the best small model of its shape."""
    shapes: dict[frozenset[tuple[str, int]], Point] = {}
    for point in result.select("small"):
        shape = frozenset((point.units or {}).items())
        if shape not in shapes or accuracy_of(point) > accuracy_of(shapes[shape]):
            shapes[shape] = point
    pairs = []
    for point in result.select("units"):
        small = shapes.get(frozenset((point.units or {}).items()))
        if small is not None:
            pairs.append((point, small))
    return pairs
