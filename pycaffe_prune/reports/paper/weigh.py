"""What a claim rests on: nets compared with others, and the verdict on several comparisons."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import hypot
from typing import Literal

from pycaffe_prune.experiments.result import ExperimentResult, Point
from pycaffe_prune.formats.right_answers import unpack_answers
from pycaffe_prune.reports.once import once
from pycaffe_prune.reports.rows import parameter, percent, reduction
from pycaffe_prune.reports.uncertainty.intervals import LEVEL, Interval
from pycaffe_prune.reports.uncertainty.trials import (
    Comparison,
    Side,
    Trial,
    compare,
    mean_accuracy,
    side_of,
)

__all__ = [
    "Net",
    "Verdict",
    "around",
    "from_reduction",
    "hull",
    "less_loss",
    "nets_of",
    "noise_note",
    "shown_interval",
    "shown_net",
    "trial_of",
    "verdict_on_all",
    "verdict_on_one",
]

Verdict = Literal["reproduced", "not reproduced", "within noise", "not run"]


@dataclass(frozen=True)
class Net:
    """A method's net of one setting, of one seed or of several."""

    name: str
    reduction: Fraction
    """Of several seeds the least."""
    units: frozenset[tuple[str, int]]
    trials: tuple[Trial, ...]
    baselines: tuple[Trial, ...]
    """The unpruned nets that they were made from, or are compared with."""

    @property
    def accuracy(self) -> Fraction:
        """The mean over the seeds."""
        return mean_accuracy(self.trials)

    def against_baseline(self, level: float = LEVEL) -> Comparison:
        """Return what the net has more than its baseline."""
        return compare(self.trials, self.baselines, level)


def trial_of(point: Point) -> Trial:
    """Return a point's last test."""
    score = point.rounds[-1].after
    counted = (score.images if score.counted is None else score.counted) or 1
    text = score.right_answers
    right = None if text is None else unpack_answers(text, score.images)
    return Trial(point.seed, score.correct, counted, right)


def nets_of(result: ExperimentResult, method: str) -> Sequence[Net]:
    """Return a method's nets by rising reduction, all seeds of one setting together."""
    return _all_nets(result).get(method, ())


@once
def _all_nets(result: ExperimentResult) -> Mapping[str, Sequence[Net]]:
    tops = result.select("baseline")
    by_seed = {top.seed: trial_of(top) for top in reversed(tops)}
    first = trial_of(tops[0]) if tops else None
    settings: dict[object, list[Point]] = {}
    for point in result.points:
        units = frozenset((point.units or {}).items())
        settings.setdefault((point.method, point.setting, units), []).append(point)
    found: dict[str, list[Net]] = {}
    for points in settings.values():
        tops_beside = (by_seed.get(point.seed, first) for point in points)
        beside = {top.seed: top for top in tops_beside if top is not None}
        net = _net(points, tuple(beside.values()))
        found.setdefault(points[0].method, []).append(net)
    return {name: sorted(nets, key=lambda net: net.reduction) for name, nets in found.items()}


def _net(points: Sequence[Point], baselines: tuple[Trial, ...]) -> Net:
    return Net(
        name=parameter(points[0]),
        reduction=min(map(reduction, points)),
        units=frozenset((points[0].units or {}).items()),
        trials=tuple(map(trial_of, points)),
        baselines=baselines,
    )


def from_reduction(nets: Sequence[Net], least: Fraction) -> list[Net]:
    """Return the nets of at least this reduction."""
    return [net for net in nets if net.reduction >= least]


def around(nets: Sequence[Net], at: Fraction) -> tuple[Net, ...]:
    """Return the nets on both sides of a reduction; the one that has it; none beyond the ends.

    Args:
        nets: By rising reduction.
        at: The reduction.
    """
    place = bisect_right(nets, at, key=lambda net: net.reduction)
    if place and nets[place - 1].reduction == at:
        return (nets[place - 1],)
    return (nets[place - 1], nets[place]) if 0 < place < len(nets) else ()


def hull(intervals: Sequence[Interval]) -> Interval:
    """Return the least interval that holds one or more others."""
    return Interval(min(one.low for one in intervals), max(one.high for one in intervals))


def less_loss(one: Comparison, other: Comparison) -> Interval:
    """Return the interval of the loss of ``one`` minus the loss of ``other``.

    Args:
        one: A net minus its baseline.
        other: The same of another network, whose noise is its own.
    """
    difference = float(other.difference - one.difference)
    down = (one.interval.high - one.difference, other.difference - other.interval.low)
    up = (one.difference - one.interval.low, other.interval.high - other.difference)
    return Interval(difference - hypot(*map(float, down)), difference + hypot(*map(float, up)))


def verdict_on_one(side: Side, wanted: Side) -> Verdict:
    """Return the verdict where one comparison decides."""
    if side == "within noise":
        return "within noise"
    return "reproduced" if side == wanted else "not reproduced"


def verdict_on_all(
    intervals: Sequence[Interval], wanted: Side, threshold: Fraction | float = 0
) -> Verdict:
    """Return the verdict on a claim about several nets.

    One net that is clearly on the other side refutes it; more than half that are clearly on this
    side, and none on the other, bear it out.
    """
    sides = [side_of(interval, threshold) for interval in intervals]
    agreeing = sides.count(wanted)
    if agreeing + sides.count("within noise") < len(sides):
        return "not reproduced"
    return "reproduced" if 2 * agreeing > len(sides) else "within noise"


def noise_note(result: ExperimentResult) -> str:
    """Say what the verdicts on a result count as noise."""
    known = all(point.rounds[-1].after.right_answers is not None for point in result.points)
    by_image = (
        "networks are compared image by image"
        if known
        else "it is not known which images each network got right, so two networks are compared "
        "as if their test images were others, which leaves more open"
    )
    return (
        "Verdicts count noise: intervals hold at 95 %, over the test images and over the seeds "
        f"where there are several; {by_image}. Within noise: neither is clear."
    )


def shown_interval(interval: Interval) -> str:
    """Return an interval of a difference in points."""
    return f"{percent(interval.low):+.2f} to {percent(interval.high):+.2f}"


def shown_net(net: Net) -> str:
    """Return a net's accuracy, reduction and setting."""
    return (
        f"{percent(net.accuracy):.2f} % at a reduction of {percent(net.reduction):.2f} % "
        f"({net.name})"
    )
