"""Which connections go: those with small weights (the paper; Han et al. 2015)."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.blobs import Blob
from pycaffe_prune.formats.mask import Mask

__all__ = [
    "magnitude_mask",
    "pooled_sigma",
    "rank_mask",
    "rank_masks",
    "sigma_of",
    "smallest_kept",
    "weights_to_prune",
]

# Weights at a time: their float64 copies stay in the processor's cache.
_BLOCK = 1 << 16
_HALF = np.uint32(16)
_ALL_BUT_SIGN = np.uint32(0x7FFFFFFF)


def sigma_of(weights: Blob, kept: Mask | None = None) -> float:
    """Return the standard deviation of a layer's weights, computed in float64.

    Args:
        weights: Any shape, float32.
        kept: Same shape; when given, only the weights that it keeps count.

    Returns:
        The population standard deviation about the mean; 0.0 when no weight is kept.
    """
    return pooled_sigma([weights], [kept])


def pooled_sigma(weights: Sequence[Blob], kept: Sequence[Mask | None]) -> float:
    """Return the standard deviation of several layers' weights taken together, in float64.

    Args:
        weights: Any shapes, float32.
        kept: One for each blob, of its shape; only the weights that it keeps count. None: all.

    Returns:
        The population standard deviation about the common mean; 0.0 when no weight is kept.
    """
    parts = [
        (blob if mask is None else blob[mask]).reshape(-1)
        for blob, mask in zip(weights, kept, strict=True)
    ]
    count = sum(values.size for values in parts)
    if not count:
        return 0.0
    mean = sum(float(values.sum(dtype=np.float64)) for values in parts) / count
    squares = 0.0
    for values in parts:
        for start in range(0, values.size, _BLOCK):
            block = np.subtract(values[start : start + _BLOCK], mean, dtype=np.float64)
            squares += float(np.square(block).sum())
    return math.sqrt(squares / count)


def magnitude_mask(weights: Blob, threshold: float, kept: Mask | None = None) -> Mask:
    """Keep the weights with |w| >= threshold, of those that were kept before.

    Args:
        weights: Any shape, float32.
        threshold: alpha * sigma, not negative. The comparison is made in float32.
        kept: Same shape, the mask so far. Pruned stays pruned: the result is a subset of it.

    Returns:
        The new mask, shape of ``weights``, True = kept.
    """
    limit = np.float32(threshold)
    mask = weights >= limit
    mask |= weights <= -limit
    if kept is not None:
        mask &= kept
    return mask


def weights_to_prune(weights: int, ratio: float) -> int:
    """Return how many of ``weights`` a ratio prunes, rounded.

    Raises:
        SurgeryError: The ratio is not in 0 <= ratio < 1.
    """
    if not 0 <= ratio < 1:
        raise SurgeryError(
            f"a ratio of weights is a share from 0 up to but not including 1, not {ratio}"
        )
    return round(ratio * weights)


def rank_mask(weights: Blob, count: int, kept: Mask | None = None) -> Mask:
    """Prune exactly ``count`` weights of one blob; see `rank_masks`."""
    return rank_masks([weights], count, [kept])[0]


def rank_masks(weights: Sequence[Blob], count: int, kept: Sequence[Mask | None]) -> list[Mask]:
    """Prune exactly ``count`` weights of all blobs together, those with the lowest |w|.

    Among equal |w| the earlier blob, and in it the earlier place in C order, goes first. No value
    is special: an exact zero is just the lowest.

    Args:
        weights: Any shapes, float32, finite.
        count: How many are pruned in the end, 0 to their number. What was pruned before counts;
            where that is more already, nothing is added to it.
        kept: One for each blob, of its shape, the mask so far; None: all are kept. Pruned stays
            pruned.

    Returns:
        The new masks, shapes of ``weights``, True = kept.
    """
    before = [
        np.ones(blob.shape, np.bool_) if mask is None else mask.copy()
        for blob, mask in zip(weights, kept, strict=True)
    ]
    left = [
        blob.reshape(-1) if mask is None else blob.reshape(-1)[np.flatnonzero(mask)]
        for blob, mask in zip(weights, kept, strict=True)
    ]  # places are gathered three times as fast as by a mask without a pattern
    more = count - sum(blob.size for blob in weights) + sum(values.size for values in left)
    if more <= 0:
        return before
    limit, ties = _nth_smallest(left, more)
    for mask, blob in zip(before, weights, strict=True):
        at_limit = np.flatnonzero(((blob == limit) | (blob == -limit)) & mask)
        mask &= magnitude_mask(blob, float(limit))
        mask.reshape(-1)[at_limit[:ties]] = False
        ties -= min(ties, at_limit.size)
    return before


def _nth_smallest(parts: Sequence[Blob], n: int) -> tuple[np.float32, int]:
    """The n-th smallest |w| (n from 1 on), and how many of the n are as large as it.

    One pass counts the upper halves of all values, a second picks the few that share the wanted
    one: no value is copied but these.
    """
    histogram = np.zeros(1 << 15, np.int64)
    for bits in _magnitude_bits(parts):
        histogram += np.bincount(bits >> _HALF, minlength=histogram.size)
    reached = np.cumsum(histogram)
    upper = np.searchsorted(reached, n)
    place = n - 1 - int(reached[upper] - histogram[upper])
    found = np.concatenate([bits[bits >> _HALF == upper] for bits in _magnitude_bits(parts)])
    limit = np.partition(found, place)[place]
    return limit.view(np.float32), place + 1 - int(np.count_nonzero(found < limit))


def _magnitude_bits(parts: Sequence[Blob]) -> Iterator[NDArray[np.uint32]]:
    """The bits of |w|, block by block: as whole numbers they are in the same order as |w|."""
    for values in parts:
        bits = np.ascontiguousarray(values).view(np.uint32)
        for start in range(0, bits.size, _BLOCK):
            yield bits[start : start + _BLOCK] & _ALL_BUT_SIGN


def smallest_kept(weights: Sequence[Blob], masks: Sequence[Mask]) -> float:
    """Return the threshold that the masks amount to: the smallest |w| that they keep.

    Where they keep none, it is the next float32 above the largest |w|.
    """
    kept = [blob[mask] for blob, mask in zip(weights, masks, strict=True)]
    lowest = [float(np.abs(values).min()) for values in kept if values.size]
    if lowest:
        return min(lowest)
    highest = max((float(np.abs(blob).max()) for blob in weights if blob.size), default=0.0)
    return float(np.nextafter(np.float32(highest), np.float32(np.inf)))
