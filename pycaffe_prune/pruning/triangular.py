"""Large symmetric and triangular matrices, in their own precision.

NumPy does its linear algebra in float64 and without products of matrices where they would be most
of it; here the precision stays, and nearly all is products, which all cores share. What is known
from symmetry is not computed, and is copied at the end, a few rows at a time: NumPy copies it after
each product, one by one.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["inverse_of", "mirror", "put_lower_of_square", "solve_upper"]

_Matrix = NDArray[np.floating[Any]]

_PARTS = 4
_AT_LEAST = 128
_BLOCK = 1024
_ROWS = 64  # so many rows stay in a processor's cache


def put_lower_of_square(rows: _Matrix, square: _Matrix) -> None:
    """Put in the lower triangle of a matrix times its own transpose.

    Args:
        rows: Shape (n, m).
        square: Shape (n, n); above its diagonal it holds nothing of use afterwards.
    """
    for start in range(0, len(rows), _BLOCK):
        block = slice(start, start + _BLOCK)
        np.matmul(rows[block], rows[:start].T, out=square[block, :start])
        np.matmul(rows[block], rows[block].T, out=square[block, block])


def mirror(matrix: _Matrix) -> None:
    """Make a square matrix symmetric: what is above its diagonal becomes what is below it."""
    for start in range(0, len(matrix), _ROWS):
        rows = slice(start, start + _ROWS)
        matrix[:start, rows] = matrix[rows, :start].T
        block = matrix[rows, rows]
        block[...] = np.tril(block) + np.tril(block, -1).T


def inverse_of(matrix: _Matrix, ridge: float) -> _Matrix:
    """Invert a symmetric matrix that is positive definite with the ridge.

    Args:
        matrix: Shape (n, n).
        ridge: What is added to the diagonal; the matrix itself stays as it is.

    Raises:
        numpy.linalg.LinAlgError: It is none in its precision.
    """
    root, inverse = np.zeros_like(matrix), np.empty_like(matrix)
    _put_inverse_root(matrix, ridge, root)
    _put_lower_of_transposed_square(root, inverse)
    mirror(inverse)
    return inverse


def solve_upper(upper: _Matrix, right: _Matrix) -> None:
    """Put the solution in place of the right side.

    Args:
        upper: Shape (n, n), triangular: what is below its diagonal is not read.
        right: Shape (n, m).
    """
    if len(upper) <= _AT_LEAST:
        right[...] = np.linalg.inv(np.triu(upper)) @ right
        return
    half = len(upper) // 2
    solve_upper(upper[half:, half:], right[half:])
    right[:half] -= upper[:half, half:] @ right[half:]
    solve_upper(upper[:half, :half], right[:half])


def _put_inverse_root(matrix: _Matrix, ridge: float, root: _Matrix) -> None:
    """Put in the inverse of Cholesky's factor, by halves: nearly all of it is matrix products.

    Args:
        matrix: Positive definite with the ridge; what is above its diagonal is not read.
        ridge: What is added to the diagonal.
        root: Zeros of its shape.
    """
    if len(matrix) <= _AT_LEAST:
        matrix = matrix + ridge * np.eye(len(matrix), dtype=matrix.dtype)
        root[...] = np.tril(np.linalg.inv(np.linalg.cholesky(matrix)))
        return
    half = len(matrix) // 2
    first, last, between = root[:half, :half], root[half:, half:], root[half:, :half]
    _put_inverse_root(matrix[:half, :half], ridge, first)
    across = np.empty_like(between)
    for part in _parts(half):
        np.matmul(matrix[half:, : part.stop], first[part, : part.stop].T, out=across[:, part])
    rest = np.zeros_like(last)
    put_lower_of_square(across, rest)
    _put_inverse_root(np.subtract(matrix[half:, half:], rest, out=rest), ridge, last)
    for part in _parts(half):
        # What is to its left is not read again.
        across[:, part] = across[:, part.start :] @ first[part.start :, part]
    np.negative(across, out=across)
    for part in _parts(len(last)):
        np.matmul(last[part, : part.stop], across[: part.stop], out=between[part])


def _put_lower_of_transposed_square(lower: _Matrix, square: _Matrix) -> None:
    """Put in the lower triangle of a lower triangular matrix's transpose times it, by halves."""
    if len(lower) <= _AT_LEAST:
        square[...] = lower.T @ lower
        return
    half = len(lower) // 2
    across, last = lower[half:, :half], lower[half:, half:]
    _put_lower_of_transposed_square(lower[:half, :half], square[:half, :half])
    for part in _parts(half):
        square[part, : part.stop] += across[:, part].T @ across[:, : part.stop]
    for part in _parts(len(last)):
        np.matmul(last[part.start :, part].T, across[part.start :], out=square[half:, :half][part])
    _put_lower_of_transposed_square(last, square[half:, half:])


def _parts(size: int) -> list[slice]:
    """A few parts of a triangular matrix: what is 0 beside each is left out of a product."""
    length = max(-(-size // _PARTS), _AT_LEAST)
    return [slice(start, min(start + length, size)) for start in range(0, size, length)]
