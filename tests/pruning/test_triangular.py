import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pycaffe_prune.pruning.triangular import (
    inverse_of,
    mirror,
    put_lower_of_square,
    solve_upper,
)


@settings(max_examples=20)
@given(st.integers(1, 600), st.integers(0, 99), st.sampled_from(["float32", "float64"]))
def test_an_inverse_times_its_matrix_is_1_in_its_precision(size: int, seed: int, kind: str) -> None:
    factor = np.random.default_rng(seed).normal(size=(size, size)) / size**0.5
    without_ridge = (factor @ factor.T + np.eye(size) / 2).astype(kind)
    matrix = without_ridge + np.eye(size, dtype=kind) / 2
    # What is above the diagonal is not read.
    inverse = inverse_of(np.tril(without_ridge) + np.triu(np.full_like(matrix, np.nan), 1), 0.5)
    assert inverse.dtype == matrix.dtype
    np.testing.assert_array_equal(inverse, inverse.T)
    tolerance = 1e-4 if kind == "float32" else 1e-12
    np.testing.assert_allclose(inverse @ matrix, np.eye(size), atol=tolerance)


@settings(max_examples=20)
@given(st.integers(1, 600), st.integers(0, 99))
def test_what_is_below_the_diagonal_has_no_part_in_a_solution(size: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    whole = random.normal(size=(size, size)) / size + np.eye(size)
    wanted = random.normal(size=(size, 3))
    found = np.triu(whole) @ wanted
    solve_upper(whole, found)
    np.testing.assert_allclose(found, wanted, atol=1e-9)


@pytest.mark.parametrize("size", [3, 300])
def test_what_is_not_positive_definite_is_refused(size: int) -> None:
    with pytest.raises(np.linalg.LinAlgError):
        inverse_of(-np.eye(size), 0.5)


@settings(max_examples=20)
@given(st.sampled_from([1, 63, 64, 65, 200, 1024, 1025, 2100]), st.integers(1, 20))
def test_a_lower_square_mirrored_is_the_product_with_the_transpose(size: int, inputs: int) -> None:
    rows = np.random.default_rng(size).normal(size=(size, inputs))
    square = np.full((size, size), np.nan)
    put_lower_of_square(rows, square)
    mirror(square)
    np.testing.assert_array_equal(square, square.T)
    np.testing.assert_allclose(square, rows @ rows.T, atol=1e-12)
