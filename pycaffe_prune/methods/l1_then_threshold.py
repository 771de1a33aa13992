"""A penalty larger than training needs, then a threshold: what is small by then goes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from pycaffe_prune.engines.base import Engine, Observer
from pycaffe_prune.experiments.baselines import Baseline, best
from pycaffe_prune.experiments.paths import StageFolder
from pycaffe_prune.experiments.settings import Different, Iterations, Share
from pycaffe_prune.experiments.stages import Stage, StageOutput
from pycaffe_prune.formats.caffemodel import read_caffemodel
from pycaffe_prune.formats.prototxt import read_solver, write_prototxt
from pycaffe_prune.methods.base import Bench, Chain, Method
from pycaffe_prune.methods.sparse import Choice, Scope, SparseRound
from pycaffe_prune.pruning.counts import weight_counts
from pycaffe_prune.pruning.retraining import with_decay

__all__ = ["L1ThenThreshold", "Penalised", "ThresholdRound"]


class L1ThenThreshold(Method):
    """Training with a large L1 (or L2) penalty; then what is below a threshold goes."""

    title: ClassVar[str] = "penalty, then threshold"
    setting: ClassVar[str] = "sparsity"
    source: ClassVar[str] = "the paper's survey: weight decay as pruning"

    kind: Literal["l1-then-threshold"] = "l1-then-threshold"
    regularization_type: Literal["L1", "L2"] = "L1"
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """Of the training with the penalty."""
    penalised: Iterations
    """From the first values of the best initial training on."""
    sparsities: Annotated[tuple[Share, ...], Different]
    """Shares of the weights that lie below the threshold."""
    scope: Scope = "global"
    """One threshold for all layers, or one for each."""
    iterations: int = Field(default=0, ge=0, lt=1 << 31)
    """Retraining afterwards, with the experiment's own penalty."""

    def chains(self, bench: Bench) -> Sequence[Chain]:  # noqa: D102  (see Method)
        penalised = Penalised(
            bench.context,
            self.penalised,
            bench.baselines,
            self.regularization_type,
            self.weight_decay,
        )
        choice = Choice("magnitude", self.scope)
        return [
            Chain(
                (
                    penalised,
                    ThresholdRound(
                        bench.context,
                        self.iterations,
                        bench.baselines,
                        None,
                        choice,
                        sparsity,
                        penalised,
                    ),
                ),
                sparsity,
            )
            for sparsity in self.sparsities
        ]

    def most_stages(self, others: Sequence[Method]) -> int:  # noqa: ARG002, D102  (see Method)
        return len(self.sparsities) + 1


@dataclass(frozen=True, eq=False)
class Penalised(Stage):
    """Training from scratch with another penalty on the weights."""

    baselines: tuple[Baseline, ...]
    regularization_type: str
    weight_decay: float

    kind = "penalised"

    @property
    def inputs(self) -> tuple[Stage, ...]:  # noqa: D102  (see Stage)
        return self.baselines

    @property
    def settings(self) -> Mapping[str, object]:  # noqa: D102  (see Stage)
        return {
            "regularization_type": self.regularization_type,
            "weight_decay": self.weight_decay,
        }

    @property
    def label(self) -> str:  # noqa: D102  (see Stage)
        return f"{self.regularization_type}-{self.weight_decay:g}"

    @property
    def _solver(self) -> Path:
        return self.folder.solver

    def work(self, folder: StageFolder, engine: Engine, observe: Observer) -> StageOutput:  # noqa: D102
        solver = read_solver(self.context.solver)
        changed = with_decay(solver, self.regularization_type, self.weight_decay)
        write_prototxt(folder.solver, changed)
        net = self._whole_net(folder)
        result = self._train(folder, engine, observe, best(self.baselines).seed, net=net)
        trained = read_caffemodel(folder.training.final_weights)
        kept = weight_counts(trained, self.context.layers)
        return self._found(folder, observe, result, kept, None)


@dataclass(frozen=True, eq=False)
class ThresholdRound(SparseRound):
    """What the penalty left small goes."""

    penalised: Penalised

    kind = "penalised-threshold"

    @property
    def inputs(self) -> tuple[Stage, ...]:  # noqa: D102  (see Stage)
        return (*super().inputs, self.penalised)

    @property
    def label(self) -> str:  # noqa: D102  (see Stage)
        return f"threshold-{self.penalised.label}-{self.sparsity:.4g}"

    @property
    def source(self) -> Path:  # noqa: D102  (see SparseRound)
        return self.penalised.folder.training.final_weights
