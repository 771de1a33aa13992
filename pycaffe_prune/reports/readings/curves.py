"""A reading's curves: of each setting the mean over the pruning seeds, lowest and highest."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from pycaffe_prune.experiments.result import ExperimentResult, Round
from pycaffe_prune.reports.paper.figures_and_tables import Axis, Figure
from pycaffe_prune.reports.rows import Row, accuracy, parameter, percent, rows

__all__ = ["Reach", "Spot", "after_sets", "curve", "line_at", "reach"]


@dataclass(frozen=True)
class Spot:
    """One setting of a method, in %: the mean of its seeds, the lowest and the highest of them."""

    setting: str
    value: float | None
    """Of the setting, such as alpha; None: a number does not tell it."""
    seeds: int
    reduction: float
    accuracy: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class Reach:
    """How far to the right a curve can be followed in the paper's figure."""

    reduction: float
    """In %: where the curve falls through the lower end of the axis, on the straight line between
    two points, or the last point's."""
    leaves: bool
    """False: the curve ends within the axes."""


def curve(result: ExperimentResult, method: str) -> tuple[Spot, ...]:
    """Return what the paper would plot of a method, by rising reduction.

    Of several initialisations of which the best is reported (baseline, small model) it is that one.
    """
    alike: dict[str, list[Row]] = defaultdict(list)
    for row in rows(result):
        if row.selected and row.method == method:
            alike[row.parameter].append(row)
    values = {parameter(point): point.setting.value for point in result.select(method)}
    spots = [_spot(setting, values[setting], same) for setting, same in alike.items()]
    return tuple(sorted(spots, key=lambda spot: spot.reduction))


def _spot(setting: str, value: float | None, same: Sequence[Row]) -> Spot:
    found = [row.after for row in same]
    return Spot(
        setting=setting,
        value=value,
        seeds=len(same),
        reduction=fmean(row.reduction for row in same),
        accuracy=fmean(found),
        lowest=min(found),
        highest=max(found),
    )


def after_sets(result: ExperimentResult) -> tuple[Spot, ...]:
    """Return where connection pruning with the least alpha stands after each set, from the first.

    So a result of five sets tells what fewer would have given. Seeds with fewer sets are left out.
    """
    points = [point for point in result.select("connections") if point.alpha is not None]
    least = min((point.alpha or 0.0 for point in points), default=None)
    alike = [point for point in points if point.alpha == least]
    most = max((len(point.rounds) for point in alike), default=0)
    steps = zip(*(point.rounds for point in alike if len(point.rounds) == most), strict=True)
    return tuple(_set_spot(number, least, same) for number, same in enumerate(steps, 1))


def _set_spot(number: int, alpha: float | None, same: Sequence[Round]) -> Spot:
    found = [percent(accuracy(step.after)) for step in same]
    return Spot(
        setting=f"set {number}",
        value=alpha,
        seeds=len(same),
        reduction=fmean(100 * step.reduction for step in same),
        accuracy=fmean(found),
        lowest=min(found),
        highest=max(found),
    )


def line_at(spots: Sequence[Spot], rate: float) -> float | None:
    """Return the accuracy at a reduction on the line between two spots; None beyond its ends."""
    for left, right in pairwise(spots):
        if left.reduction <= rate <= right.reduction:
            return _between(left, right, rate)
    return None


def _between(left: Spot, right: Spot, rate: float) -> float:
    width = right.reduction - left.reduction
    share = (rate - left.reduction) / width if width else 0.0
    return left.accuracy + share * (right.accuracy - left.accuracy)


def reach(spots: Sequence[Spot], figure: Figure) -> Reach | None:
    """Return how far the figure's axes show a curve; None where they show nothing of it.

    A curve that comes back above the lower end is followed to where it falls through it first.
    """
    seen = [spot for spot in spots if spot.reduction >= figure.x.low]
    if not seen or seen[0].accuracy < figure.y.low:
        return None
    for left, right in pairwise(seen):
        if right.accuracy < figure.y.low:
            return Reach(_crossing(left, right, figure.y), leaves=True)
    return Reach(seen[-1].reduction, leaves=False)


def _crossing(left: Spot, right: Spot, y: Axis) -> float:
    share = (left.accuracy - y.low) / (left.accuracy - right.accuracy)
    return left.reduction + share * (right.reduction - left.reduction)
