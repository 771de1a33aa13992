"""Ours beside the paper's: each claim judged by a stated rule, and the numbers it rests on.

All comparisons are made on exact fractions (correct of images, kept of weights): a verdict changes
sides exactly at its threshold, whatever the rounding of the numbers that are shown.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise, takewhile
from typing import Literal, NamedTuple

from pycaffe_prune.experiments.result import ExperimentResult, Point
from pycaffe_prune.reports.paper import CLAIMS, Claim
from pycaffe_prune.reports.rows import accuracy, baseline_of, parameter, percent, reduction

__all__ = [
    "LOSS_POINTS",
    "MIN_BASELINE",
    "MIN_REDUCTION",
    "SMALL_MODEL_SLACK",
    "Judged",
    "ShapeRow",
    "UnitRow",
    "Verdict",
    "compare_shapes",
    "compare_units",
    "judge",
]

Verdict = Literal["reproduced", "not reproduced", "not run"]

MIN_BASELINE = Fraction("0.975")
"""The least accuracy of the unpruned network."""
LOSS_POINTS = Fraction("0.005")
"""What counts as keeping the baseline's accuracy."""
MIN_REDUCTION = Fraction("0.9")
"""Reduction from which methods are compared."""
SMALL_MODEL_SLACK = Fraction("0.001")
"""How far the small models may lie below unit pruning on average and still equal it."""


@dataclass(frozen=True)
class Judged:
    """A claim of the paper with our verdict, the numbers and the rule in words."""

    claim: Claim
    verdict: Verdict
    ours: str
    rule: str


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
    below: bool
    """Unit pruning lies below."""


@dataclass(frozen=True)
class ShapeRow:
    """A small model against unit pruning at the same shape; accuracies in %."""

    parameter: str
    reduction: float
    units: float
    small: float
    difference: float
    """Small model minus unit pruning, in points."""


def judge(result: ExperimentResult) -> list[Judged]:
    """Judge every claim that the paper makes about this experiment; none for unknown ones."""
    return [_judge(claim, result) for claim in CLAIMS.get(result.experiment, ())]


def _judge(claim: Claim, result: ExperimentResult) -> Judged:
    rule, test = _RULES[claim.name]
    reason = _why_not(result)
    verdict, ours = test(result) if reason is None else ("not run", reason)
    return Judged(claim, verdict, ours, rule)


def _why_not(result: ExperimentResult) -> str | None:
    if result.data.is_sample:
        return "The bundled sample is not MNIST; its numbers cannot be held against the paper's."
    if baseline_of(result) is None:
        return "The result holds no baseline."
    return None


def compare_units(result: ExperimentResult) -> list[UnitRow]:
    """Set each unit point of 90 % reduction or more against the connection curve.

    The curve is a straight line between measured points; unit points outside its reach are left
    out, nothing is extrapolated.
    """
    curve = _curve(result.select("connections"))
    found = []
    for point in _from_90(result.select("units")):
        at = _on_curve(curve, reduction(point))
        if at is None:
            continue
        value, source = at
        units = _accuracy(point)
        found.append(
            UnitRow(
                parameter=parameter(point),
                reduction=percent(reduction(point)),
                units=percent(units),
                connections=percent(value),
                interpolated=len(source) > 1,
                source=" and ".join(source),
                below=units < value,
            )
        )
    return found


def compare_shapes(result: ExperimentResult) -> list[ShapeRow]:
    """Set each small model against the unit-pruned network of the same shape."""
    return [
        ShapeRow(
            parameter=parameter(units),
            reduction=percent(reduction(units)),
            units=percent(_accuracy(units)),
            small=percent(_accuracy(small)),
            difference=percent(_accuracy(small) - _accuracy(units)),
        )
        for units, small in _same_shapes(result)
    ]


def _accuracy(point: Point) -> Fraction:
    return accuracy(point.rounds[-1].after)


def _from_90(points: Sequence[Point]) -> list[Point]:
    return [point for point in points if reduction(point) >= MIN_REDUCTION]


def _baseline(result: ExperimentResult) -> Fraction:
    return _accuracy(result.baseline)


_Knot = tuple[Fraction, Fraction, str]


def _curve(points: Sequence[Point]) -> list[_Knot]:
    """Reduction, accuracy and name by rising reduction; equal reductions become their mean."""
    groups: dict[Fraction, list[Point]] = defaultdict(list)
    for point in points:
        groups[reduction(point)].append(point)
    return [
        (
            rate,
            sum((_accuracy(point) for point in group), Fraction(0)) / len(group),
            ", ".join(parameter(point) for point in group),
        )
        for rate, group in sorted(groups.items())
    ]


def _on_curve(curve: Sequence[_Knot], rate: Fraction) -> tuple[Fraction, tuple[str, ...]] | None:
    """The curve's accuracy at ``rate`` and the knots it comes from; None beyond its ends."""
    for at, value, name in curve:
        if at == rate:
            return value, (name,)
    for (low, first, left), (high, second, right) in pairwise(curve):
        if low < rate < high:
            return first + (second - first) * (rate - low) / (high - low), (left, right)
    return None


def _same_shapes(result: ExperimentResult) -> list[tuple[Point, Point]]:
    shapes: dict[frozenset[tuple[str, int]], Point] = {}
    for point in result.select("small"):
        shape = frozenset((point.units or {}).items())
        if shape not in shapes or _accuracy(point) > _accuracy(shapes[shape]):
            shapes[shape] = point
    pairs = []
    for point in result.select("units"):
        small = shapes.get(frozenset((point.units or {}).items()))
        if small is not None:
            pairs.append((point, small))
    return pairs


class _Rule(NamedTuple):
    text: str
    test: Callable[[ExperimentResult], tuple[Verdict, str]]


def _verdict(held: bool) -> Verdict:
    return "reproduced" if held else "not reproduced"


def _show(point: Point) -> str:
    return (
        f"{percent(_accuracy(point)):.2f} % at a reduction of {percent(reduction(point)):.2f} % "
        f"({parameter(point)})"
    )


def _judge_baseline(result: ExperimentResult) -> tuple[Verdict, str]:
    seeds = [point for point in result.points if point.method == "baseline"]
    of = "one seed" if len(seeds) == 1 else f"best of {len(seeds)} seeds"
    value = _baseline(result)
    return _verdict(value >= MIN_BASELINE), f"Measured: {percent(value):.2f} % ({of})."


def _judge_connections(result: ExperimentResult) -> tuple[Verdict, str]:
    points = _from_90(result.select("connections"))
    if not points:
        return "not run", "No connection-pruned point has a reduction of 90 % or more."
    top = _baseline(result)
    held = [point for point in points if top - _accuracy(point) <= LOSS_POINTS]
    shown = max(held or points, key=lambda point: (_accuracy(point), reduction(point)))
    return _verdict(bool(held)), (
        f"{len(held)} of {len(points)} measured points from 90 % on lose at most 0.5 points; the "
        f"best: {_show(shown)}, baseline {percent(top):.2f} % "
        f"({percent(_accuracy(shown) - top):+.2f} points)."
    )


def _judge_units(result: ExperimentResult) -> tuple[Verdict, str]:
    found = compare_units(result)
    points = _from_90(result.select("units"))
    if not found:
        return "not run", (
            f"None of the {len(points)} unit-pruned points from 90 % on lies within the measured "
            "connection curve."
        )
    below = sum(row.below for row in found)
    interpolated = sum(row.interpolated for row in found)
    gaps = [row.connections - row.units for row in found]
    return _verdict(below == len(found)), (
        f"Below at {below} of {len(found)} points ({len(points) - len(found)} more lie outside "
        f"the overlap). Connections minus units: {min(gaps):+.2f} to {max(gaps):+.2f} points; the "
        f"connection value is interpolated between measured points at {interpolated} of the "
        f"{len(found)} and measured at {len(found) - interpolated}."
    )


def _judge_small(result: ExperimentResult) -> tuple[Verdict, str]:
    pairs = _same_shapes(result)
    if not pairs:
        return "not run", "No small model has the shape of a unit-pruned network."
    differences = [_accuracy(small) - _accuracy(units) for units, small in pairs]
    mean = sum(differences, Fraction(0)) / len(differences)
    listed = ", ".join(
        f"{percent(gap):+.2f} ({parameter(units)})"
        for gap, (units, _) in zip(differences, pairs, strict=True)
    )
    return _verdict(mean >= -SMALL_MODEL_SLACK), (
        f"Measured: mean difference {percent(mean):+.2f} points over {len(pairs)} shapes: {listed}."
    )


def _kept(result: ExperimentResult, points: Sequence[Point]) -> list[Point]:
    """The points, by rising reduction, before the first that loses more than 0.5 points."""
    top = _baseline(result)
    return list(takewhile(lambda point: top - _accuracy(point) <= LOSS_POINTS, points))


def _judge_keeps(result: ExperimentResult) -> tuple[Verdict, str]:
    points = result.select("connections")
    if not points:
        return "not run", "The result holds no connection-pruned point."
    kept = _kept(result, points)
    if not kept:
        return "not reproduced", f"Already the first measured point loses more: {_show(points[0])}."
    ours = f"Measured: up to {percent(reduction(kept[-1])):.2f} % ({parameter(kept[-1])})."
    curve = _curve([kept[-1], *points[len(kept) : len(kept) + 1]])
    if len(curve) > 1:
        (low, first, _), (high, second, _) = curve
        share = (first - (_baseline(result) - LOSS_POINTS)) / (first - second)
        ours += f" Interpolated to the next point: {percent(low + (high - low) * share):.2f} %."
    return "reproduced", f"{ours} {_units_keep(result)}"


def _units_keep(result: ExperimentResult) -> str:
    points = result.select("units")
    kept = _kept(result, points)
    if kept:
        last = kept[-1]
        return f"Unit pruning, measured: up to {percent(reduction(last)):.2f} %."
    if points:
        return f"Unit pruning loses more at its first point already: {_show(points[0])}."
    return "Unit pruning was not run."


_RULES = {
    "baseline": _Rule("The unpruned network reaches at least 97.5 %.", _judge_baseline),
    "connections-90": _Rule(
        "At least one measured connection-pruned point with a reduction of 90 % or more lies at "
        "most 0.5 points below our baseline.",
        _judge_connections,
    ),
    "units-below": _Rule(
        "Every unit-pruned point with a reduction of 90 % or more lies below the connection "
        "curve. Between its measured points the curve is a straight line; unit points beyond its "
        "ends are not compared.",
        _judge_units,
    ),
    "small-model": _Rule(
        "The mean of small model minus unit pruning, over all shapes that both have, is at least "
        "-0.1 points.",
        _judge_small,
    ),
    "keeps-baseline": _Rule(
        "The rate is that of the last measured point, by rising reduction, before the first that "
        "lies more than 0.5 points below our baseline; the claim holds when there is one.",
        _judge_keeps,
    ),
}
