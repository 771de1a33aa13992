"""Units chosen by a genetic search on held-out training images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import Field

from pycaffe_prune.engines.base import Engine
from pycaffe_prune.errors import DataError
from pycaffe_prune.experiments.features.genetic_units import genetic_units
from pycaffe_prune.experiments.settings import Seed
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel
from pycaffe_prune.methods.base import Bench
from pycaffe_prune.methods.unit_points import Shares, UnitMethod, UnitPoint, images_of
from pycaffe_prune.pruning.genetic import GeneticSearch
from pycaffe_prune.pruning.units import Kept

__all__ = ["Genetic", "GeneticStage"]

_MOST = 1_000_000


class Genetic(UnitMethod):
    """Units chosen by a genetic search on the last training images, and retrained once."""

    title: ClassVar[str] = "genetic search"
    source: ClassVar[str] = "the survey's third group"

    kind: Literal["genetic"] = "genetic"
    scope: Literal["layer", "all"] = "layer"
    """Whether each layer loses its share, or all layers together theirs."""
    images: int = Field(default=5000, gt=0, lt=_MOST)
    """The last so many training images judge."""
    population: int = Field(default=GeneticSearch.population, ge=2, lt=_MOST)
    generations: int = Field(default=GeneticSearch.generations, ge=0, lt=_MOST)
    seed: Seed = 0
    """Of the search."""

    def stage(self, bench: Bench, shares: Shares) -> "GeneticStage":  # noqa: D102
        return GeneticStage(
            bench.context,
            self.iterations,
            bench.baselines,
            shares,
            self.scope,
            self.images,
            GeneticSearch(self.population, self.generations),
            self.seed,
        )

    def left(  # noqa: D102  (see UnitMethod)
        self, bench: Bench, ratio: float
    ) -> tuple[tuple[str, int], ...] | None:
        return super().left(bench, ratio) if self.scope == "layer" else None


@dataclass(frozen=True, eq=False)
class GeneticStage(UnitPoint):
    """Search for the units to keep, retrain once."""

    scope: str
    images: int
    search: GeneticSearch
    seed: int

    kind = "genetic"

    @property
    def settings(self) -> Mapping[str, object]:  # noqa: D102  (see Stage)
        return {
            **super().settings,
            "scope": self.scope,
            "images": self.images,
            "population": self.search.population,
            "generations": self.search.generations,
            "seed": self.seed,
        }

    @property
    def label(self) -> str:  # noqa: D102  (see Stage)
        return super().label + ("-over-all" if self.scope == "all" else "")

    def choose(
        self, net: NetParameter, model: Caffemodel, engine: Engine
    ) -> tuple[Caffemodel, Kept]:
        """Return the weights as they are, and which units are kept.

        Raises:
            DataError: There are fewer training images.
        """
        source = images_of(self.context, net)
        if self.images > source.count:
            raise DataError(f"{source.database}: holds {source.count} images, not {self.images}")
        layers: Sequence[str] = [name for name, _ in self.shares]
        found = genetic_units(
            net,
            self.context.net,
            model,
            layers,
            dict(self.shares) if self.scope == "layer" else self.shares[0][1],
            source,
            range(source.count - self.images, source.count),
            engine,
            search=self.search,
            seed=self.seed,
            trust=self.context.trust,
        )
        return model, found.kept
