"""Which connections go: those with small weights (paper section 3; Han et al. 2015)."""

import math

import numpy as np

from pycaffe_prune.formats.blobs import Blob
from pycaffe_prune.formats.mask import Mask

__all__ = ["magnitude_mask", "sigma_of"]

# Weights at a time: their float64 copies stay in the processor's cache.
_BLOCK = 1 << 16


def sigma_of(weights: Blob, kept: Mask | None = None) -> float:
    """Return the standard deviation of a layer's weights, computed in float64.

    Args:
        weights: Any shape, float32.
        kept: Same shape; when given, only the weights that it keeps count.

    Returns:
        The population standard deviation about the mean; 0.0 when no weight is kept.
    """
    values = (weights if kept is None else weights[kept]).reshape(-1)
    if not values.size:
        return 0.0
    mean = values.sum(dtype=np.float64) / values.size
    squares = 0.0
    for start in range(0, values.size, _BLOCK):
        block = np.subtract(values[start : start + _BLOCK], mean, dtype=np.float64)
        squares += float(np.square(block).sum())
    return math.sqrt(squares / values.size)


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
