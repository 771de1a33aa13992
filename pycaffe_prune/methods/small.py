"""Small models: nets of the shapes that unit pruning gives, trained from scratch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from pycaffe_prune.engines.base import Engine, Observer
from pycaffe_prune.experiments.paths import StageFolder
from pycaffe_prune.experiments.settings import Different, Iterations, Seed
from pycaffe_prune.experiments.stages import Stage, StageOutput
from pycaffe_prune.formats.caffemodel import read_caffemodel
from pycaffe_prune.formats.prototxt import write_prototxt
from pycaffe_prune.methods.base import Bench, Chain, Method
from pycaffe_prune.net.widths import with_widths
from pycaffe_prune.pruning.counts import weight_counts

__all__ = ["Small", "SmallModel"]


class Small(Method):
    """Small models: the shapes that another method gives, trained from scratch, the best reported.

    Shares of units that round to one shape have it in common.
    """

    title: ClassVar[str] = "small model"
    setting: ClassVar[str] = "units"
    source: ClassVar[str] = "the paper"
    control: ClassVar[str | None] = "units"

    kind: Literal["small"] = "small"
    of: str = "units"
    """The method whose shapes they have; its table comes before."""
    seeds: Annotated[tuple[Seed, ...], Different] = Field(min_length=1)
    iterations: Iterations

    def check(self, layers: Sequence[str], others: Sequence[Method]) -> None:  # noqa: ARG002, D102
        if self.of not in (known := [method.called for method in others]):
            raise ValueError(
                f"of: no method before it is called '{self.of}'; there are: {', '.join(known)}"
            )

    def chains(self, bench: Bench) -> Sequence[Chain]:  # noqa: D102  (see Method)
        shapes = dict.fromkeys(chain.units for chain in bench.planned[self.of] if chain.units)
        return [
            Chain(
                (SmallModel(bench.context, self.iterations, shape, seed),),
                units=shape,
                rivals=str(shape),
            )
            for shape in shapes
            for seed in self.seeds
        ]

    def most_stages(self, others: Sequence[Method]) -> int:  # noqa: D102  (see Method)
        shapes = sum(other.most_stages(()) for other in others if other.called == self.of)
        return shapes * len(self.seeds)


@dataclass(frozen=True, eq=False)
class SmallModel(Stage):
    """A net of the shape that unit pruning gives, trained from scratch."""

    units: tuple[tuple[str, int], ...]
    """Units in each layer that is smaller than in the original."""
    seed: int

    kind = "small"

    @property
    def settings(self) -> Mapping[str, object]:  # noqa: D102  (see Stage)
        return {"units": self.units, "seed": self.seed}

    @property
    def label(self) -> str:  # noqa: D102  (see Stage)
        shape = "-".join(f"{name}-{count}" for name, count in self.units)
        return f"small-{shape}-seed{self.seed}"

    def work(self, folder: StageFolder, engine: Engine, observe: Observer) -> StageOutput:  # noqa: D102
        net = with_widths(self.context.read_net(), dict(self.units))
        write_prototxt(folder.net, net)
        result = self._train(folder, engine, observe, self.seed, net=folder.net)
        trained = read_caffemodel(folder.training.final_weights)
        kept = weight_counts(trained, self.context.layers)
        return self._found(folder, observe, result, kept, dict(self.units))
