"""Laws of the factors: how far their product is from the weights, and what each of them weighs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.pruning.low_rank import Way, as_blobs, as_matrices, decompose

extent = st.integers(1, 5)


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, Way, int]:
    """Weights, how they are read as a matrix, and their groups."""
    way = draw(st.sampled_from(list(Way)))
    groups = 1 if way is Way.MATRIX else draw(st.sampled_from([1, 2, 3]))
    axes = {Way.MATRIX: 0, Way.SPATIAL: 2}.get(way, draw(st.integers(1, 3)))
    shape = (groups * draw(extent), draw(extent), *(draw(extent) for _ in range(axes)))
    random = np.random.default_rng(draw(st.integers(0, 99)))
    return random.normal(size=shape).astype(np.float32), way, groups


@settings(max_examples=40)
@given(cases(), st.floats(0, 1))
def test_the_error_is_what_the_left_out_singular_values_tell(
    case: tuple[np.ndarray, Way, int], share: float
) -> None:
    weights, way, groups = case
    matrices = as_matrices(weights, way, groups)
    found = decompose(matrices)
    rank = 1 + int(share * (found.full_rank - 1))
    factors = found.cut(rank)
    error = np.square(matrices - factors.second @ factors.first).sum()
    np.testing.assert_allclose(error, np.square(found.values[:, rank:]).sum(), atol=1e-9)
    total = np.square(weights.astype(np.float64)).sum()
    np.testing.assert_allclose(1 - error / total, found.energy(rank), atol=1e-9)
    # Both weigh the same, each half of the singular values' sum.
    for part in (factors.first, factors.second):
        np.testing.assert_allclose(np.square(part).sum(), found.values[:, :rank].sum())


@settings(max_examples=40)
@given(cases())
def test_both_blobs_give_the_weights_back_at_full_rank(
    case: tuple[np.ndarray, Way, int],
) -> None:
    weights, way, groups = case
    found = decompose(as_matrices(weights, way, groups))
    first, second = as_blobs(found.cut(found.full_rank), way, weights.shape)
    assert len(first) == groups * found.full_rank
    assert second.shape[:2] == (len(weights), found.full_rank)
    # What the two layers in a row do to an impulse, written out.
    of_group = np.stack(np.split(second, groups))
    by_rank = np.stack(np.split(first, groups))
    if way is Way.SPATIAL:
        product = np.einsum("gfrw,grch->gfchw", of_group[..., 0, :], by_rank[..., 0])
    else:
        product = np.einsum(
            "gfr,grc->gfc",
            of_group.reshape(groups, -1, found.full_rank),
            by_rank.reshape(groups, found.full_rank, -1),
        )
    np.testing.assert_allclose(product.reshape(weights.shape), weights, atol=1e-5)


@settings(max_examples=30)
@given(cases(), st.floats(0.001, 1))
def test_the_rank_of_an_energy_is_the_lowest_that_keeps_it(
    case: tuple[np.ndarray, Way, int], energy: float
) -> None:
    found = decompose(as_matrices(*case))
    rank = found.rank_of(energy)
    assert found.energy(rank) >= energy or rank == found.full_rank
    assert rank == 1 or found.energy(rank - 1) < energy
    assert (np.diff(found.energies) >= 0).all()


@settings(max_examples=20)
@given(cases())
def test_the_singular_values_are_lapacks(case: tuple[np.ndarray, Way, int]) -> None:
    matrices = as_matrices(*case)
    wanted = np.linalg.svd(matrices, compute_uv=False)
    found = decompose(matrices)
    np.testing.assert_allclose(found.values, wanted, atol=1e-7 * wanted.max())
    whole = found.left @ (found.values[:, :, None] * found.right)
    np.testing.assert_allclose(whole, matrices, atol=1e-12)


def test_a_matrix_of_a_low_rank_is_told_by_its_energy() -> None:
    random = np.random.default_rng(1)
    low = random.normal(size=(1, 30, 3)) @ random.normal(size=(1, 3, 40))
    found = decompose(low)
    factors = found.cut(found.rank_of(1 - 1e-12))
    assert factors.rank == 3
    np.testing.assert_allclose(factors.second @ factors.first, low, atol=1e-9)


def test_weights_that_are_all_zero_have_rank_1() -> None:
    found = decompose(as_matrices(np.zeros((3, 4), np.float32), Way.MATRIX))
    assert found.rank_of(1.0) == 1
    assert not found.cut(1).first.any()


@pytest.mark.parametrize("rank", [0, 4])
def test_there_is_no_rank_beyond_the_full_one(rank: int) -> None:
    found = decompose(as_matrices(np.ones((3, 4), np.float32), Way.MATRIX))
    with pytest.raises(SurgeryError, match=f"ranks from 1 to 3, not {rank}"):
        found.cut(rank)
