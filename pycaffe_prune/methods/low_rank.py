"""Two layers of a low rank for one, by singular value decomposition, and fine-tuned as two."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from pycaffe_prune.engines.base import Engine, Observer
from pycaffe_prune.errors import FormatError
from pycaffe_prune.experiments.baselines import Baseline, best
from pycaffe_prune.experiments.paths import StageFolder
from pycaffe_prune.experiments.result import Setting
from pycaffe_prune.experiments.settings import Different
from pycaffe_prune.experiments.stages import Stage, StageOutput
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, read_caffemodel, write_caffemodel
from pycaffe_prune.formats.prototxt import write_prototxt
from pycaffe_prune.methods.base import Bench, Chain, Method, Retraining
from pycaffe_prune.pruning.counts import weight_counts
from pycaffe_prune.pruning.factoring import (
    Factoring,
    decompose_layers,
    factor_layers,
    left_out_of_factoring,
    ways_of,
)
from pycaffe_prune.pruning.low_rank import Way
from pycaffe_prune.pruning.ranks import (
    paying_ranks,
    ranks_of_energy,
    ranks_within,
    weight_costs,
)

__all__ = ["LowRank", "LowRankPoint", "require_layers"]

_Part = Annotated[float, Field(gt=0, le=1)]
_Kept = Literal["energy", "parameters"]


class LowRank(Method):
    """Layers factored by their largest singular values, and both factors fine-tuned."""

    title: ClassVar[str] = "low rank"
    setting: ClassVar[str] = "share"
    source: ClassVar[str] = "Denton et al. 2014"

    kind: Literal["low-rank"] = "low-rank"
    parameters: Annotated[tuple[_Part, ...], Different] = ()
    """Shares of the layers' weights that the factors may have in all, one a point."""
    energies: Annotated[tuple[_Part, ...], Different] = ()
    """Or shares of the squared singular values that are kept in each layer."""
    layers: Annotated[tuple[str, ...], Different] = ()
    """Convolutions too; none: the experiment's layers."""
    convolutions: Literal["spatial", "filters"] = "spatial"
    iterations: int = Field(ge=0, lt=1 << 31)
    """Of fine-tuning; 0: none, the factors are tested as they are."""

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> Self:
        if bool(self.parameters) == bool(self.energies):
            raise ValueError("give either parameters or energies: the shares that are kept")
        return self

    @property
    def _kept(self) -> _Kept:
        return "parameters" if self.parameters else "energy"

    def chains(self, bench: Bench) -> Sequence[Chain]:  # noqa: D102  (see Method)
        layers = require_layers(self.called, bench.net, self.layers or bench.context.layers)
        return [
            Chain(
                (
                    LowRankPoint(
                        bench.context,
                        self.iterations,
                        bench.baselines,
                        layers,
                        Way(self.convolutions),
                        self._kept,
                        share,
                    ),
                ),
                share,
            )
            for share in self.parameters or self.energies
        ]

    def most_stages(self, others: Sequence[Method]) -> int:  # noqa: ARG002, D102  (see Method)
        return len(self.parameters or self.energies)

    def tell(self, value: float | None, units: Mapping[str, int] | None) -> Setting:
        """Return the share, and in words what it is a share of."""
        found = super().tell(value, units)
        return found.model_copy(update={"text": f"{self._kept} = {value:g}"})


def require_layers(called: str, net: NetParameter, layers: Sequence[str]) -> tuple[str, ...]:
    """Return the names in the net's order.

    Raises:
        FormatError: The net lacks one.
    """
    names = list(dict.fromkeys(layer.name for layer in net.layer))
    if unknown := [name for name in layers if name not in names]:
        raise FormatError(f"method '{called}': the net has no layer '{unknown[0]}'")
    return tuple(name for name in names if name in layers)


@dataclass(frozen=True, eq=False)
class LowRankPoint(Retraining):
    """Layers factored at once, all that there is then retrained once."""

    baselines: tuple[Baseline, ...]
    layers: tuple[str, ...]
    way: Way
    """Of Convolutions."""
    kept: _Kept
    share: float
    """Of what is kept."""

    kind = "low-rank"

    @property
    def inputs(self) -> tuple[Stage, ...]:  # noqa: D102  (see Stage)
        return self.baselines

    @property
    def settings(self) -> Mapping[str, object]:  # noqa: D102  (see Stage)
        return {
            "factored": self.layers,
            "way": self.way.value,
            "kept": self.kept,
            "share": self.share,
        }

    @property
    def label(self) -> str:  # noqa: D102  (see Stage)
        return f"low-rank-{self.kept}-{self.share:g}"

    def work(self, folder: StageFolder, engine: Engine, observe: Observer) -> StageOutput:  # noqa: D102
        start = best(self.baselines)
        net = self.context.read_net()
        original = read_caffemodel(start.folder.training.final_weights)
        kept = weight_counts(original, self.context.layers)
        small_net, small, left = self._factored(net, original)
        write_prototxt(folder.net, small_net)
        write_caffemodel(folder.pruned, small)
        result = self._train(
            folder, engine, observe, start.seed, net=folder.net, weights=folder.pruned
        )
        counted = {name: left.get(name, count) for name, count in kept.items()}
        return self._found(folder, observe, result, counted, None)

    def _factored(
        self, net: NetParameter, model: Caffemodel
    ) -> tuple[NetParameter, Caffemodel, dict[str, int]]:
        """The net and weights of two layers for one, and how many weights these have."""
        left_out = left_out_of_factoring(net, model)
        for name in self.layers:
            if name in left_out:
                raise FormatError(f"layer '{name}' cannot be factored: it {left_out[name]}")
        ways = ways_of(net, self.layers, self.way)
        found = decompose_layers(net, model, ways)
        taken = weight_costs(found)
        if self.kept == "energy":
            shares = dict.fromkeys(self.layers, self.share)
            ranks = paying_ranks(ranks_of_energy(found, shares), taken)
        else:
            amount = self.share * sum(cost.whole for cost in taken.values())
            ranks = ranks_within(found, taken, amount)
        made = {name: Factoring(ways[name], found[name].cut(rank)) for name, rank in ranks.items()}
        small_net, small = factor_layers(net, model, made)
        return small_net, small, {name: taken[name].at(rank) for name, rank in ranks.items()}
