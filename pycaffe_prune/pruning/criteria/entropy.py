"""Entropy of units: how much a unit's being on or off tells of an image (He et al. 2014)."""

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.pruning.criteria.units import Scores

__all__ = ["entropy"]


def entropy(on: NDArray[np.int64], seen: int) -> Scores:
    """Return the entropy of each unit's on/off state in bits.

    Args:
        on: Shape (units,): how often each unit was on.
        seen: How often it was looked at: images, for a filter images times positions.

    Returns:
        Shape (units,), float64, from 0 (always on, or never) to 1 (on every other time).

    Raises:
        SurgeryError: ``seen`` is 0, or less than a count.
    """
    if seen < 1 or (on < 0).any() or (on > seen).any():
        raise SurgeryError(f"units cannot be on {on.min()} to {on.max()} times out of {seen}")
    shares = np.stack([on, seen - on]) / seen
    logarithms = np.log2(shares, out=np.zeros_like(shares), where=shares > 0)
    # The sum may round to 1 + 2e-16.
    return np.asarray(np.clip(-(shares * logarithms).sum(axis=0), 0, 1))
