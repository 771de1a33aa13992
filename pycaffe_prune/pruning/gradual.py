"""Gradual magnitude pruning (Zhu and Gupta 2017): a little more goes every so many iterations."""

from dataclasses import dataclass

from pycaffe_prune.formats.blobs import Blob
from pycaffe_prune.formats.mask import Mask
from pycaffe_prune.pruning.criteria.connections import rank_mask, weights_to_prune

__all__ = ["CubicSchedule", "gradual_mask"]


@dataclass(frozen=True)
class CubicSchedule:
    """When masks shrink, and how far: fast at first, slower and slower towards the end."""

    begin: int
    """The iteration before which the first masks are made."""
    every: int
    """Iterations from one change to the next, 1 or more."""
    changes: int
    """How many follow the first, 1 or more."""

    @property
    def last(self) -> int:
        """The iteration before which the last masks are made."""
        return self.begin + self.changes * self.every

    def is_due(self, iteration: int) -> bool:
        """Whether masks are made before this iteration (counted from 0)."""
        since = iteration - self.begin
        return 0 <= since <= self.changes * self.every and since % self.every == 0

    def sparsity(self, iteration: int, initial: float, final: float) -> float:
        """Return the share of weights that is gone after the change at or before an iteration.

        final + (initial - final) * (1 - done)^3, where done is the share of the changes made; 0
        before the first of them.
        """
        if iteration < self.begin:
            return 0.0
        made = min((iteration - self.begin) // self.every, self.changes)
        return final + (initial - final) * (1 - made / self.changes) ** 3


def gradual_mask(weights: Blob, kept: Mask, sparsity: float) -> Mask:
    """Prune round(sparsity * n) of the n weights of a blob, those with the lowest |w|.

    Args:
        weights: Any shape, float32, finite.
        kept: Same shape, the mask so far. Pruned stays pruned and counts; where more are pruned
            already, nothing changes.
        sparsity: From 0 up to but not including 1.

    Returns:
        The new mask, True = kept; among equal |w| the earlier place goes first.

    Raises:
        SurgeryError: The sparsity is none.
    """
    return rank_mask(weights, weights_to_prune(weights.size, sparsity), kept)
