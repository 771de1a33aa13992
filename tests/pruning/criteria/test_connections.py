from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from pycaffe_prune.formats.caffemodel import read_caffemodel
from pycaffe_prune.pruning.criteria.connections import magnitude_mask, sigma_of

Weights = NDArray[np.float32]

weights_of_any_shape = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=1, max_dims=4, max_side=6),
    elements=st.floats(-1e6, 1e6, width=32),
)
alphas = st.floats(0, 5)


def pruned_by_numpy(weights: Weights, alpha: float) -> NDArray[np.bool_]:
    below: NDArray[np.bool_] = np.abs(weights) < np.float32(alpha * weights.std(dtype=np.float64))
    return below


@given(weights_of_any_shape, alphas)
def test_agrees_with_plain_numpy_weight_for_weight(weights: Weights, alpha: float) -> None:
    mask = magnitude_mask(weights, alpha * sigma_of(weights))
    assert mask.dtype == np.bool_
    np.testing.assert_array_equal(mask, ~pruned_by_numpy(weights, alpha))


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 1.5, 2.0, 2.8])
@pytest.mark.parametrize("layer", ["conv1", "conv2", "ip1", "ip2"])
def test_agrees_with_plain_numpy_on_a_trained_lenet(
    data_dir: Path, layer: str, alpha: float
) -> None:
    model = read_caffemodel(data_dir / "zoo" / "lenet" / "lenet_iter_10000.caffemodel")
    weights = model.layer(layer).blobs[0]
    mask = magnitude_mask(weights, alpha * sigma_of(weights))
    np.testing.assert_array_equal(mask, ~pruned_by_numpy(weights, alpha))
    assert mask.all() == (alpha == 0)


@given(weights_of_any_shape, alphas, alphas)
def test_a_higher_alpha_keeps_a_subset(weights: Weights, one: float, other: float) -> None:
    low, high = sorted((one, other))
    sigma = sigma_of(weights)
    kept_low = magnitude_mask(weights, low * sigma)
    kept_high = magnitude_mask(weights, high * sigma)
    assert not (kept_high & ~kept_low).any()
    assert kept_high.mean() <= kept_low.mean()


@given(weights_of_any_shape, alphas, st.data())
def test_a_mask_only_shrinks(weights: Weights, alpha: float, data: st.DataObject) -> None:
    before = data.draw(hnp.arrays(np.bool_, weights.shape))
    copy = before.copy()
    threshold = alpha * sigma_of(weights)
    after = magnitude_mask(weights, threshold, before)
    np.testing.assert_array_equal(after, before & magnitude_mask(weights, threshold))
    np.testing.assert_array_equal(before, copy)


@given(weights_of_any_shape, st.data())
def test_a_weight_at_the_threshold_is_kept_and_one_just_below_is_not(
    weights: Weights, data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, weights.size - 1))
    size = abs(weights.reshape(-1)[place])
    assert magnitude_mask(weights, float(size)).reshape(-1)[place]
    just_above = np.nextafter(size, np.float32(np.inf), dtype=np.float32)
    assert not magnitude_mask(weights, float(just_above)).reshape(-1)[place]


def test_alpha_zero_prunes_nothing_not_even_exact_zeros() -> None:
    weights = np.array([0.0, -0.0, 1e-45, -1.0], np.float32)
    assert magnitude_mask(weights, 0.0).all()


def test_equal_weights_have_no_deviation_and_stay() -> None:
    weights = np.full((3, 4), 0.25, np.float32)
    assert sigma_of(weights) == 0.0
    assert magnitude_mask(weights, 9 * sigma_of(weights)).all()


@given(weights_of_any_shape, st.data())
def test_sigma_is_the_population_deviation_of_the_kept_weights(
    weights: Weights, data: st.DataObject
) -> None:
    kept = data.draw(hnp.arrays(np.bool_, weights.shape))
    for mask in (kept, None):
        values = [float(w) for w in (weights if mask is None else weights[mask]).reshape(-1)]
        mean = sum(values) / max(len(values), 1)
        variance = sum((value - mean) ** 2 for value in values) / max(len(values), 1)
        largest = max(map(abs, values), default=0.0)
        assert sigma_of(weights, mask) == pytest.approx(
            variance**0.5, rel=1e-9, abs=1e-12 * largest
        )


def test_sigma_is_computed_in_double_precision() -> None:
    noise = np.random.default_rng(0).integers(0, 2, 10_000)
    weights = (2.0**23 + noise).astype(np.float32)  # each exact in float32, their sum is not
    assert sigma_of(weights) == pytest.approx(noise.std(), rel=1e-9)
