"""Weights as a product of two factors, by singular value decomposition (Denton et al. 2014).

W ≈ U·S·Vᵀ with the largest singular values S: Vᵀ makes the first of two layers, U the second. Both
get √S, which of all splits gives the smallest sum of squared weights, so that weight decay pulls at
both alike. The squared error of the product is the sum of the squared singular values left out.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.blobs import Blob

__all__ = ["Decomposition", "Factors", "Way", "as_blobs", "as_matrices", "decompose"]

_Array = NDArray[np.float64]


class Way(StrEnum):
    """How a layer's weights are read as a matrix, and so what its two layers are."""

    MATRIX = "matrix"
    """InnerProduct: inputs -> rank, then rank -> units."""
    FILTERS = "filters"
    """Convolution: rank filters of the whole kernel, then 1 x 1 (Denton et al. 2014)."""
    SPATIAL = "spatial"
    """Convolution: rank filters of kernel_h x 1, then 1 x kernel_w (Jaderberg et al. 2014)."""


@dataclass(frozen=True)
class Factors:
    """The weights of two layers in a row: what comes out is ``second`` · ``first``."""

    first: _Array
    """Groups x rank x columns."""
    second: _Array
    """Groups x rows x rank."""

    @property
    def rank(self) -> int:
        """Of each group."""
        return int(self.first.shape[1])


@dataclass(frozen=True)
class Decomposition:
    """The singular value decomposition of a layer's weights, group by group."""

    left: _Array
    """Groups x rows x full rank."""
    values: _Array
    """Groups x full rank, the largest first."""
    right: _Array
    """Groups x full rank x columns."""

    @property
    def full_rank(self) -> int:
        """The smaller one of rows and columns."""
        return int(self.values.shape[1])

    @property
    def energies(self) -> _Array:
        """The share of the squared singular values that each rank from 1 on keeps; not falling."""
        kept = np.cumsum((self.values**2).sum(axis=0))
        return kept / kept[-1] if kept[-1] else np.ones_like(kept)

    def energy(self, rank: int) -> float:
        """Return the share of the squared singular values that ``rank`` keeps."""
        return float(self.energies[rank - 1])

    def rank_of(self, energy: float) -> int:
        """Return the lowest rank that keeps a share of ``energy``, 0 to 1; at least 1."""
        return min(int(np.searchsorted(self.energies, energy)) + 1, self.full_rank)

    def cut(self, rank: int) -> Factors:
        """Return the best factors of a rank (Eckart and Young).

        Raises:
            SurgeryError: There is no such rank.
        """
        if not 1 <= rank <= self.full_rank:
            raise SurgeryError(f"has ranks from 1 to {self.full_rank}, not {rank}")
        roots = np.sqrt(self.values[:, :rank])
        return Factors(
            self.right[:, :rank] * roots[:, :, None], self.left[:, :, :rank] * roots[:, None, :]
        )


def decompose(matrices: _Array) -> Decomposition:
    """Decompose a stack of matrices of finite values, groups x rows x columns, in float64.

    By the eigenvectors of the smaller one of A·Aᵀ and Aᵀ·A, in a third of the time of LAPACK's
    decomposition. Singular values are the lengths of A along these, so that those below 1e-8 of the
    largest, which squares cannot tell from zero, come out of the product as they went in.
    """
    if matrices.shape[1] > matrices.shape[2]:
        found = decompose(matrices.transpose(0, 2, 1))
        return Decomposition(
            found.right.transpose(0, 2, 1), found.values, found.left.transpose(0, 2, 1)
        )
    _, vectors = np.linalg.eigh(matrices @ matrices.transpose(0, 2, 1))
    left = vectors[:, :, ::-1]
    scaled = left.transpose(0, 2, 1) @ matrices
    values = np.sqrt(np.square(scaled).sum(axis=2))
    right = np.divide(
        scaled, values[:, :, None], out=np.zeros_like(scaled), where=values[:, :, None] > 0
    )
    return Decomposition(left, values, right)


def as_matrices(weights: Blob, way: Way, groups: int = 1) -> _Array:
    """Read a layer's weights as a matrix for each group.

    Args:
        weights: Units x inputs; of a Convolution filters x channels of a group x kernel
            (`src/caffe/layers/base_conv_layer.cpp`), for `Way.SPATIAL` with a kernel of two axes.
        way: How.
        groups: Of a Convolution; the filters of a group lie one after another.

    Returns:
        Groups x rows x columns. A row is what makes a unit or filter of the second layer (one for
        each place along the width, with `Way.SPATIAL`), a column what the first layer reads.
    """
    stack = np.asarray(weights, np.float64).reshape(groups, -1, *weights.shape[1:])
    if way is Way.SPATIAL:
        filters, channels, height, width = stack.shape[1:]
        by_width = stack.transpose(0, 1, 4, 2, 3)  # group, filter, x, channel, y
        return by_width.reshape(groups, filters * width, channels * height)
    return stack.reshape(groups, stack.shape[1], -1)


def as_blobs(factors: Factors, way: Way, shape: tuple[int, ...]) -> tuple[Blob, Blob]:
    """Return the weights of both layers as Caffe has them.

    Args:
        factors: Of matrices that `as_matrices` gave.
        way: As there.
        shape: Of the weights that they were.

    Returns:
        Two float32 blobs. Every group of the first layer makes ``rank`` channels, which the same
        group of the second one reads.
    """
    groups, rank = factors.first.shape[:2]
    outputs = shape[0]
    if way is Way.SPATIAL:
        channels, height, width = shape[1:]
        first = factors.first.reshape(groups * rank, channels, height, 1)
        by_width = factors.second.reshape(groups, outputs // groups, width, rank)
        second = by_width.transpose(0, 1, 3, 2).reshape(outputs, rank, 1, width)
    else:
        first = factors.first.reshape(groups * rank, *shape[1:])
        second = factors.second.reshape(outputs, rank, *(1,) * (len(shape) - 2))
    return _blob(first), _blob(second)


def _blob(values: _Array) -> Blob:
    return np.ascontiguousarray(values, np.float32)
