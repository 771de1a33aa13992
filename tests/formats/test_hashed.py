"""The hash of hashed layers: reproducible everywhere, even, and exact both ways."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pycaffe_prune.formats.hashed import MAX_SEED, bucket_values, buckets_and_signs, hashed_blob

sizes = st.tuples(st.integers(1, 12), st.integers(1, 12))
seeds = st.integers(0, MAX_SEED)


def one(place: int, buckets: int, seed: int) -> tuple[int, int]:
    """The written formula, in Python's whole numbers."""
    word = 2**64 - 1
    z = (seed + (place + 1) * 0x9E3779B97F4A7C15) & word
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & word
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & word
    z ^= z >> 31
    return ((z >> 32) * buckets) >> 32, -1 if z & 1 else 1


@settings(max_examples=25)
@given(st.integers(1, 40), st.integers(1, 2**32 - 1), seeds)
def test_buckets_and_signs_are_those_of_the_formula(size, buckets, seed):
    places, signs = buckets_and_signs(size, buckets, seed)
    assert list(zip(places.tolist(), signs.tolist(), strict=True)) == [
        one(place, buckets, seed) for place in range(size)
    ]
    assert places.max() < buckets


def test_it_is_splitmix64():
    # The first outputs of Vigna's splitmix64.c begun at 1234567
    known = (6457827717110365317, 3203168211198807973, 9817491932198370423)
    places, signs = buckets_and_signs(3, 2**32 - 1, 1234567)
    for place, sign, z in zip(places, signs, known, strict=True):
        assert place == ((z >> 32) * (2**32 - 1)) >> 32
        assert sign == (-1 if z & 1 else 1)


@settings(max_examples=25)
@given(sizes, st.integers(1, 30), seeds)
def test_values_come_back_from_the_weights_that_they_make(shape, buckets, seed):
    values = np.random.default_rng(0).normal(size=buckets).astype(np.float32)
    blob = hashed_blob(values, shape, seed)
    assert blob.shape == shape
    found = bucket_values(blob, buckets, seed)
    assert found is not None
    assert np.array_equal(hashed_blob(found, shape, seed), blob)
    used = np.unique(buckets_and_signs(blob.size, buckets, seed)[0])
    assert np.array_equal(found[used], values[used])
    rest = np.setdiff1d(np.arange(buckets), used)
    assert not found[rest].any()


def test_weights_of_another_hash_have_no_values():
    blob = hashed_blob(np.arange(1, 9, dtype=np.float32), (10, 20), 3)
    assert bucket_values(blob, 8, 4) is None
    assert bucket_values(blob, 7, 3) is None
    blob[4, 5] = np.nextafter(blob[4, 5], np.float32(9))
    assert bucket_values(blob, 8, 3) is None


def test_buckets_and_signs_are_even_and_rows_are_not_alike():
    places, signs = buckets_and_signs(300 * 784, 1000, 1)
    counts = np.bincount(places, minlength=1000)
    assert abs(signs.mean()) < 0.01
    # Each count is near Poisson with the mean 235.2; chi-squared of 999 degrees of freedom
    assert abs(((counts - 235.2) ** 2 / 235.2).sum() - 999) < 4 * (2 * 999) ** 0.5
    rows = places.reshape(300, 784)
    assert (rows[0] == rows[1]).mean() < 0.02
    other = buckets_and_signs(300 * 784, 1000, 2)[0]
    assert (places == other).mean() < 0.005
