"""Which units go: one score a unit from the weights around it; the lowest are deleted.

Each criterion is ``(incoming, outgoing, seed) -> scores``: ``incoming`` has shape (units, inputs),
``outgoing`` (connections to the consumers, units), both float32; the scores have shape (units,),
float64. A unit may be a Convolution's filter: then a kernel's values all count.
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.blobs import Blob

__all__ = [
    "UNIT_CRITERIA",
    "Scores",
    "UnitCriterion",
    "squared_distances",
    "squared_lengths",
    "unit_criterion",
    "units_to_delete",
    "units_to_keep",
]

_BLOCK = 64
_Float = TypeVar("_Float", np.float32, np.float64)
Scores = NDArray[np.float64]
UnitCriterion = Callable[[Blob, Blob, int], Scores]


def onorm(incoming: Blob, outgoing: Blob, seed: int) -> Scores:  # noqa: ARG001  (common signature)
    """Mean absolute outgoing weight of each unit (the paper; He et al. 2014)."""
    return np.asarray(np.abs(outgoing).mean(axis=0, dtype=np.float64))


def inorm(incoming: Blob, outgoing: Blob, seed: int) -> Scores:  # noqa: ARG001  (common signature)
    """Mean absolute incoming weight of each unit (He et al. 2014)."""
    return np.asarray(np.abs(incoming).mean(axis=1, dtype=np.float64))


def l1(incoming: Blob, outgoing: Blob, seed: int) -> Scores:  # noqa: ARG001  (common signature)
    """Sum of the absolute incoming weights of each unit (filters: Li et al. 2017).

    Within one layer it ranks as `inorm` does.
    """
    return np.asarray(np.abs(incoming).sum(axis=1, dtype=np.float64))


def l2(incoming: Blob, outgoing: Blob, seed: int) -> Scores:  # noqa: ARG001  (common signature)
    """Euclidean norm of the incoming weights of each unit."""
    # In float64: the squares of tiny weights are none in float32.
    return np.asarray(np.sqrt(np.square(incoming, dtype=np.float64).sum(axis=1)))


def random(incoming: Blob, outgoing: Blob, seed: int) -> Scores:  # noqa: ARG001  (common signature)
    """Uniform scores: the baseline that every other criterion must beat."""
    return np.random.default_rng(seed).random((incoming.shape[0],))


def squared_distances(rows: NDArray[_Float]) -> NDArray[_Float]:
    """Return the squared Euclidean distance of every two rows.

    Args:
        rows: Float32 or float64, shape (units, inputs).

    Returns:
        The same dtype, shape (units, units), with zeros along the diagonal.
    """
    centred = rows - rows.mean(axis=0)  # near 0, where differences of squares keep their digits
    squares = squared_lengths(centred, rows.dtype.type)
    found: NDArray[_Float] = centred @ centred.T
    for part, sizes in zip(_in_blocks(found), _in_blocks(squares), strict=True):
        part *= 2
        np.subtract(sizes[:, None] + squares, part, out=part)
        np.maximum(part, 0, out=part)
    np.fill_diagonal(found, 0)
    return found


def squared_lengths(rows: NDArray[np.floating[Any]], dtype: type[_Float]) -> NDArray[_Float]:
    """Return the squared length of each row in a precision: (units, inputs) -> (units,)."""
    return np.concatenate([np.square(part, dtype=dtype).sum(axis=1) for part in _in_blocks(rows)])


def _in_blocks(rows: NDArray[_Float]) -> Iterator[NDArray[_Float]]:
    """Some rows after the other, views: what is made of them stays in the processor's cache."""
    for start in range(0, max(len(rows), 1), _BLOCK):
        yield rows[start : start + _BLOCK]


def geometric_median(incoming: Blob, outgoing: Blob, seed: int) -> Scores:  # noqa: ARG001  (common signature)
    """Sum of the distances of each unit's incoming weights to those of all others (He et al. 2019).

    The lowest are nearest to the geometric median, and the others can stand in for them.
    """
    distances = squared_distances(incoming)
    sums = [np.sqrt(part).sum(axis=1, dtype=np.float64) for part in _in_blocks(distances)]
    return np.concatenate(sums)


UNIT_CRITERIA: dict[str, UnitCriterion] = {
    "geometric-median": geometric_median,
    "inorm": inorm,
    "l1": l1,
    "l2": l2,
    "onorm": onorm,
    "random": random,
}
"""Every criterion by the name that the command line and the TOML files use."""


def unit_criterion(name: str) -> UnitCriterion:
    """Return the criterion called ``name``.

    Raises:
        SurgeryError: There is none; the sentence lists them.
    """
    try:
        return UNIT_CRITERIA[name]
    except KeyError:
        known = ", ".join(sorted(UNIT_CRITERIA))
        raise SurgeryError(f"no unit criterion is called '{name}'; there are: {known}") from None


def units_to_delete(units: int, ratio: float) -> int:
    """Return how many of ``units`` a ratio deletes: rounded, and never all of them.

    Raises:
        SurgeryError: The ratio is not in 0 <= ratio < 1.
    """
    if not 0 <= ratio < 1:
        raise SurgeryError(f"a unit ratio is a share from 0 up to but not including 1, not {ratio}")
    return min(round(ratio * units), units - 1)


def units_to_keep(scores: Scores, ratio: float) -> NDArray[np.bool_]:
    """Keep all units but those with the lowest scores (`units_to_delete` says how many).

    Args:
        scores: Shape (units,). Among equal scores the earlier unit goes first.
        ratio: Share of the units to delete, 0 <= ratio < 1.

    Returns:
        Shape (units,), True = kept; at least one is.

    Raises:
        SurgeryError: The ratio is out of range.
    """
    gone = units_to_delete(scores.size, ratio)
    kept = np.ones(scores.size, np.bool_)
    kept[np.argsort(scores, kind="stable")[:gone]] = False
    return kept
