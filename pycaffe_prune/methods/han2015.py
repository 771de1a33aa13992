"""Han et al. 2015 in full: a factor for each layer, turns, less dropout, dead units gone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from pycaffe_prune.engines.base import Engine, Observer
from pycaffe_prune.errors import FormatError
from pycaffe_prune.experiments.baselines import best
from pycaffe_prune.experiments.paths import StageFolder
from pycaffe_prune.experiments.settings import MOST_ROUNDS, Different, Iterations
from pycaffe_prune.experiments.stages import Stage, StageOutput
from pycaffe_prune.formats.caffemodel import read_caffemodel, write_caffemodel
from pycaffe_prune.formats.mask import read_mask
from pycaffe_prune.formats.prototxt import read_solver, write_prototxt
from pycaffe_prune.methods.base import Bench, Chain, Method
from pycaffe_prune.methods.masked import MaskedRound
from pycaffe_prune.methods.measured_factors import FactorsStage, Measured
from pycaffe_prune.pruning.connections import apply_masks, layer_thresholds, prune_connections
from pycaffe_prune.pruning.dead import delete_dead
from pycaffe_prune.pruning.retraining import scaled_dropout, training_only, with_rate

__all__ = ["AliveUnits", "Han2015", "MeasuredTurn", "Turn"]

_Factor = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_KINDS = ("Convolution", "InnerProduct")


class Han2015(Method):
    """Thresholds by a factor for each layer; convolutions and the others retrained in turns."""

    title: ClassVar[str] = "Han et al. 2015 in full"
    setting: ClassVar[str] = "scale"
    source: ClassVar[str] = "Han et al. 2015"

    kind: Literal["han2015"] = "han2015"
    factors: dict[str, _Factor] = Field(default_factory=dict)
    """Per layer, Convolution or InnerProduct, its threshold in standard deviations."""
    measured: Measured | None = None
    """How to measure the factors, where they are not given."""
    scales: Annotated[tuple[_Factor, ...], Different]
    """What all factors are multiplied by; one point each."""
    rounds: int = Field(gt=0, le=MOST_ROUNDS)
    iterations: Iterations
    """Retraining of one round, of the convolutions and of the other layers each."""
    rate: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Of the solver's learning rate, while retraining: 1/10 for LeNets, 1/100 for AlexNet."""

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if bool(self.factors) == (self.measured is not None):
            raise ValueError("give factors, or say under measured how to measure them")
        return self

    def chains(self, bench: Bench) -> Sequence[Chain]:  # noqa: D102  (see Method)
        parts, first = self._parts(bench), None
        if self.measured:
            first = FactorsStage(bench.context, 0, bench.baselines, self.measured)
        return [Chain(self._turns(bench, parts, scale, first), scale) for scale in self.scales]

    def _parts(self, bench: Bench) -> list[tuple[str, ...]]:
        """The layers that are retrained together: the convolutions, then the others."""
        types = {layer.name: layer.type for layer in bench.net.layer}
        names = self.measured.layers if self.measured else tuple(self.factors)
        for name in names:
            if types.get(name) not in _KINDS:
                kind = f"of the type {types[name]}" if name in types else "not in the net"
                raise FormatError(
                    f"{bench.context.net}: layer '{name}' of factors is {kind}; a factor is for a "
                    "Convolution or an InnerProduct"
                )
        parts = [tuple(name for name in names if types[name] == kind) for kind in _KINDS]
        return [part for part in parts if part]

    def _turns(
        self,
        bench: Bench,
        parts: Sequence[tuple[str, ...]],
        scale: float,
        first: FactorsStage | None,
    ) -> tuple[Stage, ...]:
        make, chain = partial(MeasuredTurn, first=first) if first else Turn, list[Turn]()
        for number in range(1, self.rounds + 1):
            for part in parts:
                chain.append(
                    make(
                        bench.context,
                        self.iterations,
                        bench.baselines,
                        chain[-1] if chain else None,
                        tuple((name, scale * self.factors.get(name, 1.0)) for name in part),
                        number,
                        self.rate,
                        len(parts) > 1,
                    )
                )
        measuring = (first,) if first else ()
        return (*measuring, *chain, AliveUnits(bench.context, 0, chain[-1]))

    def most_stages(self, others: Sequence[Method]) -> int:  # noqa: ARG002, D102  (see Method)
        return len(self.scales) * (2 * self.rounds + 1) + 1


@dataclass(frozen=True, eq=False)
class Turn(MaskedRound):
    """Some layers pruned and retrained, while the others of those that are pruned are fixed."""

    factors: tuple[tuple[str, float], ...]
    round: int
    """Counted from 1."""
    rate: float
    alone: bool
    """Whether all other layers are fixed."""

    kind = "han2015-turn"

    @property
    def settings(self) -> Mapping[str, object]:  # noqa: D102  (see Stage)
        return {
            "factors": self.factors,
            "round": self.round,
            "rate": self.rate,
            "alone": self.alone,
        }

    @property
    def label(self) -> str:  # noqa: D102  (see Stage)
        return f"han2015-{self.factors[0][0]}-{self.factors[0][1]:.4g}-round{self.round}"

    def _thresholds(self) -> dict[str, float]:
        """Per layer its threshold in standard deviations."""
        return dict(self.factors)

    @property
    def _solver(self) -> Path:
        return self.folder.solver

    def work(self, folder: StageFolder, engine: Engine, observe: Observer) -> StageOutput:  # noqa: D102
        original = best(self.baselines).folder.training.final_weights
        factors, current, earlier = self._thresholds(), read_caffemodel(self.source), self.earlier
        limits = layer_thresholds(read_caffemodel(original), current, factors, masks=earlier)
        pruned, masks = prune_connections(current, limits, earlier)
        net = scaled_dropout(self.context.read_net(), pruned, masks)
        write_prototxt(folder.net, training_only(net, factors, pruned) if self.alone else net)
        write_prototxt(folder.solver, with_rate(read_solver(super()._solver), self.rate))
        return self._retrain(
            folder,
            engine,
            observe,
            net=folder.net,
            weights=pruned,
            masks=masks,
            chosen_by="han2015",
            parameters={"factors": factors, "round": self.round},
        )


@dataclass(frozen=True, eq=False)
class MeasuredTurn(Turn):
    """The same by measured factors; ``factors`` says what each is multiplied by."""

    first: FactorsStage

    kind = "han2015-measured-turn"

    @property
    def inputs(self) -> tuple[Stage, ...]:  # noqa: D102  (see Stage)
        return (*super().inputs, self.first)

    @property
    def label(self) -> str:  # noqa: D102  (see Stage)
        return f"measured-{super().label}"

    def _thresholds(self) -> dict[str, float]:
        found = self.first.factors()
        return {name: scale * found[name] for name, scale in self.factors}


@dataclass(frozen=True, eq=False)
class AliveUnits(Stage):
    """The net without the units that pruning left without effect; nothing is trained."""

    turn: Turn

    kind = "han2015-alive"

    @property
    def inputs(self) -> tuple[Stage, ...]:  # noqa: D102  (see Stage)
        return (self.turn,)

    @property
    def settings(self) -> Mapping[str, object]:  # noqa: D102  (see Stage)
        return {}

    @property
    def label(self) -> str:  # noqa: D102  (see Stage)
        return f"alive-{self.turn.label}"

    def work(self, folder: StageFolder, engine: Engine, observe: Observer) -> StageOutput:  # noqa: D102
        trained = read_caffemodel(self.turn.folder.training.final_weights)
        masks = read_mask(self.turn.folder.mask).masks
        alive = delete_dead(self.context.read_net(), apply_masks(trained, masks))
        write_prototxt(folder.net, alive.net)
        write_caffemodel(folder.pruned, alive.model)
        seed = self.turn.require_output().seed
        result = self._train(folder, engine, observe, seed, net=folder.net, weights=folder.pruned)
        kept = {
            name: int((alive.model.layer(name).blobs[0] != 0).sum()) for name in self.context.layers
        }
        lost = {name: int(kept.sum()) for name, kept in alive.kept.items() if not kept.all()}
        return self._found(folder, observe, result, kept, lost or None)
