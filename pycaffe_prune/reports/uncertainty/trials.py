"""Two nets, or two methods over several seeds, held against each other on one test set.

What is unsure of a difference comes from two places. The test images are a sample: others would
give another difference. And a net is one of many that other seeds would give. A `Comparison` has an
interval for each, where it can be told, and claims are held to both.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.reports.uncertainty.intervals import (
    LEVEL,
    Interval,
    mcnemar,
    newcombe,
    resampled,
    seeds_interval,
    t_interval,
    wilson,
)

__all__ = [
    "Comparison",
    "Side",
    "Trial",
    "accuracy_interval",
    "compare",
    "mean_accuracy",
    "shared_level",
    "side_of",
]

Side = Literal["above", "below", "within noise"]


class Trial(NamedTuple):
    """The last test of one net."""

    seed: int
    correct: int
    counted: int
    """Answers that were judged, at least 1."""
    right: NDArray[np.bool_] | None = None
    """Which images were answered right, in the images' order; None: it is not known."""

    @property
    def share(self) -> Fraction:
        """Its accuracy, exactly."""
        return Fraction(self.correct, self.counted)


@dataclass(frozen=True)
class Comparison:
    """The accuracy of one minus that of another, as shares."""

    difference: Fraction
    over_images: Interval
    over_seeds: Interval | None
    """None: each side has one seed."""
    is_paired: bool
    """Whether it is known of each image which of the two was right about it."""

    @property
    def interval(self) -> Interval:
        """The least interval that holds those over images and over seeds."""
        if self.over_seeds is None:
            return self.over_images
        return self.over_images.with_(self.over_seeds)


def shared_level(comparisons: int) -> float:
    """Return the level of each of so many intervals that all of them hold together at `LEVEL`."""
    return 1 - (1 - LEVEL) / max(comparisons, 1)


def side_of(interval: Interval, threshold: Fraction | float = 0) -> Side:
    """Say on which side of a threshold an interval lies."""
    if interval.low > threshold:
        return "above"
    return "below" if interval.high < threshold else "within noise"


def mean_accuracy(trials: Sequence[Trial]) -> Fraction:
    """Return the mean of one or more accuracies, exactly."""
    whole = lcm(*{trial.counted for trial in trials})
    right = sum(trial.correct * (whole // trial.counted) for trial in trials)
    return Fraction(right, whole * len(trials))


def accuracy_interval(trials: Sequence[Trial], level: float = LEVEL) -> Interval:
    """Return the interval of one method's accuracy on these test images.

    Over seeds where there are two or more; of a single net Wilson's, over images.
    """
    if len(trials) > 1:
        return t_interval([float(trial.share) for trial in trials], level)
    return wilson(trials[0].correct, trials[0].counted, level)


def compare(first: Sequence[Trial], second: Sequence[Trial], level: float = LEVEL) -> Comparison:
    """Hold the nets of one method against those of another.

    Of methods with two seeds or more in common those are compared, seed by seed; of others all
    seeds.

    Args:
        first: One net a seed, at least one.
        second: The same, tested on the same images.
        level: See `intervals.LEVEL`.
    """
    common = {trial.seed for trial in first} & {trial.seed for trial in second}
    if len(common) > 1:
        first, second = _of_seeds(first, common), _of_seeds(second, common)
    one = [trial.correct / trial.counted for trial in first]
    other = [trial.correct / trial.counted for trial in second]
    if len(common) > 1:
        gaps = [mine - yours for mine, yours in zip(one, other, strict=True)]
        over_seeds: Interval | None = t_interval(gaps, level)
    else:
        over_seeds = seeds_interval(one, other, level)
    over_images = _paired(first, second, level)
    return Comparison(
        difference=mean_accuracy(first) - mean_accuracy(second),
        over_images=over_images or newcombe(_pooled(first), _pooled(second), level),
        over_seeds=over_seeds,
        is_paired=over_images is not None,
    )


def _of_seeds(trials: Iterable[Trial], seeds: set[int]) -> list[Trial]:
    """One trial of each of these seeds, in their order; of several the first."""
    found: dict[int, Trial] = {}
    for trial in trials:
        found.setdefault(trial.seed, trial)
    return [found[seed] for seed in sorted(seeds)]


def _pooled(trials: Sequence[Trial]) -> tuple[float, int]:
    """The mean accuracy as right answers of the images, which are the same for every seed."""
    images = trials[0].counted
    return float(mean_accuracy(trials) * images), images


def _paired(first: Sequence[Trial], second: Sequence[Trial], level: float) -> Interval | None:
    """The bootstrap interval over the same images; None where it is not known who was right."""
    rights = [trial.right for trial in (*first, *second)]
    known = [right for right in rights if right is not None]
    if len(known) < len(rights) or len({len(right) for right in known}) > 1:
        return None
    scale = lcm(len(first), len(second))
    factors = [scale // len(first)] * len(first) + [-scale // len(second)] * len(second)
    differences = np.array(factors, np.int64) @ np.array(known, np.int64)
    found = resampled(differences, scale, level)
    if scale == 1:
        p = mcnemar(int((differences > 0).sum()), int((differences < 0).sum()))
        if p > 1 - level:  # the exact test has the last word on whether they differ at all
            return found.with_(Interval(0.0, 0.0))
    return found
