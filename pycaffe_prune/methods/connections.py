"""Connection pruning as in the paper: rounds of threshold, mask and retraining for each alpha."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from pycaffe_prune.engines.base import Engine, Observer
from pycaffe_prune.experiments.baselines import best
from pycaffe_prune.experiments.paths import StageFolder
from pycaffe_prune.experiments.prediction import predict, shrink
from pycaffe_prune.experiments.result import Prediction, Setting
from pycaffe_prune.experiments.settings import MOST_ROUNDS, Different, Iterations
from pycaffe_prune.experiments.stages import Stage, StageOutput
from pycaffe_prune.formats.caffemodel import read_caffemodel
from pycaffe_prune.formats.prototxt import read_solver
from pycaffe_prune.methods.base import Bench, Chain, Method
from pycaffe_prune.methods.masked import MaskedRound
from pycaffe_prune.pruning.connections import (
    DEFAULT_SIGMA_RULE,
    SigmaRule,
    prune_connections,
    thresholds,
)

__all__ = ["ConnectionRound", "Connections"]

_Alpha = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Connections(Method):
    """Connection pruning (docs/protocol.md): rounds of prune and retrain for each alpha."""

    title: ClassVar[str] = "connection pruning"
    setting: ClassVar[str] = "alpha"
    source: ClassVar[str] = "the paper, after Han et al. 2015"

    kind: Literal["connections"] = "connections"
    alphas: Annotated[tuple[_Alpha, ...], Different]
    rounds: int = Field(gt=0, le=MOST_ROUNDS)
    """The paper's sets."""
    iterations: Iterations
    """Retraining of one round."""
    sigma: SigmaRule = DEFAULT_SIGMA_RULE

    def chains(self, bench: Bench) -> Sequence[Chain]:  # noqa: D102  (see Method)
        return [Chain(self._rounds(bench, alpha), alpha) for alpha in self.alphas]

    def _rounds(self, bench: Bench, alpha: float) -> tuple[Stage, ...]:
        chain: list[ConnectionRound] = []
        for _ in range(self.rounds):
            previous = chain[-1] if chain else None
            chain.append(
                ConnectionRound(
                    bench.context, self.iterations, bench.baselines, previous, alpha, self.sigma
                )
            )
        return tuple(chain)

    def most_stages(self, others: Sequence[Method]) -> int:  # noqa: ARG002, D102  (see Method)
        return len(self.alphas) * self.rounds

    def tell(self, value: float | None, units: Mapping[str, int] | None) -> Setting:  # noqa: D102
        found = super().tell(value, units)
        return found.model_copy(update={"text": f"α = {value:g}"})

    def foresee(self, bench: Bench, weights: Path) -> Prediction | None:
        """Return the rates that the last pruning is foreseen to reach; see `prediction`.

        Returns:
            None where sigma is not taken once from the unpruned network, where the solver is of
            another kind, or where there are no alphas.
        """
        if self.sigma is not SigmaRule.INITIAL or not self.alphas:
            return None
        context = bench.context
        once = shrink(read_solver(context.retraining_solver or context.solver), self.iterations)
        if once is None:
            return None
        shrunk = once ** (self.rounds - 1)
        return predict(read_caffemodel(weights), context.layers, self.alphas, shrunk)


@dataclass(frozen=True, eq=False)
class ConnectionRound(MaskedRound):
    """One round of connection pruning: threshold, mask, retrain."""

    alpha: float
    sigma: SigmaRule

    kind = "connections"

    @property
    def settings(self) -> Mapping[str, object]:  # noqa: D102  (see Stage)
        return {
            "alpha": self.alpha,
            "round": self.place,
            "sigma": self.sigma.value,
            "layers": self.context.layers,
        }

    @property
    def label(self) -> str:  # noqa: D102  (see Stage)
        return f"alpha{self.alpha:g}-round{self.place}"

    def work(self, folder: StageFolder, engine: Engine, observe: Observer) -> StageOutput:  # noqa: D102
        original = best(self.baselines).folder.training.final_weights
        current, earlier = read_caffemodel(self.source), self.earlier
        limits = thresholds(
            read_caffemodel(original),
            current,
            self.alpha,
            self.context.layers,
            masks=earlier,
            rule=self.sigma,
        )
        pruned, masks = prune_connections(current, limits, earlier)
        parameters = {
            "alpha": self.alpha,
            "sigma": self.sigma.value,
            "round": self.place,
            "thresholds": {f"{name}/{index}": limit for (name, index), limit in limits.items()},
        }
        return self._retrain(
            folder,
            engine,
            observe,
            net=self._whole_net(folder),
            weights=pruned,
            masks=masks,
            chosen_by="threshold",
            parameters=parameters,
        )
