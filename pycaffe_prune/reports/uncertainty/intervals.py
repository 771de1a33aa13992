"""How sure an accuracy, or a difference of two, is: intervals and the exact test of pairs.

Pure statistics: nothing here is drawn at random, so the same numbers give the same interval.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist, mean, variance
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "LEVEL",
    "Interval",
    "mcnemar",
    "newcombe",
    "resampled",
    "seeds_interval",
    "t_interval",
    "t_quantile",
    "wilson",
]

LEVEL = 0.95
"""How often an interval is to hold the true value."""

_MOST_DEGREES = (
    200  # of freedom: with more, t is nearly normal, and a little wide is on the safe side
)
_REACH = 12  # standard deviations on each side: what lies beyond has a probability under 1e-30


class Interval(NamedTuple):
    """From ``low`` to ``high``."""

    low: float
    high: float

    def with_(self, other: "Interval") -> "Interval":
        """Return the least interval that holds both."""
        return Interval(min(self.low, other.low), max(self.high, other.high))


def wilson(correct: float, of: int, level: float = LEVEL) -> Interval:
    """Return Wilson's score interval of a share.

    Args:
        correct: Right answers; a mean over several tests of the same images need not be whole.
        of: Answers, at least 1.
        level: See `LEVEL`.
    """
    z, share = _z(level), correct / of
    middle = (share + z * z / (2 * of)) / (1 + z * z / of)
    half = z / (1 + z * z / of) * math.sqrt(share * (1 - share) / of + (z / (2 * of)) ** 2)
    return Interval(max(middle - half, 0.0), min(middle + half, 1.0))


def newcombe(first: tuple[float, int], second: tuple[float, int], level: float = LEVEL) -> Interval:
    """Return Newcombe's interval of ``first`` minus ``second``, two shares of unlike images.

    Two nets tend to be right about the same images; for those it is too wide, on the safe side.

    Args:
        first: Right answers, and of how many.
        second: The same.
        level: See `LEVEL`.
    """
    one, other = first[0] / first[1], second[0] / second[1]
    (low_1, high_1), (low_2, high_2) = wilson(*first, level), wilson(*second, level)
    return Interval(
        one - other - math.hypot(one - low_1, high_2 - other),
        one - other + math.hypot(high_1 - one, other - low_2),
    )


def mcnemar(first_only: int, second_only: int) -> float:
    """Return the two-sided p of McNemar's exact test.

    Were both nets alike, each image that only one of them gets right would be the one's or the
    other's by the toss of a coin.

    Args:
        first_only: Images that only the first net gets right.
        second_only: Those that only the second one does.
    """
    tosses, fewer = first_only + second_only, min(first_only, second_only)
    at = np.arange(1, fewer + 1)
    logs = np.concatenate([[0.0], np.cumsum(np.log((tosses - at + 1) / at))])
    return min(1.0, 2 * float(np.exp(logs - tosses * math.log(2)).sum()))


def resampled(differences: NDArray[np.int64], scale: int, level: float = LEVEL) -> Interval:
    """Return the percentile bootstrap interval of a mean difference over images.

    That is of the mean over as many images, drawn from these with replacement. Its distribution is
    worked out, not drawn: that of a sum of independent values is a power of their transform.

    Args:
        differences: Of each image, in units of 1 / ``scale``; shape (images,).
        scale: 1 for two nets; the number of nets that each side is the mean of, for more.
        level: See `LEVEL`.
    """
    images, total = len(differences), int(differences.sum())
    values, counts = np.unique(differences, return_counts=True)
    spread = math.sqrt(images) * float(differences.std()) + float(np.ptp(values))
    size = 1 << math.ceil(math.log2(2 * _REACH * spread + 4))
    single = np.zeros(size)
    np.add.at(single, values % size, counts / images)
    # The sums wrap round at `size`; within so many of their mean all that are likely lie.
    masses = np.fft.irfft(np.fft.rfft(single) ** images, size)
    sums = total - size // 2 + np.arange(size)
    below = np.cumsum(masses[sums % size])
    tail = (1 - level) / 2
    low, high = (int(sums[place]) for place in np.searchsorted(below, [tail, 1 - tail]))
    return Interval(low / (images * scale), high / (images * scale))


def t_interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """Return Student's interval of the mean of two or more values."""
    half = t_quantile(len(values) - 1, level) * math.sqrt(variance(values) / len(values))
    return Interval(mean(values) - half, mean(values) + half)


def seeds_interval(
    first: Sequence[float], second: Sequence[float], level: float = LEVEL
) -> Interval | None:
    """Return Welch's interval of a mean difference between values that are no pairs.

    A side of one value counts as known exactly: its spread cannot be told.

    Returns:
        None where both sides are of one value.
    """
    sides = [(variance(side) / len(side), len(side) - 1) for side in (first, second) if side[1:]]
    if not sides:
        return None
    total = sum(square for square, _ in sides)
    weights = sum(square**2 / degrees for square, degrees in sides)
    degrees = int(total**2 / weights) if weights else sides[0][1]
    half = t_quantile(max(degrees, 1), level) * math.sqrt(total)
    middle = mean(first) - mean(second)
    return Interval(middle - half, middle + half)


@lru_cache(maxsize=1024)
def t_quantile(degrees: int, level: float = LEVEL) -> float:
    """Return t such that a share ``level`` of Student's distribution lies within t of 0.

    Args:
        degrees: Of freedom, at least 1; those beyond 200 count as 200.
        level: See `LEVEL`.
    """
    degrees = min(degrees, _MOST_DEGREES)
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, degrees) < level else (low, middle)
    return math.sqrt(degrees) * math.tan(low)


def _within(angle: float, degrees: int) -> float:
    """Student's probability within sqrt(degrees) tan(angle): Abramowitz and Stegun, 26.7.3-4."""
    cosine, sine, odd = math.cos(angle), math.sin(angle), degrees % 2
    term = cosine if odd else 1.0
    total = 0.0
    for at in range(1 + odd, degrees, 2):
        total += term
        term *= cosine * cosine * at / (at + 1)
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def _z(level: float) -> float:
    return NormalDist().inv_cdf((1 + level) / 2)
