"""Units deleted at random: the control of every method that chooses."""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from pycaffe_prune.experiments.settings import Different, Seed
from pycaffe_prune.methods.base import Bench, Chain, Method
from pycaffe_prune.methods.unit_points import RankedUnits, Shares, UnitMethod

__all__ = ["RandomUnits"]


class RandomUnits(UnitMethod):
    """Units deleted at random, once for each seed, and retrained once: the control."""

    title: ClassVar[str] = "random units"
    source: ClassVar[str] = "control"

    kind: Literal["random-units"] = "random-units"
    seeds: Annotated[tuple[Seed, ...], Different, Field(min_length=1)] = (1,)
    """Of the choice; each gives a point of its own at every ratio."""

    def chains(self, bench: Bench) -> Sequence[Chain]:  # noqa: D102  (see Method)
        return [
            Chain(
                (self._seeded(bench, self.shares(bench, ratio), seed),),
                ratio,
                self.left(bench, ratio),
                note=f"seed {seed}" if len(self.seeds) > 1 else "",
            )
            for ratio in self.ratios
            for seed in self.seeds
        ]

    def stage(self, bench: Bench, shares: Shares) -> RankedUnits:  # noqa: D102  (see UnitMethod)
        return self._seeded(bench, shares, self.seeds[0])

    def _seeded(self, bench: Bench, shares: Shares, seed: int) -> RankedUnits:
        return RankedUnits(bench.context, self.iterations, bench.baselines, shares, "random", seed)

    def most_stages(self, others: Sequence[Method]) -> int:  # noqa: ARG002, D102  (see Method)
        return len(self.ratios) * len(self.seeds)
