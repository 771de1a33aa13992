"""Which connections go: those with small weights (paper section 3; Han et al. 2015)."""

import numpy as np

from pycaffe_prune.formats.blobs import Blob
from pycaffe_prune.formats.mask import Mask

__all__ = ["magnitude_mask", "sigma_of"]


def sigma_of(weights: Blob, kept: Mask | None = None) -> float:
    """Return the standard deviation of a layer's weights, computed in float64.

    Args:
        weights: Any shape, float32.
        kept: Same shape; when given, only the weights that it keeps count.

    Returns:
        The population standard deviation about the mean; 0.0 when no weight is kept.
    """
    values = weights if kept is None else weights[kept]
    return float(values.std(dtype=np.float64)) if values.size else 0.0


def magnitude_mask(weights: Blob, threshold: float, kept: Mask | None = None) -> Mask:
    """Keep the weights with |w| >= threshold, of those that were kept before.

    Args:
        weights: Any shape, float32.
        threshold: alpha * sigma, not negative. The comparison is made in float32.
        kept: Same shape, the mask so far. Pruned stays pruned: the result is a subset of it.

    Returns:
        The new mask, shape of ``weights``, True = kept.
    """
    mask = np.abs(weights) >= np.float32(threshold)
    if kept is not None:
        mask &= kept
    return mask
