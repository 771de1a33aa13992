"""Ours beside the paper: each claim judged by a stated rule, with the numbers it rests on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import takewhile
from statistics import median
from typing import Literal, NamedTuple

from pycaffe_prune.experiments.result import ExperimentResult, Point
from pycaffe_prune.reports.once import once
from pycaffe_prune.reports.paper.claims import CLAIMS, CROSS_CLAIMS, Claim
from pycaffe_prune.reports.paper.compare import (
    accuracy_of,
    compare_units,
    curve_of,
    from_compared,
    losses,
    on_curve,
    same_shapes,
    why_not_comparable,
)
from pycaffe_prune.reports.paper.table5 import judge_predicted, judge_rows
from pycaffe_prune.reports.rows import (
    baseline_of,
    papers_accuracy,
    parameter,
    percent,
    reduction,
)

__all__ = ["Judged", "Verdict", "judge", "judge_together", "kept_up_to"]

Verdict = Literal["reproduced", "not reproduced", "not run"]

_HALF_POINT = Fraction("0.005")
_POINT = Fraction("0.01")
_SLACK = Fraction("0.001")  # how far small models may lie below unit pruning and still equal it


@dataclass(frozen=True)
class Judged:
    """A claim of the paper with our verdict, the numbers and the rule in words."""

    claim: Claim
    verdict: Verdict
    ours: str
    rule: str


_Finding = tuple[Verdict, str]


class _Rule(NamedTuple):
    text: str
    test: Callable[[ExperimentResult], _Finding]


@once
def judge(result: ExperimentResult) -> Sequence[Judged]:
    """Judge every claim that the paper makes about this experiment; none for unknown ones."""
    return [_judge(claim, result) for claim in CLAIMS.get(result.experiment, ())]


def _judge(claim: Claim, result: ExperimentResult) -> Judged:
    rule, test = _RULES[claim.name]
    reason = why_not_comparable(result)
    verdict, ours = test(result) if reason is None else ("not run", reason)
    return Judged(claim, verdict, ours, rule)


def judge_together(results: Sequence[ExperimentResult]) -> list[Judged]:
    """Judge the claims about two experiments of which at least one is among ``results``.

    Of several results of one experiment the first counts.
    """
    first: dict[str, ExperimentResult] = {}
    for result in results:
        first.setdefault(result.experiment, result)
    found = []
    for claim, names in CROSS_CLAIMS.items():
        if not first.keys() & set(names):
            continue
        less, more = (first.get(name) for name in names)
        if less is None or more is None:
            missing = names[0] if less is None else names[1]
            finding: _Finding = ("not run", f"Needs a result of {missing} beside this one.")
        else:
            finding = _judge_losses(less, more)
        found.append(Judged(claim, *finding, _LOSES_LESS))
    return found


def _verdict(held: bool) -> Verdict:
    return "reproduced" if held else "not reproduced"


def _show(point: Point) -> str:
    return (
        f"{percent(accuracy_of(point)):.2f} % at a reduction of {percent(reduction(point)):.2f} % "
        f"({parameter(point)})"
    )


def _baseline(result: ExperimentResult) -> Fraction:
    return accuracy_of(result.baseline)


def _at_least(least: str) -> _Rule:
    """The unpruned network reaches ``least`` %."""

    def test(result: ExperimentResult) -> _Finding:
        seeds = [point for point in result.points if point.method == "baseline"]
        of = "one seed" if len(seeds) == 1 else f"best of {len(seeds)} seeds"
        value = papers_accuracy(result.baseline)
        return _verdict(value * 100 >= Fraction(least)), f"Measured: {percent(value):.2f} % ({of})."

    return _Rule(f"The unpruned network reaches at least {least} %.", test)


def _judge_connections(result: ExperimentResult) -> _Finding:
    points = from_compared(result, result.select("connections"))
    if not points:
        return "not run", "No connection-pruned point has a reduction of 90 % or more."
    top = _baseline(result)
    held = [point for point in points if top - accuracy_of(point) <= _HALF_POINT]
    shown = max(held or points, key=lambda point: (accuracy_of(point), reduction(point)))
    return _verdict(bool(held)), (
        f"{len(held)} of {len(points)} measured points from 90 % on lose at most 0.5 points; the "
        f"best: {_show(shown)}, baseline {percent(top):.2f} % "
        f"({percent(accuracy_of(shown) - top):+.2f} points)."
    )


def _judge_units_below(result: ExperimentResult) -> _Finding:
    found = compare_units(result)
    points = from_compared(result, result.select("units"))
    if not found:
        return "not run", (
            f"None of the {len(points)} unit-pruned points from 90 % on lies within the measured "
            "connection curve."
        )
    below = sum(row.below for row in found)
    interpolated = sum(row.interpolated for row in found)
    gaps = [percent(-row.gap) for row in found]
    return _verdict(below == len(found)), (
        f"Below at {below} of {len(found)} points ({len(points) - len(found)} more lie outside "
        f"the overlap). Connections minus units: {min(gaps):+.2f} to {max(gaps):+.2f} points; the "
        f"connection value is interpolated between measured points at {interpolated} of the "
        f"{len(found)} and measured at {len(found) - interpolated}."
    )


def _judge_units_above(result: ExperimentResult) -> _Finding:
    found = compare_units(result)
    if not found:
        return "not run", "No unit-pruned point from 80 % on lies within the connection curve."
    mean = sum((row.gap for row in found), Fraction(0)) / len(found)
    above = sum(row.gap > 0 for row in found)
    gaps = [percent(row.gap) for row in found]
    images = result.baseline.rounds[-1].after.images
    return _verdict(mean > 0 and 2 * above > len(found)), (
        f"Above at {above} of {len(found)} points; units minus connections: mean "
        f"{percent(mean):+.2f} points, {min(gaps):+.2f} to {max(gaps):+.2f}. One of the "
        f"{images:,} test images is {100 / images:.2f} points."
    )


def _judge_all_below(result: ExperimentResult) -> _Finding:
    pruned = [*result.select("connections"), *result.select("units")]
    points = from_compared(result, pruned)
    if not points:
        return "not run", "No pruned network has a reduction of 80 % or more."
    below = [point for point in points if accuracy_of(point) < _baseline(result)]
    top = max(points, key=accuracy_of)
    return _verdict(len(below) == len(points)), (
        f"{len(below)} of {len(points)} lie below {percent(_baseline(result)):.2f} %; the best: "
        f"{result.title_of(top.method)}, {_show(top)}."
    )


def _judge_small(result: ExperimentResult) -> _Finding:
    pairs = same_shapes(result)
    if not pairs:
        return "not run", "No small model has the shape of a unit-pruned network."
    differences = [accuracy_of(small) - accuracy_of(units) for units, small in pairs]
    mean = sum(differences, Fraction(0)) / len(differences)
    listed = ", ".join(
        f"{percent(gap):+.2f} ({parameter(units)})"
        for gap, (units, _) in zip(differences, pairs, strict=True)
    )
    return _verdict(mean >= -_SLACK), (
        f"Measured: mean difference {percent(mean):+.2f} points over {len(pairs)} shapes: {listed}."
    )


def _kept(result: ExperimentResult, points: Sequence[Point], loss: Fraction) -> list[Point]:
    """The points, by rising reduction, before the first that loses more than ``loss``."""
    top = _baseline(result)
    return list(takewhile(lambda point: top - accuracy_of(point) <= loss, points))


def kept_up_to(result: ExperimentResult) -> Fraction | None:
    """Return the reduction up to which connection pruning loses at most 0.5 points; None: at none.

    That of the last measured point, by rising reduction, before the first that loses more.
    """
    if baseline_of(result) is None:
        return None
    kept = _kept(result, result.select("connections"), _HALF_POINT)
    return reduction(kept[-1]) if kept else None


def _judge_keeps(result: ExperimentResult) -> _Finding:
    points = result.select("connections")
    if not points:
        return "not run", "The result holds no connection-pruned point."
    kept = _kept(result, points, _HALF_POINT)
    if not kept:
        return "not reproduced", f"Already the first measured point loses more: {_show(points[0])}."
    ours = f"Measured: up to {percent(reduction(kept[-1])):.2f} % ({parameter(kept[-1])})."
    curve = curve_of([kept[-1], *points[len(kept) : len(kept) + 1]])
    if len(curve) > 1:
        (low, first, _), (high, second, _) = curve
        share = (first - (_baseline(result) - _HALF_POINT)) / (first - second)
        ours += f" Interpolated to the next point: {percent(low + (high - low) * share):.2f} %."
    return "reproduced", f"{ours} {_units_keep(result)}"


def _units_keep(result: ExperimentResult) -> str:
    points = result.select("units")
    kept = _kept(result, points, _HALF_POINT)
    if kept:
        return f"Unit pruning, measured: up to {percent(reduction(kept[-1])):.2f} %."
    if points:
        return f"Unit pruning loses more at its first point already: {_show(points[0])}."
    return "Unit pruning was not run."


def _judge_one_point(result: ExperimentResult) -> _Finding:
    points = result.select("connections")
    if not points or reduction(points[-1]) < Fraction("0.9"):
        return "not run", "No connection-pruned network has a reduction of 90 % or more."
    kept = _kept(result, points, _POINT)
    top = f"baseline {percent(_baseline(result)):.2f} %"
    if not kept:
        return "not reproduced", f"Already the first loses more: {_show(points[0])}, {top}."
    return _verdict(reduction(kept[-1]) >= Fraction("0.9")), (
        f"Measured: up to {percent(reduction(kept[-1])):.2f} % ({_show(kept[-1])}; {top})."
    )


def _judge_losses(less: ExperimentResult, more: ExperimentResult) -> _Finding:
    for result in (less, more):
        reason = why_not_comparable(result)
        if reason is not None:
            return "not run", f"{result.title}: {reason}"
    held, told = [], []
    for method in ("connections", "units"):
        other = losses(more.select(method), more.baseline)
        own = losses(from_compared(less, less.select(method)), less.baseline)
        pairs = [(loss, on_curve(other, rate)) for rate, loss, _ in own]
        gaps = [loss - at[0] for loss, at in pairs if at is not None]
        if gaps:
            held.append(median(gaps) < 0)
            told.append(
                f"{less.title_of(method)}: less at {sum(gap < 0 for gap in gaps)} of {len(gaps)} "
                f"points, {less.title}'s loss minus {more.title}'s: median "
                f"{percent(median(gaps)):+.2f} points ({percent(min(gaps)):+.2f} to "
                f"{percent(max(gaps)):+.2f})"
            )
    if not held:
        return "not run", "The two results have no reduction from 90 % on in common."
    presets = f"{less.title} {less.preset}, {more.title} {more.preset}"
    return _verdict(all(held)), f"{'; '.join(told)}. Presets: {presets}."


_LOSES_LESS = (
    "At every measured LeNet-5 point with a reduction of 90 % or more, the loss against its own "
    "baseline is set against LeNet-300-100's at the same reduction (a straight line between "
    "measured points, nothing beyond the ends). The claim holds when the median difference is "
    "below zero for each method that both have."
)

_RULES = {
    "baseline-300-100": _at_least("97.5"),
    "baseline-5": _at_least("98.9"),
    "baseline-caffenet": _at_least("90.8"),
    "connections-90": _Rule(
        "At least one measured connection-pruned point with a reduction of 90 % or more lies at "
        "most 0.5 points below our baseline.",
        _judge_connections,
    ),
    "units-below": _Rule(
        "Every unit-pruned point with a reduction of 90 % or more lies below the connection "
        "curve. Between its measured points the curve is a straight line; unit points beyond its "
        "ends are not compared.",
        _judge_units_below,
    ),
    "units-above": _Rule(
        "Over the unit-pruned points with a reduction of 80 % or more, unit pruning minus the "
        "connection curve is above zero on average and at more than half of the points. Between "
        "measured points the curve is a straight line; nothing is compared beyond its ends.",
        _judge_units_above,
    ),
    "all-below": _Rule(
        "Every measured pruned network with a reduction of 80 % or more is less accurate than our "
        "baseline.",
        _judge_all_below,
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
    "keeps-one-point": _Rule(
        "The last measured point, by rising reduction, before the first that lies more than 1 "
        "point below our baseline has a reduction of 90 % or more.",
        _judge_one_point,
    ),
    "table-5": _Rule(
        "A row is reproduced when each of its four rates lies within 1 point of ours and the "
        "accuracy lost against the own baseline within 0.5 points. The claim holds when all 14 "
        "rows are; rows that were not run leave it open unless another row failed.",
        judge_rows,
    ),
    "table-5-predicted": _Rule(
        "In every row the predicted rate of each FC layer lies within 2 points of table 5.",
        judge_predicted,
    ),
}
