"""Who wins: the nearest net at or beyond a level, and all that cannot be told from the best."""

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pycaffe_prune.reports.uncertainty.trials import Trial
from pycaffe_prune.reports.uncertainty.winners import Entrant, winner_at

NINETY = Fraction(9, 10)


def entrant(method: str, kept: int, *correct: int, of: int = 1_000) -> Entrant:
    trials = tuple(Trial(seed, right, of) for seed, right in enumerate(correct))
    return Entrant(method, f"{kept} %", Fraction(kept, 100), trials)


ENTRANTS = st.lists(
    st.builds(entrant, st.sampled_from("abc"), st.integers(0, 30), st.integers(0, 1_000)),
    max_size=9,
)


@given(entrants=ENTRANTS)
def test_each_method_enters_once_with_its_nearest_net_at_or_beyond(entrants):
    found = winner_at(entrants, NINETY)
    beyond = [one for one in entrants if one.kept <= Fraction(1, 10)]
    if not beyond:
        assert found is None
        return
    assert found is not None
    entered = [found.best, *(rival.entrant for rival in found.rivals)]
    assert sorted(one.method for one in entered) == sorted({one.method for one in beyond})
    for one in entered:
        assert one.kept == max(other.kept for other in beyond if other.method == one.method)
    accuracies = [one.accuracy for one in entered]
    assert accuracies == sorted(accuracies, reverse=True)
    assert all(rival.comparison.difference >= 0 for rival in found.rivals)


@given(entrants=ENTRANTS, seed=st.randoms())
def test_the_order_of_the_points_is_no_matter(entrants, seed):
    found = winner_at(entrants, NINETY)
    seed.shuffle(entrants)
    assert winner_at(entrants, NINETY) == found


def test_a_better_net_further_off_does_not_enter():
    found = winner_at([entrant("a", 10, 900), entrant("a", 5, 990), entrant("b", 9, 950)], NINETY)
    assert found is not None
    assert (found.best.method, found.rivals[0].entrant.setting) == ("b", "10 %")


def test_rivals_are_within_noise_or_beaten():
    found = winner_at([entrant("a", 10, 950), entrant("b", 10, 945), entrant("c", 10, 800)], NINETY)
    assert found is not None
    assert [rival.entrant.method for rival in found.rivals] == ["b", "c"]
    assert [rival.entrant.method for rival in found.within_noise] == ["b"]


def test_known_answers_beat_a_rival_that_counts_alone_do_not():
    right = np.arange(1_000) < 950
    less = right & (np.arange(1_000) >= 20)
    pair = [
        Entrant(name, "", Fraction(1, 10), (Trial(1, int(one.sum()), 1_000, one),))
        for name, one in (("a", right), ("b", less))
    ]
    blind = [entrant("a", 10, 950), entrant("b", 10, 930)]
    for entrants, beaten in ((pair, True), (blind, False)):
        found = winner_at(entrants, NINETY)
        assert found is not None
        assert found.rivals[0].is_within_noise != beaten


def test_equal_methods_are_rivals_within_noise():
    found = winner_at([entrant("a", 10, 950, 940), entrant("b", 10, 950, 940)], NINETY)
    assert found is not None
    assert len(found.within_noise) == 1
