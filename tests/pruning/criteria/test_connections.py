from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffemodel import read_caffemodel
from pycaffe_prune.pruning.criteria.connections import (
    magnitude_mask,
    pooled_sigma,
    rank_mask,
    rank_masks,
    sigma_of,
    smallest_kept,
    weights_to_prune,
)

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


layers_of_weights = st.lists(weights_of_any_shape, min_size=1, max_size=3)
# Few values, so that many are equal, zeros of both signs among them.
tied_weights = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=1, max_dims=3, max_side=6),
    elements=st.sampled_from([0.0, -0.0, 0.5, -0.5, 1e-45, 3.0]),
)
any_layers = st.one_of(layers_of_weights, st.lists(tied_weights, min_size=1, max_size=3))


def masks_for(layers: list[Weights], data: st.DataObject) -> list[NDArray[np.bool_] | None]:
    return [
        data.draw(st.one_of(st.none(), hnp.arrays(np.bool_, weights.shape))) for weights in layers
    ]


@given(layers_of_weights, st.data())
def test_pooled_sigma_is_that_of_all_the_weights_in_one_array(
    layers: list[Weights], data: st.DataObject
) -> None:
    masks = masks_for(layers, data)
    whole = np.concatenate([weights.reshape(-1) for weights in layers])
    kept = np.concatenate(
        [
            np.ones(weights.size, np.bool_) if mask is None else mask.reshape(-1)
            for weights, mask in zip(layers, masks, strict=True)
        ]
    )
    largest = float(np.abs(whole).max())
    assert pooled_sigma(layers, masks) == pytest.approx(
        sigma_of(whole, kept), rel=1e-9, abs=1e-12 * largest
    )


def rank_by_sorting(
    layers: list[Weights], count: int, masks: list[NDArray[np.bool_] | None]
) -> NDArray[np.bool_]:
    """Which of all weights are kept: what was pruned before goes first, then by |w| and place."""
    size = np.concatenate([np.abs(weights).reshape(-1) for weights in layers])
    before = np.concatenate(
        [
            np.ones(weights.size, np.bool_) if mask is None else mask.reshape(-1)
            for weights, mask in zip(layers, masks, strict=True)
        ]
    )
    kept = before.copy()
    order = np.lexsort((np.arange(size.size), size, before))
    kept[order[:count]] = False
    return kept


@given(any_layers, st.data())
def test_rank_masks_prune_what_sorting_would(layers: list[Weights], data: st.DataObject) -> None:
    count = data.draw(st.integers(0, sum(weights.size for weights in layers)))
    before = masks_for(layers, data)
    copies = [None if mask is None else mask.copy() for mask in before]
    masks = rank_masks(layers, count, before)
    assert [mask.shape for mask in masks] == [weights.shape for weights in layers]
    found = np.concatenate([mask.reshape(-1) for mask in masks])
    np.testing.assert_array_equal(found, rank_by_sorting(layers, count, before))
    for mask, copy in zip(before, copies, strict=True):
        assert (mask is None) == (copy is None)
        if mask is not None and copy is not None:
            np.testing.assert_array_equal(mask, copy)


@given(any_layers, st.data())
def test_the_count_is_exact_over_all_layers_and_every_kept_weight_at_least_as_large(
    layers: list[Weights], data: st.DataObject
) -> None:
    count = data.draw(st.integers(0, sum(weights.size for weights in layers)))
    masks = rank_masks(layers, count, [None] * len(layers))
    assert sum(int((~mask).sum()) for mask in masks) == count
    pairs = list(zip(layers, masks, strict=True))
    kept = [float(size) for weights, mask in pairs for size in np.abs(weights[mask])]
    gone = [float(size) for weights, mask in pairs for size in np.abs(weights[~mask])]
    assert min(kept, default=np.inf) >= max(gone, default=0.0)


@given(any_layers, st.data())
def test_more_pruning_keeps_a_subset_and_the_same_again_changes_nothing(
    layers: list[Weights], data: st.DataObject
) -> None:
    total = sum(weights.size for weights in layers)
    few = data.draw(st.integers(0, total))
    many = data.draw(st.integers(few, total))
    first = rank_masks(layers, few, [None] * len(layers))
    for again in (few, max(0, few - 1)):
        for one, other in zip(first, rank_masks(layers, again, first), strict=True):
            np.testing.assert_array_equal(one, other)
    in_steps = rank_masks(layers, many, first)
    at_once = rank_masks(layers, many, [None] * len(layers))
    for one, step, once in zip(first, in_steps, at_once, strict=True):
        assert not (step & ~one).any()
        np.testing.assert_array_equal(step, once)


def test_ranks_reach_over_blocks_and_share_upper_halves() -> None:
    random = np.random.default_rng(0)
    weights = random.normal(size=200_000).astype(np.float32)
    weights[::3] = 1 + random.integers(0, 50, weights[::3].size).astype(np.float32) * 2**-23
    for count in (1, 60_000, 120_001, 199_999):
        mask = rank_mask(weights, count)
        np.testing.assert_array_equal(mask, rank_by_sorting([weights], count, [None]))


@given(weights_of_any_shape, st.data())
def test_the_threshold_of_distinct_ranks_is_that_of_the_magnitude_rule(
    weights: Weights, data: st.DataObject
) -> None:
    count = data.draw(st.integers(0, weights.size))
    mask = rank_mask(weights, count)
    limit = smallest_kept([weights], [mask])
    by_threshold = magnitude_mask(weights, limit)
    assert not (mask & ~by_threshold).any()
    if np.unique(np.abs(weights)).size == weights.size:
        np.testing.assert_array_equal(mask, by_threshold)


@given(st.integers(0, 10**8), st.floats(0, 1, exclude_max=True))
def test_a_ratio_prunes_its_share_rounded(weights: int, ratio: float) -> None:
    assert abs(weights_to_prune(weights, ratio) - ratio * weights) <= 0.5 + 1e-9 * weights


@pytest.mark.parametrize("ratio", [-0.1, 1.0, 90, float("nan")])
def test_a_ratio_that_is_no_share_is_refused(ratio: float) -> None:
    with pytest.raises(SurgeryError, match=f"not {ratio}"):
        weights_to_prune(100, ratio)
