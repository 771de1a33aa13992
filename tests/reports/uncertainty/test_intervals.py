"""Intervals and the exact test against enumeration, SciPy and simulated data."""

from itertools import product
from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from pycaffe_prune.reports.uncertainty.intervals import (
    Interval,
    mcnemar,
    newcombe,
    resampled,
    seeds_interval,
    t_interval,
    t_quantile,
    wilson,
)

COUNTS = st.integers(0, 40)
DIFFERENCES = arrays(np.int64, st.integers(1, 30), elements=st.integers(-1, 1))


@given(correct=st.integers(0, 200), more=st.integers(0, 200), level=st.floats(0.5, 0.999))
def test_wilson_is_the_interval_of_scipy(correct, more, level):
    of = correct + more + 1
    expected = stats.binomtest(correct, of).proportion_ci(level, "wilson")
    assert wilson(correct, of, level) == pytest.approx(expected, abs=1e-12)


def test_wilson_holds_the_true_share_about_as_often_as_it_says():
    right = np.random.default_rng(3).binomial(500, 0.97, 2_000)
    held = [low <= 0.97 <= high for low, high in (wilson(count, 500) for count in right)]
    assert 0.93 < np.mean(held) < 0.975


def test_newcombe_gives_the_figures_of_his_paper():
    """Statistics in Medicine 17 (1998), 873-890, table II, method 10, cases (a), (b) and (e)."""
    assert newcombe((56, 70), (48, 80)) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    assert newcombe((9, 10), (3, 10)) == pytest.approx((0.1705, 0.8090), abs=5e-5)
    assert newcombe((5, 56), (0, 29)) == pytest.approx((-0.0381, 0.1926), abs=5e-5)


@given(first=COUNTS, second=COUNTS)
def test_exchanging_the_two_mirrors_newcombe(first, second):
    low, high = newcombe((first, 40), (second, 40))
    assert newcombe((second, 40), (first, 40)) == pytest.approx((-high, -low), abs=1e-12)
    assert low <= (first - second) / 40 <= high


def test_mcnemar_is_the_share_of_tosses_as_uneven_or_more_so():
    for tosses in range(9):
        sums = [abs(2 * sum(toss) - tosses) for toss in product((0, 1), repeat=tosses)]
        for first in range(tosses + 1):
            uneven = abs(2 * first - tosses)
            expected = sum(one >= uneven for one in sums) / len(sums)
            assert mcnemar(first, tosses - first) == pytest.approx(expected, rel=1e-12)


@given(first=st.integers(0, 9_000), second=st.integers(0, 9_000))
def test_mcnemar_is_the_two_sided_binomial_test_and_is_symmetric(first, second):
    assert mcnemar(first, second) == mcnemar(second, first)
    if first + second:
        expected = stats.binomtest(first, first + second, 0.5).pvalue
        assert mcnemar(first, second) == pytest.approx(
            expected, rel=1e-7, abs=1e-290
        )  # theirs ends there
    else:
        assert mcnemar(first, second) == 1


@pytest.mark.parametrize("level", [0.4001, 0.8001, 0.9501, 0.9901])
@given(differences=arrays(np.int64, 5, elements=st.integers(-3, 3)))
def test_resampled_is_the_bootstrap_over_every_sample(level, differences):
    """Each of the 5**5 samples of five images is as likely as any other."""
    sums = differences[np.indices([5] * 5).reshape(5, -1)].sum(axis=0)
    ends = np.quantile(sums, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
    assert resampled(differences, 3, level) == pytest.approx(tuple(ends / 15), abs=1e-9)


@given(differences=DIFFERENCES, by=st.integers(-2, 2))
def test_resampled_moves_and_mirrors_with_its_values(differences, by):
    low, high = resampled(differences, 1)
    assert low <= differences.mean() <= high
    assert resampled(differences + by, 1) == pytest.approx((low + by, high + by))
    mirrored = resampled(-differences, 1)
    assert mirrored == pytest.approx((-high, -low), abs=1 / len(differences) + 1e-9)


def test_equal_answers_leave_nothing_open():
    assert resampled(np.zeros(10_000, np.int64), 1) == Interval(0, 0)
    assert resampled(np.ones(10_000, np.int64), 1) == Interval(1, 1)


def test_resampled_is_as_wide_as_theory_says_of_many_images():
    """Shares of one and the other: (1.5 - 1.2) %; a mean's error is s / sqrt(n)."""
    differences = np.zeros(100_000, np.int64)
    differences[:1_500], differences[1_500:2_700] = 1, -1
    half = stats.norm.ppf(0.9995) * differences.std() / sqrt(100_000)
    expected = (0.003 - half, 0.003 + half)
    assert resampled(differences, 1, 0.999) == pytest.approx(expected, abs=3e-5)


def test_resampled_holds_the_true_difference_about_as_often_as_it_says():
    draws = np.random.default_rng(5)
    held = []
    for _ in range(400):
        differences = draws.choice([1, 0, -1], 1_000, p=[0.03, 0.95, 0.02])
        low, high = resampled(differences, 1)
        held.append(low <= 0.01 <= high)
    assert 0.92 < np.mean(held) < 0.98


@given(degrees=st.integers(1, 200), level=st.floats(0.5, 0.9999))
def test_t_quantile_is_scipys(degrees, level):
    expected = stats.t.ppf((1 + level) / 2, degrees)
    assert t_quantile(degrees, level) == pytest.approx(expected, rel=1e-9)
    assert t_quantile(10**9, level) >= stats.norm.ppf((1 + level) / 2)


VALUES = st.lists(st.floats(0, 1), min_size=2, max_size=6)


@given(values=VALUES)
def test_t_interval_is_scipys(values):
    if np.std(values) < 1e-9:
        return
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert t_interval(values) == pytest.approx((expected.low, expected.high), abs=1e-9)


@given(first=VALUES, second=VALUES)
def test_seeds_interval_mirrors_and_is_no_narrower_than_welchs(first, second):
    found = seeds_interval(first, second)
    other = seeds_interval(second, first)
    assert found is not None
    assert other == pytest.approx((-found.high, -found.low), abs=1e-12)
    if min(np.std(first), np.std(second)) > 1e-3:
        welch = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
        assert found.low <= welch.low + 1e-9
        assert found.high >= welch.high - 1e-9


def test_a_side_of_one_seed_counts_as_known():
    values = [0.5, 0.6, 0.8]
    low, high = t_interval(values)
    assert seeds_interval(values, [0.25]) == pytest.approx((low - 0.25, high - 0.25))
    assert seeds_interval([0.5], [0.25]) is None
    assert seeds_interval([0.5, 0.5], [0.25, 0.25]) == Interval(0.25, 0.25)
