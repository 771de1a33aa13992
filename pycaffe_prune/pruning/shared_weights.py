"""Weights of a layer that share few values: k-means on a line (Han et al. 2016, section 3).

Weights that are zero are pruned: they stay zero, and no value of the codebook is theirs. The others
are sorted, so that those of one cluster lie side by side: a step of Lloyd's takes no more than a
search for the borders and two differences of running sums for each cluster, however many weights
there are.
"""

from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.blobs import Blob

__all__ = ["INITS", "MOST_BITS", "Init", "Sharing", "SortedWeights", "share", "with_shared"]

Init = Literal["linear", "density", "random"]
"""Where centroids begin: at equal distances between the least and the largest weight, which the
authors found best; with equally many weights each; at weights drawn by lot."""
INITS: tuple[Init, ...] = get_args(Init)
MOST_BITS = 16

_Floats = NDArray[np.float64]
_MOST_STEPS = 1_000
_SMALLEST = np.finfo(np.float32).smallest_normal


class Sharing(NamedTuple):
    """The values that the weights of a blob share, and which weight has which."""

    codebook: NDArray[np.float32]
    """(k,), ascending, each once, none zero, each in use."""
    codes: NDArray[np.uint16]
    """(survivors,): the place in ``codebook`` of each weight that is not zero, in C order."""


class SortedWeights:
    """Weights on a line, with what the steps of k-means ask of them.

    Args:
        values: (n,), finite, at least one.
    """

    def __init__(self, values: NDArray[np.float32]) -> None:
        self.values: _Floats = np.sort(values).astype(np.float64)
        """(n,), ascending."""
        self._sums = np.concatenate([[0.0], np.cumsum(self.values)])
        self._squares = np.concatenate([[0.0], np.cumsum(np.square(self.values))])

    def start(self, count: int, init: Init, seed: int) -> _Floats:
        """Return the first centroids, (count,), ascending; there are at least as many weights."""
        values = self.values
        if init == "linear":
            even: _Floats = np.linspace(values[0], values[-1], count)
            return even
        if init == "density":
            places = ((np.arange(count) + 0.5) / count * len(values)).astype(np.int64)
        else:
            places = np.random.default_rng(seed).choice(len(values), count, replace=False)
        return np.sort(values[places])

    def step(self, centroids: _Floats) -> _Floats:
        """Return the centroids, (k,), ascending, after one step of Lloyd's: never at more error.

        Centroids that are nearest to no weight go where the error is largest.

        Args:
            centroids: (k,), ascending.
        """
        first, stop = self._used(centroids)
        count = stop - first
        low, high = self.values[first], self.values[stop - 1]
        means: _Floats = np.clip((self._sums[stop] - self._sums[first]) / count, low, high)
        idle = len(centroids) - len(means)
        if not idle:
            return means
        errors = self._squares[stop] - self._squares[first] - count * means**2
        helpers = _dealt(errors, idle)
        helped = np.repeat(np.arange(len(means)), helpers)
        turn = np.arange(idle) - np.repeat(np.cumsum(helpers) - helpers, helpers)
        places = first[helped] + (turn + 0.5) / helpers[helped] * count[helped]
        return np.sort(np.concatenate([means, self.values[places.astype(np.int64)]]))

    def _used(self, centroids: _Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where the weights of each centroid that has some begin and end."""
        edges = self.values.searchsorted(_middles(centroids), side="right")
        borders = np.concatenate([[0], edges, [len(self.values)]])
        used = borders[:-1] < borders[1:]
        return borders[:-1][used], borders[1:][used]

    def settle(self, centroids: _Floats) -> _Floats:
        """Take steps until the centroids stay where they are."""
        for _ in range(_MOST_STEPS):
            moved = self.step(centroids)
            if np.array_equal(moved, centroids):
                break
            centroids = moved
        return centroids

    def error(self, centroids: _Floats) -> float:
        """Return the sum of the squared distances of all weights to their nearest centroids."""
        nearest = centroids[_middles(centroids).searchsorted(self.values)]
        return float(np.square(self.values - nearest).sum())


def _dealt(errors: _Floats, helpers: int) -> NDArray[np.int64]:
    """Deal more centroids out to clusters, one at a time, to where the error is largest."""
    dealt = np.zeros(len(errors), np.int64)
    for _ in range(helpers):
        dealt[np.argmax(errors / (1.0 + dealt) ** 2)] += 1
    return dealt


def _middles(centroids: _Floats) -> _Floats:
    return centroids[:-1] + np.diff(centroids) / 2


def share(weights: Blob, bits: int, init: Init = "linear", seed: int = 0) -> Sharing:
    """Find at most 2^bits values for the weights of a blob that are not zero.

    Weights that have no more values than that already keep them: sharing twice is sharing once.

    Args:
        weights: float32, in any shape.
        bits: 1 to `MOST_BITS`.
        init: Where the centroids begin.
        seed: Of the lot, for ``init="random"``.

    Raises:
        SurgeryError: A weight is NaN or infinite.
        ValueError: ``bits`` is out of range.
    """
    if not 1 <= bits <= MOST_BITS:
        raise ValueError(f"{bits} bits: give 1 to {MOST_BITS}")
    alive = weights[weights != 0]
    if not np.isfinite(alive).all():
        raise SurgeryError("a weight is NaN or infinite; it has no place between others")
    distinct = np.unique(alive)
    if len(distinct) > 1 << bits:
        line = SortedWeights(alive)
        centroids = line.settle(line.start(1 << bits, init, seed)).astype(np.float32)
        # At exactly zero the weights of a cluster would count as pruned.
        centroids[np.abs(centroids) < _SMALLEST] = _SMALLEST
        distinct = np.unique(centroids)
    codes = _middles(distinct.astype(np.float64)).searchsorted(alive).astype(np.uint16)
    used = np.bincount(codes, minlength=len(distinct)) > 0
    return Sharing(distinct[used], (np.cumsum(used) - 1).astype(np.uint16)[codes])


def with_shared(weights: Blob, sharing: Sharing) -> Blob:
    """Return a copy of ``weights`` in which those that are not zero have their shared values."""
    shared = np.zeros_like(weights)
    shared[weights != 0] = sharing.codebook[sharing.codes]
    return shared
