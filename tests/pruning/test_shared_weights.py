import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.cluster import KMeans

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.pruning.shared_weights import INITS, SortedWeights, share, with_shared

blobs = arrays(
    np.float32,
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    elements=st.sampled_from([0.0, -0.0, 0.5]) | st.floats(-2, 2, width=32),
)
inits = st.sampled_from(INITS)


@settings(max_examples=60)
@given(blobs, st.integers(1, 5), inits)
def test_pruned_weights_stay_zero_and_the_others_share_at_most_so_many_values(blob, bits, init):
    shared = with_shared(blob, share(blob, bits, init))

    assert shared.dtype == np.float32
    assert ((shared != 0) == (blob != 0)).all()
    assert not np.signbit(shared[blob == 0]).any()
    assert np.unique(shared[shared != 0]).size <= 1 << bits


@settings(max_examples=40)
@given(blobs, st.integers(1, 4), inits)
def test_what_shares_values_already_keeps_them(blob, bits, init):
    once = with_shared(blob, share(blob, bits, init))

    assert (with_shared(once, share(once, bits, init)) == once).all()
    few = share(blob, 8, init)  # fewer weights than values
    assert (with_shared(blob, few) == blob).all()
    assert len(few.codebook) == np.unique(blob[blob != 0]).size


@settings(max_examples=60)
@given(
    arrays(np.float32, st.integers(8, 60), elements=st.floats(-2, 2, width=32)),
    st.integers(1, 8),
    inits,
)
def test_the_error_never_grows_from_one_step_to_the_next(values, count, init):
    line = SortedWeights(values)
    centroids = line.start(count, init, seed=1)
    for _ in range(12):
        moved = line.step(centroids)
        assert moved.shape == (count,)
        assert (np.diff(moved) >= 0).all()
        assert line.error(moved) <= line.error(centroids) * (1 + 1e-9) + 1e-12
        centroids = moved


@settings(max_examples=40)
@given(blobs, st.integers(1, 3), inits)
def test_each_weight_has_the_nearest_value_of_the_codebook_and_each_value_is_used(blob, bits, init):
    codebook, codes = share(blob, bits, init)
    alive = blob[blob != 0].astype(np.float64)
    distances = np.abs(alive[:, None] - codebook.astype(np.float64))

    if alive.size:
        assert np.abs(alive - codebook[codes]) == pytest.approx(distances.min(1), abs=1e-12)
    assert set(codes.tolist()) == set(range(len(codebook)))
    assert (np.diff(codebook) > 0).all()


@pytest.mark.parametrize("init", INITS)
def test_it_is_as_good_as_scikit_learns_k_means_and_faster(init):
    random = np.random.default_rng(7)
    weights = random.normal(0, 0.1, 30_000).astype(np.float32)
    weights = weights[np.abs(weights) > 0.08]
    begun = time.thread_time()
    codebook, codes = share(weights, 6, init)
    ours = time.thread_time() - begun
    start = SortedWeights(weights).start(64, init, 0)[:, None]
    begun = time.thread_time()
    known = KMeans(64, init=start, n_init=1, max_iter=60).fit(weights[:, None])
    theirs = time.thread_time() - begun

    error = np.square(weights - codebook[codes].astype(np.float64)).sum()
    assert error <= 1.01 * known.inertia_
    assert ours < theirs


def test_the_three_beginnings():
    line = SortedWeights(np.array([9, 0, 1, 2, 3, 4, 5, 6], np.float32))

    assert line.start(4, "linear", 0) == pytest.approx([0, 3, 6, 9])
    assert line.start(4, "density", 0).tolist() == [1, 3, 5, 9]
    drawn = line.start(4, "random", 5)
    assert (drawn == line.start(4, "random", 5)).all()
    assert set(drawn) < set(line.values)


def test_an_outlier_costs_a_linear_beginning_no_values():
    weights = np.append(np.linspace(-1, 1, 999, dtype=np.float32), np.float32(100))
    codebook, _ = share(weights, 4, "linear")

    assert len(codebook) == 16
    assert np.count_nonzero(np.abs(codebook) <= 1) == 15


def test_a_value_of_exactly_zero_would_prune():
    weights = np.array([-3, -2.5, -0.25, 0.25, 2.5, 3, 0, 8, 8.5], np.float32)
    codebook, codes = share(weights, 2)
    shared = with_shared(weights, share(weights, 2))

    assert np.abs(codebook).min() < 1e-30  # the mean of the two in the middle
    assert np.count_nonzero(shared) == len(codes) == 8


def test_nothing_left_has_no_codebook():
    codebook, codes = share(np.zeros((3, 4), np.float32), 5)

    assert codebook.shape == codes.shape == (0,)


def test_no_numbers_and_no_bits_are_refused():
    for bad in (np.nan, np.inf):
        with pytest.raises(SurgeryError, match="NaN or infinite"):
            share(np.array([1, bad], np.float32), 4)
    for bits in (0, 17):
        with pytest.raises(ValueError, match="give 1 to 16"):
            share(np.ones(3, np.float32), bits)
