"""Unit pruning against connection pruning at equal reduction, image by image and seed by seed.

Both experiments have each of their initial trainings pruned, so that a seed has both curves. Beside
a unit-pruned net stands what the connection-pruned ones of its seed give at its reduction: on each
image the mixture of the two nets on both sides, as near to it as `_PARTS` allow.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.errors import FormatError
from pycaffe_prune.experiments.result import ExperimentResult, Point
from pycaffe_prune.reports.paper.weigh import trial_of
from pycaffe_prune.reports.rows import reduction
from pycaffe_prune.reports.uncertainty.intervals import LEVEL, resampled, t_interval
from pycaffe_prune.reports.uncertainty.trials import Comparison

__all__ = ["Gap", "after_one_set", "compared", "difference_of", "gaps_of"]

_PARTS = 100
"""Of a mixture of two nets."""


@dataclass(frozen=True, eq=False)
class Gap:
    """A unit-pruned shape beside connection pruning, of each seed."""

    setting: str
    reduction: Fraction
    seeds: tuple[int, ...]
    units: Fraction
    """Mean accuracy over the seeds."""
    right: NDArray[np.int64]
    """Units minus connections in parts of 100: seeds x images."""

    @property
    def difference(self) -> Fraction:
        """Mean accuracy of unit pruning minus that of connection pruning."""
        return Fraction(int(self.right.sum()), _PARTS * self.right.size)


def gaps_of(result: ExperimentResult) -> dict[str, Gap]:
    """Return the gap of each unit-pruned shape, by its setting and by rising reduction.

    Shapes that lie beyond the connection curve of a seed are left out.

    Raises:
        FormatError: The result has no unit- or connection-pruned nets, not each shape of each seed,
            or does not tell which images its nets got right.
    """
    units: dict[str, list[Point]] = {}
    for point in result.select("units"):
        units.setdefault(point.setting.text, []).append(point)
    curves: dict[int, list[Point]] = {}
    for point in result.select("connections"):
        curves.setdefault(point.seed, []).append(point)
    if not units or not curves:
        raise FormatError(f"{_name(result)}: has no unit- or no connection-pruned nets to compare")
    gaps = {}
    for setting, points in units.items():
        by_seed = {point.seed: point for point in points}
        if len(by_seed) < len(points) or by_seed.keys() != curves.keys():
            raise FormatError(f"{_name(result)}: has not one net of each seed with {setting}")
        gap = _gap(result, setting, [by_seed[seed] for seed in sorted(by_seed)], curves)
        if gap is not None:
            gaps[setting] = gap
    return gaps


def after_one_set(result: ExperimentResult) -> ExperimentResult:
    """Return the result as if each net had been retrained once.

    Connection pruning has several sets, unit pruning one: its nets are trained longer. After the
    first set both have been trained alike.
    """
    points = (point.model_copy(update={"rounds": point.rounds[:1]}) for point in result.points)
    return result.model_copy(update={"points": tuple(points)})


def _gap(
    result: ExperimentResult,
    setting: str,
    points: Sequence[Point],
    curves: Mapping[int, Sequence[Point]],
) -> Gap | None:
    rows = []
    for point in points:
        mixed = _mixed(result, curves[point.seed], reduction(point))
        if mixed is None:
            return None
        rows.append(_PARTS * _right(result, point) - mixed)
    shares = [trial_of(point).share for point in points]
    return Gap(
        setting=setting,
        reduction=min(map(reduction, points)),
        seeds=tuple(point.seed for point in points),
        units=sum(shares, Fraction(0)) / len(shares),
        right=np.stack(rows),
    )


def _mixed(
    result: ExperimentResult, curve: Sequence[Point], at: Fraction
) -> NDArray[np.int64] | None:
    """Right answers at a reduction, in parts; None beyond the ends of the curve."""
    below = [point for point in curve if reduction(point) <= at]
    above = [point for point in curve if reduction(point) >= at]
    if not below or not above:
        return None
    low, high = below[-1], above[0]
    width = reduction(high) - reduction(low)
    part = round(_PARTS * (at - reduction(low)) / width) if width else 0
    return (_PARTS - part) * _right(result, low) + part * _right(result, high)


def _right(result: ExperimentResult, point: Point) -> NDArray[np.int64]:
    right = trial_of(point).right
    if right is None:
        raise FormatError(f"{_name(result)}: does not tell which images its nets got right")
    return right.astype(np.int64)


def _name(result: ExperimentResult) -> str:
    return f"experiment '{result.experiment}', preset '{result.preset}'"


def compared(gaps: Sequence[Gap], level: float = LEVEL) -> Comparison:
    """Return unit pruning minus connection pruning, the mean over one or more shapes.

    Args:
        gaps: Of one experiment.
        level: See `reports.uncertainty.intervals.LEVEL`.
    """
    return _comparison(_summed(gaps), _PARTS * len(gaps), level)


def difference_of(first: Sequence[Gap], second: Sequence[Gap], level: float = LEVEL) -> Comparison:
    """Return how much more unit pruning is ahead in one experiment than in another.

    Args:
        first: Gaps of one experiment.
        second: Those of the same shapes in another one with the same seeds and test images.
        level: As for `compared`.

    Raises:
        FormatError: Seeds, images or shapes are not the same.
    """
    told = [[(gap.setting, gap.seeds, gap.right.shape) for gap in gaps] for gaps in (first, second)]
    if told[0] != told[1]:
        raise FormatError("seeds, test images or unit-pruned shapes of the two are not the same")
    return _comparison(_summed(first) - _summed(second), _PARTS * len(first), level)


def _summed(gaps: Sequence[Gap]) -> NDArray[np.int64]:
    summed: NDArray[np.int64] = np.sum([gap.right for gap in gaps], axis=0)
    return summed


def _comparison(rows: NDArray[np.int64], parts: int, level: float) -> Comparison:
    """Of differences in parts, seeds x images."""
    seeds, images = rows.shape
    means = [float(row.sum()) / (parts * images) for row in rows]
    return Comparison(
        difference=Fraction(int(rows.sum()), parts * seeds * images),
        over_images=resampled(rows.sum(axis=0), parts * seeds, level),
        over_seeds=t_interval(means, level) if seeds > 1 else None,
        is_paired=True,
    )
