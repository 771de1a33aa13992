"""Methods held against each other: pairs, seeds, and which side of a threshold they are on."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pycaffe_prune.reports.uncertainty.intervals import (
    Interval,
    newcombe,
    resampled,
    t_interval,
    wilson,
)
from pycaffe_prune.reports.uncertainty.trials import (
    Trial,
    accuracy_interval,
    compare,
    mean_accuracy,
    shared_level,
    side_of,
)

IMAGES = 60
SEEDS = st.lists(st.integers(1, 4), min_size=1, max_size=4, unique=True)


def trial(right: np.ndarray, seed: int = 1) -> Trial:
    return Trial(seed, int(right.sum()), len(right), right)


@st.composite
def methods(draw: st.DrawFn) -> list[Trial]:
    rights = arrays(np.bool_, IMAGES)
    return [trial(draw(rights), seed) for seed in draw(SEEDS)]


def without_answers(trials: list[Trial]) -> list[Trial]:
    return [one._replace(right=None) for one in trials]


@given(first=methods(), second=methods(), known=st.booleans())
def test_exchanging_the_two_mirrors_all(first, second, known):
    if not known:
        first, second = without_answers(first), without_answers(second)
    one, other = compare(first, second), compare(second, first)
    assert one.difference == -other.difference
    assert one.is_paired == other.is_paired == known
    tolerance = 1 / IMAGES + 1e-9  # a quantile of steps lies at the one or the other end of a step
    low, high = other.interval
    assert one.interval == pytest.approx((-high, -low), abs=tolerance)
    assert one.interval.low - 1e-9 <= one.difference <= one.interval.high + 1e-9


@given(first=methods(), known=st.booleans())
def test_a_method_is_within_noise_of_itself(first, known):
    trials = first if known else without_answers(first)
    found = compare(trials, trials)
    assert found.difference == 0
    assert side_of(found.interval) == "within noise"


def test_pairs_tell_apart_what_counts_alone_do_not():
    """Of 1,000 images 900 are right in both nets, and 15 in the first one alone."""
    second = np.arange(1_000) < 900
    first = np.arange(1_000) < 915
    pairs = compare([trial(first)], [trial(second)])
    counts = compare([Trial(1, 915, 1_000)], [Trial(1, 900, 1_000)])
    assert pairs.difference == counts.difference == Fraction(15, 1_000)
    assert side_of(pairs.interval) == "above"
    assert side_of(counts.interval) == "within noise"
    assert counts.interval == newcombe((915, 1_000), (900, 1_000))


def test_five_images_more_are_no_difference_to_the_exact_test():
    """p is 1/16; the bootstrap alone, which draws none of the other side, sees one."""
    second = np.arange(1_000) < 900
    first = np.arange(1_000) < 905
    differences = first.astype(np.int64) - second
    assert resampled(differences, 1).low > 0
    assert compare([trial(first)], [trial(second)]).interval.low == 0


def test_seeds_in_common_are_paired_and_others_left_out():
    first = [Trial(1, 90, 100), Trial(2, 80, 100), Trial(3, 70, 100)]
    second = [Trial(3, 60, 100), Trial(2, 71, 100), Trial(9, 1, 100)]
    found = compare(first, second)
    assert found.difference == Fraction(19, 200)
    assert found.over_seeds == pytest.approx(t_interval([0.09, 0.10]))


def test_one_seed_has_no_interval_over_seeds_and_images_of_the_other_side_stay():
    alone = compare([Trial(1, 90, 100)], [Trial(2, 80, 100)])
    assert alone.over_seeds is None
    assert alone.interval == alone.over_images
    several = compare([Trial(1, 90, 100), Trial(2, 60, 100)], [Trial(3, 80, 100)])
    assert several.over_seeds is not None
    assert several.interval == several.over_images.with_(several.over_seeds)


@given(first=methods(), second=methods())
def test_over_images_is_the_bootstrap_of_the_mean_over_seeds(first, second):
    found = compare(first, second)
    common = {one.seed for one in first} & {one.seed for one in second}
    if len(common) > 1:
        first = [one for one in first if one.seed in common]
        second = [one for one in second if one.seed in common]
    ones = np.mean([one.right for one in first], axis=0)
    others = np.mean([one.right for one in second], axis=0)
    scaled = np.rint((ones - others) * 12).astype(np.int64)  # 1 to 4 seeds on each side
    expected = resampled(scaled, 12)
    if len(first) == len(second) == 1:
        assert found.over_images.with_(expected) == pytest.approx(found.over_images)
    else:
        assert found.over_images == pytest.approx(expected, abs=1e-9)


def test_answers_of_other_images_are_not_paired():
    first, second = trial(np.ones(100, bool)), trial(np.ones(80, bool))
    assert not compare([first], [second]).is_paired


def test_an_accuracy_is_unsure_by_seeds_where_there_are_several():
    one = Trial(1, 90, 100)
    assert accuracy_interval([one]) == wilson(90, 100)
    assert accuracy_interval([one, Trial(2, 80, 100)]) == pytest.approx(t_interval([0.9, 0.8]))
    assert mean_accuracy([one, Trial(2, 80, 100)]) == Fraction(85, 100)


@pytest.mark.parametrize(
    ("low", "high", "side"),
    [
        (0.1, 0.2, "above"),
        (-0.1, 0.0, "within noise"),
        (0.0, 0.1, "within noise"),
        (-0.2, -0.1, "below"),
        (0.0, 0.0, "within noise"),
        (-0.1, 0.1, "within noise"),
    ],
)
def test_an_interval_that_touches_the_threshold_decides_nothing(low, high, side):
    assert side_of(Interval(low, high)) == side
    assert side_of(Interval(low + 0.5, high + 0.5), Fraction(1, 2)) == side


def test_shared_levels_leave_all_one_twentieth_to_be_wrong():
    assert shared_level(1) == shared_level(0) == pytest.approx(0.95)
    assert 10 * (1 - shared_level(10)) == pytest.approx(0.05)
