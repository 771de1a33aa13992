"""Ours beside the paper: each claim judged by a stated rule, with the numbers it rests on.

Which intervals are taken, and why, is said in ``docs/verdicts.md``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import takewhile
from typing import NamedTuple

from pycaffe_prune.experiments.result import ExperimentResult
from pycaffe_prune.reports.once import once
from pycaffe_prune.reports.paper.claims import CLAIMS, CROSS_CLAIMS, Claim
from pycaffe_prune.reports.paper.compare import (
    accuracy_of,
    compared_from,
    why_not_comparable,
)
from pycaffe_prune.reports.paper.table5 import judge_predicted, judge_rows
from pycaffe_prune.reports.paper.weigh import (
    Net,
    Verdict,
    around,
    from_reduction,
    hull,
    less_loss,
    nets_of,
    shown_interval,
    shown_net,
    verdict_on_all,
    verdict_on_one,
)
from pycaffe_prune.reports.rows import baseline_of, papers_accuracy, percent, reduction
from pycaffe_prune.reports.uncertainty.intervals import Interval, t_interval, wilson
from pycaffe_prune.reports.uncertainty.trials import Side, compare, shared_level, side_of

__all__ = ["Judged", "Verdict", "judge", "judge_together", "kept_up_to"]

_HALF_POINT = Fraction("0.005")
_POINT = Fraction("0.01")
_NINETY = Fraction("0.9")
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


def _at_least(least: str) -> _Rule:
    """The unpruned network reaches ``least`` %."""

    def test(result: ExperimentResult) -> _Finding:
        shares = [papers_accuracy(one) for one in result.points if one.method == "baseline"]
        middle = sum(shares, Fraction(0)) / len(shares)
        images = result.baseline.rounds[-1].after.images
        if len(shares) > 1:
            interval, of = t_interval([*map(float, shares)]), f"mean of {len(shares)} seeds"
        else:
            interval, of = wilson(float(middle * images), images), "one seed"
        best = percent(papers_accuracy(result.baseline))
        return verdict_on_one(side_of(interval, Fraction(least) / 100), "above"), (
            f"Measured: {percent(middle):.2f} % ({of}; {percent(interval.low):.2f} to "
            f"{percent(interval.high):.2f} %); the one that was pruned: {best:.2f} %."
        )

    return _Rule(
        f"The unpruned network reaches at least {least} %: the interval of the mean over the seeds "
        "(with one seed Wilson's, over the images) lies above or below that.",
        test,
    )


def _judge_connections(result: ExperimentResult) -> _Finding:
    nets = from_reduction(nets_of(result, "connections"), compared_from(result))
    if not nets:
        return "not run", "No connection-pruned point has a reduction of 90 % or more."
    found = nets[0].against_baseline()
    return verdict_on_one(side_of(found.interval, -_HALF_POINT), "above"), (
        f"{shown_net(nets[0])}, to the baseline {percent(found.difference):+.2f} points "
        f"({shown_interval(found.interval)})."
    )


class _Against(NamedTuple):
    """Unit pruning minus the connection-pruned nets on both sides of its reduction."""

    net: Net
    low: float
    """The measured differences, least and greatest."""
    high: float
    interval: Interval


def _against_connections(result: ExperimentResult) -> list[_Against]:
    connections = nets_of(result, "connections")
    pairs = [
        (net, around(connections, net.reduction))
        for net in from_reduction(nets_of(result, "units"), compared_from(result))
    ]
    compared = [(net, beside) for net, beside in pairs if beside]
    found = []
    for net, beside in compared:
        level = shared_level(len(compared))
        rows = [compare(net.trials, other.trials, level) for other in beside]
        gaps = [float(row.difference) for row in rows]
        interval = hull([row.interval for row in rows])
        found.append(_Against(net, min(gaps), max(gaps), interval))
    return found


def _judge_units(wanted: Side) -> Callable[[ExperimentResult], _Finding]:
    def test(result: ExperimentResult) -> _Finding:
        found = _against_connections(result)
        if not found:
            least = percent(compared_from(result))
            return "not run", (
                f"No unit-pruned point from {least:.0f} % on lies within the connection curve."
            )
        intervals = [row.interval for row in found]
        low, high = min(row.low for row in found), max(row.high for row in found)
        return verdict_on_all(intervals, wanted), (
            f"{_tally(intervals, 'connection pruning')}. Measured, units minus connections: "
            f"{percent(low):+.2f} to {percent(high):+.2f} points."
        )

    return test


def _tally(intervals: Sequence[Interval], what: str, threshold: Fraction | float = 0) -> str:
    """How many comparisons are clear: of which ``what`` lies below, above, or is within noise."""
    sides = [side_of(interval, threshold) for interval in intervals]
    return (
        f"Of {len(sides)} compared, {sides.count('below')} clearly below {what}, "
        f"{sides.count('above')} clearly above, {sides.count('within noise')} within noise"
    )


def _judge_all_below(result: ExperimentResult) -> _Finding:
    pruned = [(nets_of(result, name), name) for name in ("connections", "units")]
    nets = [
        (net, name)
        for found, name in pruned
        for net in from_reduction(found, compared_from(result))
    ]
    if not nets:
        return "not run", "No pruned network has a reduction of 80 % or more."
    level = shared_level(len(nets))
    intervals = [net.against_baseline(level).interval for net, _ in nets]
    top, name = max(nets, key=lambda pair: pair[0].accuracy)
    baseline = percent(accuracy_of(result.baseline))
    return verdict_on_all(intervals, "below"), (
        f"{_tally(intervals, f'the baseline of {baseline:.2f} %')}; the best: "
        f"{result.title_of(name)}, {shown_net(top)}."
    )


def _judge_small(result: ExperimentResult) -> _Finding:
    shapes = {net.units: net for net in nets_of(result, "small")}
    pairs = [(net, shapes[net.units]) for net in nets_of(result, "units") if net.units in shapes]
    if not pairs:
        return "not run", "No small model has the shape of a unit-pruned network."
    level = shared_level(len(pairs))
    found = [compare(small.trials, units.trials, level) for units, small in pairs]
    intervals = [row.interval for row in found]
    listed = ", ".join(
        f"{percent(row.difference):+.2f} ({units.name})"
        for row, (units, _) in zip(found, pairs, strict=True)
    )
    return verdict_on_all(intervals, "above", -_SLACK), (
        f"{_tally(intervals, 'unit pruning less 0.1 points', -_SLACK)}. Measured, mean of the "
        f"small model's seeds minus unit pruning: {listed}."
    )


def kept_up_to(result: ExperimentResult) -> Fraction | None:
    """Return the reduction up to which connection pruning loses at most 0.5 points; None: at none.

    As measured, noise or not: that of the last point, by rising reduction, before the first that
    loses more.
    """
    if baseline_of(result) is None:
        return None
    least = accuracy_of(result.baseline) - _HALF_POINT
    points = result.select("connections")
    kept = list(takewhile(lambda point: accuracy_of(point) >= least, points))
    return reduction(kept[-1]) if kept else None


def _judge_keeps(result: ExperimentResult) -> _Finding:
    nets = nets_of(result, "connections")
    if not nets:
        return "not run", "The result holds no connection-pruned point."
    first = side_of(nets[0].against_baseline().interval, -_HALF_POINT)
    units = nets_of(result, "units")
    told = f"Connection pruning: {_kept(nets)}."
    told += f" Unit pruning: {_kept(units)}." if units else " Unit pruning was not run."
    return verdict_on_one(first, "above"), told


def _kept(nets: Sequence[Net]) -> str:
    sides = [side_of(net.against_baseline().interval, -_HALF_POINT) for net in nets]
    kept = len(list(takewhile(lambda side: side == "above", sides)))
    unsure = len(list(takewhile(lambda side: side != "below", sides)))
    clearly = (
        f"clearly up to {percent(nets[kept - 1].reduction):.2f} %" if kept else "clearly at none"
    )
    if unsure > kept:
        return f"{clearly}, within noise up to {percent(nets[unsure - 1].reduction):.2f} %"
    return clearly


def _judge_one_point(result: ExperimentResult) -> _Finding:
    nets = nets_of(result, "connections")
    at = next((place for place, net in enumerate(nets) if net.reduction >= _NINETY), None)
    if at is None:
        return "not run", "No connection-pruned network has a reduction of 90 % or more."
    found = [net.against_baseline(shared_level(at + 1)) for net in nets[: at + 1]]
    sides = [side_of(row.interval, -_POINT) for row in found]
    last = found[-1]
    verdict = "not reproduced" if "below" in sides else verdict_on_one(sides[-1], "above")
    return verdict, (
        f"{shown_net(nets[at])}, to the baseline {percent(last.difference):+.2f} points "
        f"({shown_interval(last.interval)}); of {at + 1} points up to there "
        f"{sides.count('below')} clearly lose more than 1 point."
    )


def _judge_losses(less: ExperimentResult, more: ExperimentResult) -> _Finding:
    for result in (less, more):
        reason = why_not_comparable(result)
        if reason is not None:
            return "not run", f"{result.title}: {reason}"
    verdicts, told = [], []
    for method in ("connections", "units"):
        own = from_reduction(nets_of(less, method), compared_from(less))
        pairs = [(net, around(nets_of(more, method), net.reduction)) for net in own]
        pairs = [(net, beside) for net, beside in pairs if beside]
        if pairs:
            level = shared_level(len(pairs))
            intervals = [
                hull(
                    [
                        less_loss(net.against_baseline(level), other.against_baseline(level))
                        for other in beside
                    ]
                )
                for net, beside in pairs
            ]
            verdicts.append(verdict_on_all(intervals, "below"))
            told.append(f"{less.title_of(method)}: {_tally(intervals, 'zero')}")
    if not verdicts:
        return "not run", "The two results have no reduction from 90 % on in common."
    presets = f"{less.title} {less.preset}, {more.title} {more.preset}"
    return _together(verdicts), (
        f"{less.title}'s loss minus {more.title}'s, by method. {'; '.join(told)}. "
        f"Presets: {presets}."
    )


def _together(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the verdict on a claim that is to hold for each of several methods."""
    if "not reproduced" in verdicts:
        return "not reproduced"
    return "within noise" if "within noise" in verdicts else "reproduced"


_BESIDE = (
    "against the connection-pruned networks on both sides of its reduction; nothing is compared "
    "beyond the ends."
)
_MOST = (
    "The claim holds when that is clear of more than half, and the opposite of none; it fails when "
    "the opposite is clear of one."
)
_LOSES_LESS = (
    "Every LeNet-5 network with a reduction of 90 % or more is to lose less against its own "
    "baseline than the LeNet-300-100 networks on both sides of its reduction. "
    f"{_MOST} It is to hold for each method that both have."
)

_RULES = {
    "baseline-300-100": _at_least("97.5"),
    "baseline-5": _at_least("98.9"),
    "baseline-caffenet": _at_least("90.8"),
    "connections-90": _Rule(
        "The connection-pruned network nearest to a reduction of 90 %, at it or beyond, clearly "
        "loses at most 0.5 points to our baseline.",
        _judge_connections,
    ),
    "units-below": _Rule(
        "Every unit-pruned network with a reduction of 90 % or more is to lie below, "
        f"{_BESIDE} {_MOST}",
        _judge_units("below"),
    ),
    "units-above": _Rule(
        "Every unit-pruned network with a reduction of 80 % or more is to lie above, "
        f"{_BESIDE} {_MOST}",
        _judge_units("above"),
    ),
    "all-below": _Rule(
        "Every pruned network with a reduction of 80 % or more is to lie below our baseline. "
        f"{_MOST}",
        _judge_all_below,
    ),
    "small-model": _Rule(
        "Of every shape that both have, the small model (the mean of its seeds) is to lie at most "
        f"0.1 points below unit pruning. {_MOST}",
        _judge_small,
    ),
    "keeps-baseline": _Rule(
        "The connection-pruned network with the least reduction clearly loses at most 0.5 points "
        "to our baseline; up to which reduction all do is told.",
        _judge_keeps,
    ),
    "keeps-one-point": _Rule(
        "The connection-pruned network nearest to a reduction of 90 %, at it or beyond, clearly "
        "loses at most 1 point to our baseline, and none with a lesser reduction clearly loses "
        "more.",
        _judge_one_point,
    ),
    "table-5": _Rule(
        "A row is reproduced when each of its four rates lies within 1 point of ours and the "
        "accuracy lost against the own baseline within 0.5 points, as printed: noise is not "
        "counted. The claim holds when all 14 rows are; rows that were not run leave it open "
        "unless another row failed.",
        judge_rows,
    ),
    "table-5-predicted": _Rule(
        "In every row the predicted rate of each FC layer lies within 2 points of table 5.",
        judge_predicted,
    ),
}
