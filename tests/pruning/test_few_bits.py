"""The laws of weights on few levels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydantic import ValidationError

from pycaffe_prune.pruning.few_bits import LevelRule, level_rule, on_few_levels

numbers = st.floats(-8, 8, width=32, allow_subnormal=False)
blobs = arrays(np.float32, (5, 7), elements=numbers)
masks = arrays(np.bool_, (5, 7))
rules = st.one_of(
    st.sampled_from(["binary", "ternary"]).map(lambda rule: LevelRule(rule=rule)),
    st.builds(LevelRule, rule=st.sampled_from(["min-max", "mse"]), bits=st.integers(1, 8)),
)


def _error(weights: np.ndarray, moved: np.ndarray) -> float:
    return float(np.square(weights.astype(np.float64) - moved).sum())


@settings(max_examples=60)
@given(blobs, rules, st.none() | masks)
def test_there_are_as_many_levels_as_told_and_what_is_pruned_is_zero(weights, rule, kept):
    before = weights.copy()
    moved = on_few_levels(weights, rule, kept)

    alive = np.ones(weights.shape, np.bool_) if kept is None else kept
    assert moved.shape == weights.shape
    assert moved.dtype == np.float32
    assert len(np.unique(moved[alive])) <= rule.count
    assert (moved[~alive].view(np.int32) == 0).all()
    assert (weights == before).all()


@settings(max_examples=60)
@given(blobs, rules, st.none() | masks)
def test_doing_it_again_changes_nothing(weights, rule, kept):
    once = on_few_levels(weights, rule, kept)
    assert np.array_equal(on_few_levels(once, rule, kept), once)


@settings(max_examples=60)
@given(blobs, st.integers(1, 8))
def test_min_max_moves_no_weight_by_more_than_half_a_step(weights, bits):
    moved = on_few_levels(weights, LevelRule(rule="min-max", bits=bits))
    step = (float(weights.max()) - float(weights.min())) / ((1 << bits) - 1)

    assert np.abs(moved - weights).max() <= step / 2 + 1e-6 * np.abs(weights).max()
    assert {moved.min(), moved.max()} == {weights.min(), weights.max()}


@settings(max_examples=60)
@given(blobs, st.integers(1, 8), st.none() | masks)
def test_the_least_error_is_never_more_than_that_of_min_max(weights, bits, kept):
    least, whole = (
        on_few_levels(weights, LevelRule(rule=rule, bits=bits), kept) for rule in ("mse", "min-max")
    )
    kept = np.ones(weights.shape, np.bool_) if kept is None else kept
    assert _error(weights[kept], least[kept]) <= _error(weights[kept], whole[kept])


@settings(max_examples=30)
@given(blobs, masks)
def test_what_is_pruned_counts_for_no_level(weights, kept):
    other = np.where(kept, weights, np.float32(100))
    for rule in map(level_rule, ("2bits", "3bits:min-max", "binary", "ternary")):
        assert np.array_equal(on_few_levels(weights, rule, kept), on_few_levels(other, rule, kept))


def test_binary_and_ternary_are_their_formulas():
    weights = np.array([-3, -1, -0.5, 0, 0.25, 1, 2.25], np.float32)
    assert np.allclose(on_few_levels(weights, level_rule("binary")), [*[-8 / 7] * 3, *[8 / 7] * 4])
    # 0.7 * 8 / 7 = 0.8: above are 3, 1, 1 and 2.25
    level = 7.25 / 4
    assert np.allclose(
        on_few_levels(weights, level_rule("ternary")), [-level, -level, 0, 0, 0, level, level]
    )


def test_for_a_normal_distribution_cut_levels_have_the_least_error_that_is_known():
    weights = np.random.default_rng(0).normal(0, 0.1, 100_000).astype(np.float32)
    errors = {
        bits: _error(weights, on_few_levels(weights, level_rule(f"{bits}bits"))) / weights.size
        for bits in (1, 2, 3, 4)
    }
    # Max (1960), table II: uniform quantisers of a standard normal variable
    for bits, known in {1: 0.3634, 2: 0.1188, 3: 0.03744, 4: 0.01154}.items():
        assert errors[bits] / 0.01 == pytest.approx(known, rel=0.03)


@pytest.mark.parametrize(
    ("text", "rule", "count"),
    [
        ("binary", LevelRule(rule="binary"), 2),
        ("ternary", LevelRule(rule="ternary"), 3),
        ("1bit", LevelRule(rule="mse", bits=1), 2),
        ("4bits", LevelRule(rule="mse", bits=4), 16),
        ("4bits:min-max", LevelRule(rule="min-max", bits=4), 16),
    ],
)
def test_a_text_tells_a_rule(text, rule, count):
    assert level_rule(text) == rule
    assert level_rule(rule.told) == rule
    assert rule.count == count


@pytest.mark.parametrize("text", ["", "bits", "0bits", "9bits", "2bits:", "2 bits", "two", "4"])
def test_a_text_that_tells_none_is_refused(text):
    with pytest.raises(ValueError, match="tells no levels; these do: binary"):
        level_rule(text)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"rule": "mse"}, "the rule 'mse' needs bits, 1 to 8"),
        ({"rule": "binary", "bits": 1}, "the rule 'binary' takes no bits"),
        ({"rule": "mse", "bits": 9}, "less than or equal to 8"),
        ({"rule": "five"}, "Input should be"),
    ],
)
def test_a_rule_that_cannot_be_followed_is_refused(fields, sentence):
    with pytest.raises(ValidationError, match=sentence):
        LevelRule(**fields)
