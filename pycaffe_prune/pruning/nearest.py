"""Which other row is nearest to each: looked for in float32, settled in float64.

A matrix product in float32 takes half the time of one in float64, and its error has a bound that
holds in whatever order a BLAS adds up (Higham 2002, section 3.1). So it leaves few rows that could
be the nearest one, and only these are measured in float64: the answer is that of float64.
"""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.pruning.criteria.units import squared_distances, squared_lengths

__all__ = ["Nearest", "nearest_rows"]

_BLOCK = 64  # rows whose distances fit a processor's cache
_MOST_CANDIDATES = 16
"""To measure, for each row on average: with more than these float64 throughout is faster."""
_FEW_UNITS = 512
"""Of so few rows all distances are there at once in float64."""
_MOST_INPUTS = 2**20  # of far more the error has no bound
_ROUNDINGS = 16  # those beside the matrix product's: centred, squared, added up
_LEAST = 2.0**-80  # what centring in float64 may lose; the longest row has length 1


class Nearest(Protocol):
    """The nearest of some rows to one of them."""

    def to(self, row: int, left: NDArray[np.bool_]) -> tuple[int, float]:
        """Return the first of the nearest rows and its squared distance.

        Args:
            row: Which.
            left: Shape (rows,): those that may be the nearest; ``row`` itself never is. Without
                any, the distance is infinite.
        """


def nearest_rows(rows: NDArray[np.floating[Any]]) -> Nearest:
    """Return who finds the nearest of some rows, shape (rows, inputs), float32 or float64."""
    if len(rows) > _FEW_UNITS and rows.shape[1] < _MOST_INPUTS:
        filtered = _Filtered(rows)
        if filtered.candidates_of_all() <= _MOST_CANDIDATES * len(rows):
            return filtered
    return _Measured(rows)


class _Measured:
    """All distances in float64."""

    def __init__(self, rows: NDArray[np.floating[Any]]) -> None:
        self._distances = squared_distances(rows.astype(np.float64, copy=False))
        np.fill_diagonal(self._distances, np.inf)

    def to(self, row: int, left: NDArray[np.bool_]) -> tuple[int, float]:  # (see Nearest)
        distances = np.where(left, self._distances[row], np.inf)
        nearest = int(distances.argmin())
        return nearest, float(distances[nearest])


class _Filtered:
    """Lower bounds of all distances in float32, and distances in float64 where they decide."""

    def __init__(self, rows: NDArray[np.floating[Any]]) -> None:
        self._rows = rows
        centre = rows.mean(axis=0, dtype=np.float64)
        longest = max(float(np.abs(rows).max()) * rows.shape[1] ** 0.5 * 2, 1e-300)
        centred = np.empty(rows.shape, np.float32)
        for part in self._parts():
            centred[part] = (rows[part] - centre) / longest
        self._scale = longest**2
        squares = squared_lengths(centred, np.float64)
        roundings = (rows.shape[1] + _ROUNDINGS) * 2.0**-24
        share = roundings / (1 - roundings)
        less = ((1 - share) * squares).astype(np.float32)
        self._error = (2 * share * squares + _LEAST).astype(np.float32)
        self._low = centred @ centred.T
        for part in self._parts():
            low = self._low[part]
            low *= -2
            low += less[part, None] + less
        np.fill_diagonal(self._low, np.inf)

    def _parts(self) -> list[slice]:
        return [slice(start, start + _BLOCK) for start in range(0, len(self._rows), _BLOCK)]

    def candidates_of_all(self) -> int:
        """How many rows might be the nearest one, for every row together."""
        found = 0
        for part in self._parts():
            low = self._low[part]
            most = (low + self._error).min(axis=1) + self._error[part]
            found += int(np.count_nonzero(low <= most[:, None]))
        return found

    def to(self, row: int, left: NDArray[np.bool_]) -> tuple[int, float]:  # (see Nearest)
        low = np.where(left, self._low[row], np.inf)
        most = (low + self._error).min() + self._error[row]
        if not np.isfinite(most):
            return row, np.inf
        candidates = np.flatnonzero(low <= most)
        apart = self._rows[candidates].astype(np.float64, copy=False) - self._rows[row]
        distances = np.einsum("ij,ij->i", apart, apart)
        nearest = int(distances.argmin())
        return int(candidates[nearest]), float(distances[nearest])
