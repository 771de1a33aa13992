"""Large positive definite and triangular matrices, in their own precision.

NumPy does its linear algebra in float64 and without products of matrices where they would be most
of it; here the precision stays, and nearly all is products, which all cores share.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["inverse_of", "solve_upper"]

_Matrix = NDArray[np.floating[Any]]

_PARTS = 4
_AT_LEAST = 128


def inverse_of(matrix: _Matrix) -> _Matrix:
    """Invert a positive definite matrix.

    Raises:
        numpy.linalg.LinAlgError: It is none in its precision.
    """
    root, inverse = np.zeros_like(matrix), np.empty_like(matrix)
    _put_inverse_root(matrix, root)
    _put_square(root, inverse)
    return inverse


def solve_upper(upper: _Matrix, right: _Matrix) -> None:
    """Put the solution in place of the right side.

    Args:
        upper: Shape (n, n), triangular: what is below its diagonal is not read.
        right: Shape (n, m).
    """
    if len(upper) <= _AT_LEAST:
        right[...] = np.linalg.solve(np.triu(upper), right)
        return
    half = len(upper) // 2
    solve_upper(upper[half:, half:], right[half:])
    right[:half] -= upper[:half, half:] @ right[half:]
    solve_upper(upper[:half, :half], right[:half])


def _put_inverse_root(matrix: _Matrix, root: _Matrix) -> None:
    """Put in the inverse of Cholesky's factor, by halves: nearly all of it is matrix products.

    Args:
        matrix: Positive definite.
        root: Zeros of its shape.
    """
    if len(matrix) <= _AT_LEAST:
        root[...] = np.tril(np.linalg.inv(np.linalg.cholesky(matrix)))
        return
    half = len(matrix) // 2
    first, last, between = root[:half, :half], root[half:, half:], root[half:, :half]
    _put_inverse_root(matrix[:half, :half], first)
    across = np.empty_like(between)
    for part in _parts(half):
        np.matmul(matrix[half:, : part.stop], first[part, : part.stop].T, out=across[:, part])
    rest = across @ across.T
    _put_inverse_root(np.subtract(matrix[half:, half:], rest, out=rest), last)
    for part in _parts(half):
        # What is to its left is not read again.
        across[:, part] = across[:, part.start :] @ first[part.start :, part]
    np.negative(across, out=across)
    for part in _parts(len(last)):
        np.matmul(last[part, : part.stop], across[: part.stop], out=between[part])


def _put_square(lower: _Matrix, square: _Matrix) -> None:
    """Put in the transpose of a lower triangular matrix times itself, by halves."""
    if len(lower) <= _AT_LEAST:
        square[...] = lower.T @ lower
        return
    half = len(lower) // 2
    across, last = lower[half:, :half], lower[half:, half:]
    _put_square(lower[:half, :half], square[:half, :half])
    square[:half, :half] += across.T @ across
    for part in _parts(len(last)):
        np.matmul(last[part.start :, part].T, across[part.start :], out=square[half:, :half][part])
    square[:half, half:] = square[half:, :half].T
    _put_square(last, square[half:, half:])


def _parts(size: int) -> list[slice]:
    """A few parts of a triangular matrix: what is 0 beside each is left out of a product."""
    length = max(-(-size // _PARTS), _AT_LEAST)
    return [slice(start, min(start + length, size)) for start in range(0, size, length)]
