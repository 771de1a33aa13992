"""A genetic search for the units to keep: their number is fixed, a fitness is to be told.

Individuals are sets of units. Two parents' child keeps what both keep, and of what one of them
keeps as many as are missing, drawn at random; a mutation swaps kept units for others. The next
generation are the best of parents and children, so that the best of all is never lost. It is all
seeded, and a set that was judged once is not judged again.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.errors import SurgeryError

__all__ = ["Evolved", "Fitness", "GeneticSearch", "Pool", "evolve"]

Flags = NDArray[np.bool_]

Fitness = Callable[[Flags], float]
"""Judges a set of units, shape (all units,), True = kept: the higher, the better."""


@dataclass(frozen=True)
class GeneticSearch:
    """How long and how widely is searched."""

    population: int = 40
    generations: int = 50
    rivals: int = 3
    """A parent is the best of so many, drawn at random."""
    swaps: float = 0.02
    """Share of a child's kept units that a mutation swaps on average."""


@dataclass(frozen=True)
class Pool:
    """Units of which a fixed number goes: those of one layer, or of several in one."""

    layers: tuple[int, ...]
    """The units of each layer; each keeps one at least."""
    gone: int

    @property
    def units(self) -> int:
        """All of them."""
        return sum(self.layers)


@dataclass(frozen=True)
class Evolved:
    """What a search has found."""

    kept: Flags
    fitness: float
    history: tuple[float, ...]
    """The best fitness of the initial population, and after each generation."""
    judged: int
    """So many different sets."""


def evolve(
    pools: Sequence[Pool],
    initial: Sequence[Flags],
    fitness: Fitness,
    search: GeneticSearch,
    seed: int,
) -> Evolved:
    """Search for the set of units with the highest fitness.

    Args:
        pools: One after another they make up all units.
        initial: Sets to begin with, shape (all units,); random ones fill up the population.
        fitness: Judges a set. It must always give the same answer.
        search: How long and how widely.
        seed: Of all that is drawn.

    Returns:
        The best set that was seen; of equally good ones the one that was seen first.

    Raises:
        SurgeryError: A pool cannot lose so many units, or a set of ``initial`` keeps others.
    """
    for pool in pools:
        if not 0 <= pool.gone <= pool.units - len(pool.layers):
            raise SurgeryError(
                f"{pool.gone} of {pool.units} units of {len(pool.layers)} layers cannot go, each "
                "layer keeps one"
            )
    if any(not _belongs(kept, pools) for kept in initial):
        raise SurgeryError("an initial set of units keeps too many, too few or none of a layer")
    if search.population < 2 or search.generations < 0:
        raise SurgeryError("a genetic search has a population of 2 at least, and 0 rounds or more")
    breeder = _Breeder(pools, search, np.random.default_rng(seed))
    judge = _Judge(fitness)
    starting = [kept.copy() for kept in initial]
    starting += [breeder.random() for _ in range(search.population - len(starting))]
    ranked = judge.best(starting, search.population)
    history = [judge.of(ranked[0])]
    for _ in range(search.generations):
        children = list(breeder.children(ranked))
        ranked = judge.best([*ranked, *children], search.population)
        history.append(judge.of(ranked[0]))
    return Evolved(ranked[0], history[-1], tuple(history), len(judge.known))


def _slices(pools: Sequence[Pool]) -> Iterator[tuple[Pool, slice]]:
    start = 0
    for pool in pools:
        yield pool, slice(start, start + pool.units)
        start += pool.units


def _belongs(kept: Flags, pools: Sequence[Pool]) -> bool:
    if kept.shape != (sum(pool.units for pool in pools),):
        return False
    for pool, at in _slices(pools):
        layers = np.split(kept[at], np.cumsum(pool.layers)[:-1])
        if int((~kept[at]).sum()) != pool.gone or not all(layer.any() for layer in layers):
            return False
    return True


@dataclass
class _Judge:
    fitness: Fitness
    known: dict[bytes, float] = field(default_factory=dict)

    def of(self, kept: Flags) -> float:
        key = np.packbits(kept).tobytes()
        if key not in self.known:
            self.known[key] = self.fitness(kept)
        return self.known[key]

    def best(self, sets: Sequence[Flags], count: int) -> list[Flags]:
        """The best of different sets; of equally good ones the earlier."""
        different = list({kept.tobytes(): kept for kept in reversed(sets)}.values())[::-1]
        return sorted(different, key=self.of, reverse=True)[:count]


@dataclass
class _Breeder:
    pools: Sequence[Pool]
    search: GeneticSearch
    random_numbers: np.random.Generator

    def random(self) -> Flags:
        kept = np.ones(sum(pool.units for pool in self.pools), np.bool_)
        for pool, at in _slices(self.pools):
            kept[at] = self._valid(pool, self._drop(np.ones(pool.units, np.bool_), pool.gone))
        return kept

    def children(self, parents: Sequence[Flags]) -> Iterator[Flags]:
        """Yield as many as a population has; ``parents`` are in order, the best first."""
        for _ in range(self.search.population):
            drawn = self.random_numbers.integers(0, len(parents), (2, self.search.rivals))
            mother, father = (parents[int(row.min())] for row in drawn)
            child = np.empty_like(mother)
            for pool, at in _slices(self.pools):
                crossed = self._crossed(mother[at], father[at])
                child[at] = self._valid(pool, self._mutated(crossed))
            yield child

    def _crossed(self, mother: Flags, father: Flags) -> Flags:
        either = mother | father
        free = np.flatnonzero(mother ^ father)
        child = either.copy()
        child[self.random_numbers.permutation(free)[: len(free) // 2]] = False
        return child

    def _mutated(self, kept: Flags) -> Flags:
        staying, gone = np.flatnonzero(kept), np.flatnonzero(~kept)
        wanted = int(self.random_numbers.binomial(len(staying), self.search.swaps))
        swaps = min(wanted, len(gone))
        kept[self.random_numbers.permutation(staying)[:swaps]] = False
        kept[self.random_numbers.permutation(gone)[:swaps]] = True
        return kept

    def _drop(self, kept: Flags, count: int) -> Flags:
        kept[self.random_numbers.permutation(np.flatnonzero(kept))[:count]] = False
        return kept

    def _valid(self, pool: Pool, kept: Flags) -> Flags:
        """Give a layer that has lost all its units one back, from a layer that has several."""
        layers = np.split(kept, np.cumsum(pool.layers)[:-1])  # views
        for empty in [layer for layer in layers if not layer.any()]:
            largest = max(layers, key=np.count_nonzero)
            self._drop(largest, 1)
            empty[int(self.random_numbers.integers(empty.size))] = True
        return kept
