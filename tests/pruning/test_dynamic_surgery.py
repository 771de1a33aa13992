import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pycaffe_prune.pruning.dynamic_surgery import (
    surgery_chance,
    surgery_draw,
    surgery_limits,
    surgery_mask,
)

SHAPE = (5, 7)
weights = arrays(np.float32, SHAPE, elements=st.floats(-4, 4, width=32))
masks = arrays(np.bool_, SHAPE)
limits = st.tuples(st.floats(0, 2, width=32), st.floats(2, 4, width=32)).map(
    lambda pair: (np.float32(pair[0]), np.float32(pair[1]))
)


@settings(max_examples=30)
@given(weights, masks, limits)
def test_small_weights_go_large_ones_come_and_what_lies_between_stays(blob, kept, pair):
    mask = surgery_mask(blob, kept, pair)

    sizes = np.abs(blob)
    assert not mask[sizes < pair[0]].any()
    assert mask[sizes >= pair[1]].all()
    between = (sizes >= pair[0]) & (sizes < pair[1])
    assert (mask[between] == kept[between]).all()


@settings(max_examples=30)
@given(weights, masks, limits)
def test_weights_that_do_not_move_are_judged_the_same_again(blob, kept, pair):
    once = surgery_mask(blob, kept, pair)

    assert (surgery_mask(blob, once, pair) == once).all()


def test_a_pruned_weight_that_grows_comes_back():
    kept = surgery_mask(np.float32([0.1]), np.array([True]), (np.float32(0.9), np.float32(1.1)))
    grown = [surgery_mask(np.float32([size]), kept, (0.9, 1.1))[0] for size in (1.0, 1.2, -1.2)]

    assert not kept[0]
    assert grown == [False, True, True]


def test_limits_lie_a_tenth_below_and_above_mean_and_deviations_of_what_is_not_zero():
    blob = np.float32([[0.5, -1.5], [0, 3.0]])
    sizes = np.array([0.5, 1.5, 3.0])
    middle = sizes.mean() + 2 * np.sqrt(np.mean((sizes - sizes.mean()) ** 2))

    assert surgery_limits(blob, 2) == pytest.approx((0.9 * middle, 1.1 * middle))
    kept = np.array([[True, True], [True, False]])
    assert surgery_limits(blob, 0, kept) == pytest.approx((0.9, 1.1))
    assert surgery_limits(blob, -100) == (0, 0)
    assert surgery_limits(np.zeros((2, 2), np.float32), 1) == (0, 0)


def test_no_weight_goes_where_the_limits_are_zero():
    kept = np.ones((2, 2), np.bool_)

    assert surgery_mask(np.float32([[0, 1], [-0.0, -2]]), kept, (np.float32(0),) * 2).all()


def test_the_chance_is_one_at_first_and_falls():
    chances = [surgery_chance(iteration, 1e-4, 1) for iteration in (0, 1000, 10000)]

    assert chances == pytest.approx([1, 1 / 1.1, 0.5])
    assert surgery_chance(10**6, 0, 1) == surgery_chance(10**6, 1, 0) == 1


def test_draws_are_even_and_depend_on_all_that_they_are_made_of():
    draws = np.array([[surgery_draw(3, at, place) for at in range(4000)] for place in (0, 1)])

    assert draws.min() >= 0
    assert draws.max() < 1
    counts, _ = np.histogram(draws, 10, (0, 1))
    assert np.abs(counts - 800).max() < 5 * np.sqrt(800)
    assert abs(np.corrcoef(draws)[0, 1]) < 0.1
    assert abs(np.corrcoef(draws[0, :-1], draws[0, 1:])[0, 1]) < 0.1
    assert len({surgery_draw(*of) for of in ((1, 2, 3), (2, 1, 3), (1, 3, 2), (2**63, 2, 3))}) == 4
    assert surgery_draw(3, 5, 0) == draws[0, 5]
