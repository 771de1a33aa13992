from collections.abc import Callable, Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pycaffe_prune.errors import FormatError, PruneError, SurgeryError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter
from pycaffe_prune.formats.caffemodel import BlobKey, Caffemodel, Layer
from pycaffe_prune.formats.mask import Mask
from pycaffe_prune.pruning.connections import (
    DEFAULT_SIGMA_RULE,
    SigmaRule,
    alpha_for_count,
    apply_masks,
    global_thresholds,
    layer_thresholds,
    nonzero_where_masked,
    prune_connections,
    prune_to_global_ratio,
    prune_to_ratios,
    resulting_thresholds,
    thresholds,
)

NAMES = ["ip1", "ip2"]
seeds = st.integers(0, 2**32 - 1)
alphas = st.floats(0, 4)


def trained(seed: int, scale: float = 1.0) -> Caffemodel:
    """6-7-3 with a convolution before it; weights of ``scale``."""
    random = np.random.default_rng(seed)

    def layer(name: str, layer_type: str, *shapes: tuple[int, ...]) -> Layer:
        blobs = (random.normal(0, scale, shape).astype(np.float32) for shape in shapes)
        return Layer(LayerParameter(name=name, type=layer_type), tuple(blobs))

    return Caffemodel(
        (
            layer("conv1", "Convolution", (2, 1, 3, 3), (2,)),
            layer("ip1", "InnerProduct", (7, 6), (7,)),
            layer("relu1", "ReLU"),
            layer("ip2", "InnerProduct", (3, 7), (3,)),
        )
    )


def with_weights(model: Caffemodel, name: str, weights: NDArray[np.float32]) -> Caffemodel:
    return model.with_blobs({(name, 0): weights})


def bits(values: NDArray[np.float32]) -> NDArray[np.uint32]:
    return np.ascontiguousarray(values).view(np.uint32)


@given(seeds, alphas)
def test_small_weights_become_zero_and_the_rest_keeps_its_bits(seed: int, alpha: float) -> None:
    model = trained(seed)
    pruned, masks = prune_connections(model, thresholds(model, model, alpha, NAMES))
    assert set(masks) == {("ip1", 0), ("ip2", 0)}
    for name in NAMES:
        before, after = model.layer(name).blobs[0], pruned.layer(name).blobs[0]
        small = np.abs(before) < np.float32(alpha * before.std(dtype=np.float64))
        np.testing.assert_array_equal(masks[name, 0], ~small)
        np.testing.assert_array_equal(bits(after), np.where(small, 0, bits(before)))
        assert after.dtype == np.float32
    assert not any(nonzero_where_masked(pruned, masks).values())


@given(seeds, alphas)
def test_biases_and_layers_not_named_are_the_same_memory(seed: int, alpha: float) -> None:
    model = trained(seed)
    copies = [blob.copy() for _, blob in model.blobs()]
    pruned, masks = prune_connections(model, thresholds(model, model, alpha, ["ip2"]))
    assert set(masks) == {("ip2", 0)}
    for (place, before), (_, after), copy in zip(
        model.blobs(), pruned.blobs(), copies, strict=True
    ):
        assert (after is before) == (place != ("ip2", 0))
        np.testing.assert_array_equal(before, copy)


@given(seeds, st.lists(alphas, min_size=2, max_size=5), st.sampled_from(SigmaRule))
def test_pruned_stays_pruned_though_weights_grow_again(
    seed: int, rounds: list[float], rule: SigmaRule
) -> None:
    original = current = trained(seed)
    masks: dict[BlobKey, Mask] = {}
    for number, alpha in enumerate(rounds, 1):
        limits = thresholds(original, current, alpha, NAMES, masks=masks, rule=rule)
        pruned, kept = prune_connections(current, limits, masks)
        for place, mask in masks.items():
            assert not (kept[place] & ~mask).any()
            assert not pruned.layer(place[0]).blobs[0][~mask].any()
        masks = kept
        current = trained(seed + number, scale=100)  # retraining without a mask: all grown


def test_a_layer_left_out_of_a_later_round_keeps_its_mask() -> None:
    model = trained(3)
    _, first = prune_connections(model, thresholds(model, model, 1.0, NAMES))
    grown = trained(4)
    pruned, second = prune_connections(grown, thresholds(model, grown, 2, ["ip2"]), first)
    np.testing.assert_array_equal(second["ip1", 0], first["ip1", 0])
    assert not any(nonzero_where_masked(pruned, first).values())
    assert first["ip2", 0].sum() > second["ip2", 0].sum()


def test_sigma_is_that_of_the_weights_that_the_rule_names() -> None:
    original, current = trained(1), trained(2, scale=3)
    kept = np.random.default_rng(0).random((7, 6)) < 0.5
    masks = {("ip1", 0): kept}
    first, now = original.layer("ip1").blobs[0], current.layer("ip1").blobs[0]
    expected = {
        SigmaRule.INITIAL: first.std(dtype=np.float64),
        SigmaRule.ALL: now.std(dtype=np.float64),
        SigmaRule.SURVIVORS: now[kept].std(dtype=np.float64),
    }
    assert len(set(expected.values())) == len(SigmaRule)
    for rule, sigma in expected.items():
        limits = thresholds(original, current, 1.5, ["ip1"], masks=masks, rule=rule)
        assert limits == {("ip1", 0): pytest.approx(1.5 * sigma, rel=1e-12)}


def test_survivors_of_no_mask_are_all_weights() -> None:
    model = trained(1)
    by_rule = [thresholds(model, model, 2, NAMES, rule=rule) for rule in SigmaRule]
    assert by_rule[0] == by_rule[1] == by_rule[2]


@given(seeds, alphas)
def test_the_papers_thresholds_do_not_move_when_the_weights_do(seed: int, alpha: float) -> None:
    original = trained(seed)
    start = thresholds(original, original, alpha, NAMES)
    assert DEFAULT_SIGMA_RULE is SigmaRule.INITIAL
    assert thresholds(original, trained(seed + 1, scale=9), alpha, NAMES) == start


def test_alpha_zero_prunes_nothing_and_keeps_exact_zeros() -> None:
    zeros = np.zeros((7, 6), np.float32)
    zeros[0] = 1
    model = with_weights(trained(0), "ip1", zeros)
    pruned, masks = prune_connections(model, thresholds(model, model, 0, NAMES))
    assert all(mask.all() for mask in masks.values())
    np.testing.assert_array_equal(pruned.layer("ip1").blobs[0], zeros)


def test_a_masked_value_becomes_plus_zero_whatever_it_was() -> None:
    weights = np.full((7, 6), -0.0, np.float32)
    weights[0], weights[1], weights[2], weights[3] = np.nan, -np.inf, np.inf, -1
    mask = np.ones((7, 6), np.bool_)
    mask[:5] = False
    (after, _) = (
        apply_masks(with_weights(trained(0), "ip1", weights), {("ip1", 0): mask}).layer("ip1").blobs
    )
    assert not bits(after)[:5].any()
    np.testing.assert_array_equal(bits(after)[5:], bits(weights)[5:])  # kept: -0.0 as it was


def test_a_revived_weight_is_found() -> None:
    model = trained(0)
    pruned, masks = prune_connections(model, thresholds(model, model, 1, NAMES))
    assert nonzero_where_masked(pruned, masks) == {("ip1", 0): 0, ("ip2", 0): 0}
    weights = pruned.layer("ip2").blobs[0].copy()
    dead = np.argwhere(~masks["ip2", 0])
    weights[tuple(dead[0])], weights[tuple(dead[1])] = 1e-30, np.nan
    revived = with_weights(pruned, "ip2", weights)
    assert nonzero_where_masked(revived, masks) == {("ip1", 0): 0, ("ip2", 0): 2}


@pytest.mark.parametrize("alpha", [-0.1, float("nan"), float("inf")])
def test_an_alpha_that_is_no_multiple_is_refused(alpha: float) -> None:
    model = trained(0)
    with pytest.raises(SurgeryError, match=f"alpha .* not {alpha}"):
        thresholds(model, model, alpha, NAMES)
    with pytest.raises(SurgeryError, match=f"alpha .* not {alpha}"):
        layer_thresholds(model, model, {"ip1": 1.0, "ip2": alpha})
    with pytest.raises(SurgeryError, match=f"alpha .* not {alpha}"):
        global_thresholds(model, model, alpha, NAMES)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(bad: float) -> None:
    good = trained(0)
    weights = good.layer("ip1").blobs[0].copy()
    weights[0, 0] = bad
    model = with_weights(good, "ip1", weights)
    message = r"layer 'ip1', blob 0 \(7x6\): 1 of 42 values are NaN or infinite"
    with pytest.raises(SurgeryError, match=message):
        thresholds(model, model, 1, NAMES)
    with pytest.raises(SurgeryError, match=message):
        prune_connections(model, thresholds(good, good, 1, NAMES))
    with pytest.raises(SurgeryError, match=message):
        prune_to_ratios(model, {"ip1": 0.5})
    thresholds(model, model, 1, ["ip2"])


ALL_LAYERS = ["conv1", "ip1", "ip2"]
ratios = st.floats(0, 1, exclude_max=True)


def pruned_counts(masks: Mapping[BlobKey, Mask]) -> dict[str, int]:
    return {name: int((~mask).sum()) for (name, _), mask in masks.items()}


@given(seeds, st.dictionaries(st.sampled_from(ALL_LAYERS), alphas, min_size=1))
def test_an_alpha_for_each_layer_is_each_layer_by_itself(
    seed: int, alpha_of: dict[str, float]
) -> None:
    model = trained(seed)
    limits = layer_thresholds(model, model, alpha_of)
    together, masks = prune_connections(model, limits)
    step = model
    for name, alpha in alpha_of.items():
        step, mask = prune_connections(step, thresholds(model, model, alpha, [name]))
        np.testing.assert_array_equal(mask[name, 0], masks[name, 0])
    for (_, one), (_, other) in zip(together.blobs(), step.blobs(), strict=True):
        np.testing.assert_array_equal(bits(one), bits(other))


@given(seeds, alphas, st.sampled_from(SigmaRule))
def test_a_global_threshold_is_that_of_all_weights_as_one_layer(
    seed: int, alpha: float, rule: SigmaRule
) -> None:
    original, current = trained(seed), trained(seed + 1, scale=3)
    random = np.random.default_rng(seed)
    masks = {
        (name, 0): random.random(current.layer(name).blobs[0].shape) < 0.7 for name in ALL_LAYERS
    }
    limits = global_thresholds(original, current, alpha, ALL_LAYERS, masks=masks, rule=rule)
    source = original if rule is SigmaRule.INITIAL else current
    parts = [
        source.layer(name).blobs[0][masks[name, 0]]
        if rule is SigmaRule.SURVIVORS
        else source.layer(name).blobs[0].reshape(-1)
        for name in ALL_LAYERS
    ]
    sigma = np.concatenate(parts).std(dtype=np.float64)
    assert list(limits) == [(name, 0) for name in ALL_LAYERS]
    assert set(limits.values()) == {limits["ip1", 0]}
    assert limits["ip1", 0] == pytest.approx(alpha * sigma, rel=1e-12)


@given(seeds, st.dictionaries(st.sampled_from(ALL_LAYERS), ratios, min_size=1))
def test_a_ratio_prunes_exactly_its_share_of_each_layer(
    seed: int, ratio_of: dict[str, float]
) -> None:
    model = trained(seed)
    pruned, masks = prune_to_ratios(model, ratio_of)
    expected = {
        name: round(ratio * model.layer(name).blobs[0].size) for name, ratio in ratio_of.items()
    }
    assert pruned_counts(masks) == expected
    assert not any(nonzero_where_masked(pruned, masks).values())
    limits = resulting_thresholds(model, masks)
    for (name, _), mask in masks.items():
        size = np.abs(model.layer(name).blobs[0])
        assert size[mask].min(initial=np.inf) >= size[~mask].max(initial=0)
        np.testing.assert_array_equal(mask, size >= np.float32(limits[name, 0]))


@given(seeds, ratios)
def test_a_global_ratio_prunes_exactly_its_share_of_all_and_only_the_smallest(
    seed: int, ratio: float
) -> None:
    model = trained(seed)
    pruned, masks = prune_to_global_ratio(model, ratio, ALL_LAYERS)
    sizes = {name: np.abs(model.layer(name).blobs[0]) for name in ALL_LAYERS}
    total = sum(size.size for size in sizes.values())
    assert sum(pruned_counts(masks).values()) == round(ratio * total)
    kept = [size[masks[name, 0]].min(initial=np.inf) for name, size in sizes.items()]
    gone = [size[~masks[name, 0]].max(initial=0) for name, size in sizes.items()]
    assert min(kept) >= max(gone)
    assert not any(nonzero_where_masked(pruned, masks).values())


@given(seeds, ratios, ratios, st.booleans())
def test_ratios_in_rounds_count_what_is_gone_and_masks_only_shrink(
    seed: int, one: float, other: float, together: bool
) -> None:
    def prune(
        model: Caffemodel, ratio: float, before: Mapping[BlobKey, Mask] | None
    ) -> tuple[Caffemodel, dict[BlobKey, Mask]]:
        if together:
            return prune_to_global_ratio(model, ratio, ALL_LAYERS, before)
        return prune_to_ratios(model, dict.fromkeys(ALL_LAYERS, ratio), before)

    low, high = sorted((one, other))
    pruned, first = prune(trained(seed), low, None)
    again, same = prune(pruned, low, first)
    for key, mask in first.items():
        np.testing.assert_array_equal(same[key], mask)
        np.testing.assert_array_equal(
            bits(again.layer(key[0]).blobs[0]), bits(pruned.layer(key[0]).blobs[0])
        )
    grown = trained(seed + 1, scale=100)
    after, second = prune(grown, high, first)
    total = sum(mask.size for mask in second.values())
    expected = (
        round(high * total) if together else sum(round(high * m.size) for m in second.values())
    )
    assert sum(pruned_counts(second).values()) == expected
    for key, mask in first.items():
        assert not (second[key] & ~mask).any()
    assert not any(nonzero_where_masked(after, first).values())
    _, fewer = prune(grown, low / 2, first)
    assert pruned_counts(fewer) == pruned_counts(first)


def test_ratio_zero_prunes_nothing_and_exact_zeros_go_first() -> None:
    weights = np.ones((7, 6), np.float32)
    weights[3:5] = 0
    model = with_weights(trained(0), "ip1", weights)
    _, masks = prune_to_ratios(model, {"ip1": 0.0})
    assert masks["ip1", 0].all()
    _, masks = prune_to_ratios(model, {"ip1": 12 / 42})
    np.testing.assert_array_equal(masks["ip1", 0], weights != 0)


@pytest.mark.parametrize("ratio", [-0.1, 1.0, 90.0, float("nan")])
def test_a_ratio_that_is_no_share_is_refused(ratio: float) -> None:
    with pytest.raises(SurgeryError, match=f"share .* not {ratio}"):
        prune_to_ratios(trained(0), {"ip1": ratio})
    with pytest.raises(SurgeryError, match=f"share .* not {ratio}"):
        prune_to_global_ratio(trained(0), ratio, NAMES)


@given(seeds, st.integers(0, 81))
def test_one_alpha_for_a_count_is_the_largest_that_prunes_no_more(seed: int, count: int) -> None:
    model = trained(seed)
    alpha = alpha_for_count(model, ALL_LAYERS, count)

    def pruned(at: float) -> int:
        _, masks = prune_connections(model, thresholds(model, model, at, ALL_LAYERS))
        return sum(pruned_counts(masks).values())

    assert pruned(alpha) <= count
    assert pruned(alpha * 1.001 + 1e-6) >= count
    if count < 81:
        assert pruned(alpha) >= count - 1


def test_no_alpha_prunes_more_than_all_weights() -> None:
    model = with_weights(trained(0), "ip1", np.full((7, 6), 0.5, np.float32))
    alpha = alpha_for_count(model, ["ip1"], 3)
    _, masks = prune_connections(model, thresholds(model, model, alpha, ["ip1"]))
    assert masks["ip1", 0].all()


TRANSPOSED = {("ip1", 0): np.ones((6, 7), np.bool_)}
MASK_OF_ANOTHER_SHAPE: list[Callable[[Caffemodel], object]] = [
    lambda model: apply_masks(model, TRANSPOSED),
    lambda model: nonzero_where_masked(model, TRANSPOSED),
    lambda model: prune_connections(model, {("ip1", 0): 0.5}, TRANSPOSED),
    lambda model: prune_connections(model, {("ip2", 0): 0.5}, TRANSPOSED),
    lambda model: thresholds(model, model, 1, ["ip1"], masks=TRANSPOSED, rule=SigmaRule.SURVIVORS),
    lambda model: prune_to_ratios(model, {"ip1": 0.5}, TRANSPOSED),
    lambda model: prune_to_global_ratio(model, 0.5, NAMES, TRANSPOSED),
]


@pytest.mark.parametrize("use", MASK_OF_ANOTHER_SHAPE)
def test_a_mask_of_another_shape_is_refused_with_both_shapes(
    use: Callable[[Caffemodel], object],
) -> None:
    with pytest.raises(SurgeryError, match=r"layer 'ip1', blob 0: the mask is 6x7 .* are 7x6"):
        use(trained(0))


def test_an_unpruned_network_of_another_shape_is_refused_with_both_shapes() -> None:
    other = with_weights(trained(0), "ip1", np.ones((4, 6), np.float32))
    with pytest.raises(SurgeryError, match=r"layer 'ip1'.* 4x6.* 7x6"):
        thresholds(other, trained(0), 1, NAMES)


ALL = np.ones((1,), np.bool_)
MISSING: list[tuple[Callable[[Caffemodel], object], type[PruneError], str]] = [
    (lambda model: thresholds(model, model, 1, ["ip9"]), FormatError, "'ip9'.*conv1, ip1, ip2"),
    (lambda model: thresholds(model, model, 1, ["relu1"]), SurgeryError, r"'relu1' \(ReLU\)"),
    (lambda model: prune_connections(model, {("ip9", 0): 1.0}), FormatError, "'ip9'"),
    (lambda model: prune_connections(model, {("relu1", 0): 1.0}), SurgeryError, "'relu1'"),
    (lambda model: prune_to_ratios(model, {"ip9": 0.5}), FormatError, "'ip9'"),
    (lambda model: prune_to_global_ratio(model, 0.5, ["relu1"]), SurgeryError, "'relu1'"),
    (lambda model: apply_masks(model, {("ip9", 0): ALL}), FormatError, "'ip9'"),
    (lambda model: apply_masks(model, {("ip1", 2): ALL}), SurgeryError, "'ip1'.* 2 blobs.* 2"),
    (lambda model: nonzero_where_masked(model, {("ip9", 0): ALL}), FormatError, "'ip9'"),
    (lambda model: nonzero_where_masked(model, {("relu1", 0): ALL}), SurgeryError, "'relu1'"),
]


@pytest.mark.parametrize(("use", "error", "message"), MISSING)
def test_a_layer_or_blob_that_is_not_there_is_named(
    use: Callable[[Caffemodel], object], error: type[PruneError], message: str
) -> None:
    with pytest.raises(error, match=message):
        use(trained(0))
