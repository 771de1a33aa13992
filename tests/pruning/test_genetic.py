import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.pruning.genetic import Evolved, GeneticSearch, Pool, evolve

QUICK = GeneticSearch(population=12, generations=8)
Flags = NDArray[np.bool_]


@st.composite
def pools(draw: st.DrawFn) -> list[Pool]:
    found = []
    for _ in range(draw(st.integers(1, 3))):
        layers = tuple(draw(st.lists(st.integers(1, 9), min_size=1, max_size=3)))
        found.append(Pool(layers, draw(st.integers(0, sum(layers) - len(layers)))))
    return found


def weighed(seed: int, units: int) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(size=units)


def search(of: list[Pool], seed: int, how: GeneticSearch = QUICK) -> tuple[Evolved, list[Flags]]:
    """Search for the heaviest units; give back all that was judged as well."""
    weights = weighed(seed, sum(pool.units for pool in of))
    judged: list[Flags] = []

    def fitness(kept: Flags) -> float:
        judged.append(kept.copy())
        return float(weights[kept].sum())

    return evolve(of, [], fitness, how, seed), judged


@settings(max_examples=30)
@given(pools(), st.integers(0, 99))
def test_every_set_has_the_exact_number_and_leaves_each_layer_a_unit(
    of: list[Pool], seed: int
) -> None:
    found, judged = search(of, seed)
    for kept in [found.kept, *judged]:
        start = 0
        for pool in of:
            part = kept[start : start + pool.units]
            assert int((~part).sum()) == pool.gone
            assert all(layer.any() for layer in np.split(part, np.cumsum(pool.layers)[:-1]))
            start += pool.units
    assert len({kept.tobytes() for kept in judged}) == len(judged) == found.judged  # once each
    assert list(found.history) == sorted(found.history)
    assert (
        found.fitness
        == found.history[-1]
        == max(weighed(seed, len(found.kept))[kept].sum() for kept in judged)
    )


@settings(max_examples=10)
@given(pools(), st.integers(0, 99))
def test_the_same_seed_gives_the_same(of: list[Pool], seed: int) -> None:
    first, again = search(of, seed)[0], search(of, seed)[0]
    assert first.kept.tolist() == again.kept.tolist()
    assert first.history == again.history


def test_it_finds_what_is_best_and_another_seed_goes_another_way() -> None:
    of = [Pool((30,), 20), Pool((8, 12), 10)]
    found, judged = search(of, 3, GeneticSearch(population=40, generations=80))
    weights = weighed(3, 50)
    best = np.sort(weights[:30])[20:].sum() + np.sort(weights[30:])[10:].sum()
    assert found.fitness == pytest.approx(best, abs=0.3)
    assert found.history[0] < best - 2
    other = evolve(of, [], lambda kept: float(weights[kept].sum()), QUICK, 4)
    assert other.history[0] != found.history[0]
    assert len(judged) < 40 * 81


def test_it_is_never_worse_than_what_it_begins_with() -> None:
    of, weights = [Pool((40,), 20)], weighed(1, 40)
    best = np.ones(40, np.bool_)
    best[np.argsort(weights)[:20]] = False
    found = evolve(of, [best], lambda kept: float(weights[kept].sum()), QUICK, 0)
    assert found.kept.tolist() == best.tolist()
    assert set(found.history) == {float(weights[best].sum())}


def test_what_cannot_be_searched_is_refused() -> None:
    def nothing(_: Flags) -> float:
        return 0.0

    with pytest.raises(SurgeryError, match="5 of 6 units of 2 layers cannot go"):
        evolve([Pool((3, 3), 5)], [], nothing, QUICK, 0)
    with pytest.raises(SurgeryError, match="an initial set of units"):
        evolve([Pool((4,), 2)], [np.array([True, False, False, False])], nothing, QUICK, 0)
    with pytest.raises(SurgeryError, match="population of 2"):
        evolve([Pool((4,), 2)], [], nothing, GeneticSearch(population=1), 0)
