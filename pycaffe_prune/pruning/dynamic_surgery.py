"""Dynamic Network Surgery (Guo, Yao and Chen 2016): masks that change while a net trains.

The dense weights W live on under the mask T: passes use W*T, and every weight of W gets the
gradient with respect to W*T, those that T leaves out too, so that one that grows again comes back.
Each blob's mask is made anew with a chance that falls with the iterations, from two limits that
are taken once, at the beginning. (The authors' layers mask biases as well; here what is named is.)
"""

import numpy as np

from pycaffe_prune.formats.blobs import Blob
from pycaffe_prune.formats.mask import Mask

__all__ = ["Limits", "surgery_chance", "surgery_draw", "surgery_limits", "surgery_mask"]

Limits = tuple[np.float32, np.float32]
"""A weight whose magnitude is below the first goes, from the second on it comes back."""

_LOWER, _UPPER = 0.9, 1.1
_WORD = 2**64 - 1
_STEP = 0x9E3779B97F4A7C15


def surgery_limits(weights: Blob, c: float, kept: Mask | None = None) -> Limits:
    """Return 0.9 and 1.1 times max(mean + c * deviation, 0) of the magnitudes that are not zero.

    Args:
        weights: Any shape, float32.
        c: How many standard deviations above their mean.
        kept: Same shape; when given, only the weights that it keeps count.

    Returns:
        Both limits; mean and (population) deviation are taken in float64. 0 and 0 where no weight
        counts.
    """
    alive = weights != 0 if kept is None else (weights != 0) & kept
    sizes = np.abs(weights[alive], dtype=np.float64)
    if not sizes.size:
        return np.float32(0), np.float32(0)
    middle = max(float(sizes.mean()) + c * float(sizes.std()), 0.0)
    return np.float32(_LOWER * middle), np.float32(_UPPER * middle)


def surgery_mask(weights: Blob, kept: Mask, limits: Limits) -> Mask:
    """Return the next mask: False below the limits, True above them, between them as it was.

    Args:
        weights: The dense weights, any shape, float32.
        kept: Same shape, the mask so far, True = kept.
        limits: As from `surgery_limits`; compared in float32.
    """
    lower, upper = limits
    sizes = np.abs(weights)
    return (sizes >= upper) | (kept & (sizes >= lower))


def surgery_chance(iteration: int, gamma: float, power: float) -> float:
    """Return how likely a blob's mask is made anew: (1 + gamma * iteration)^-power."""
    return float((1 + gamma * iteration) ** -power)


def surgery_draw(seed: int, iteration: int, place: int) -> float:
    """Return the number, 0 <= number < 1, that is held against `surgery_chance`.

    It depends on nothing else, so that a run that goes on draws what it would have drawn. The
    scrambling is SplitMix64's (Steele, Lea and Flood 2014), once for each argument.

    Args:
        seed: The solver's.
        iteration: From 0 on.
        place: Of the blob, among those whose masks change.
    """
    state = 0
    for value in (seed, iteration, place):
        state = _scrambled((state ^ value) & _WORD)
    return (state >> 11) / 2**53


def _scrambled(state: int) -> int:
    state = (state + _STEP) & _WORD
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _WORD
    return state ^ (state >> 31)
