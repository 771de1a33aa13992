"""What methods have in common that choose a mask, keep to it and retrain: no method itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from pycaffe_prune.engines.base import Engine, Observer
from pycaffe_prune.engines.curvature import CurvatureRequest
from pycaffe_prune.engines.torch.engine import TorchEngine
from pycaffe_prune.errors import EngineError
from pycaffe_prune.experiments.paths import StageFolder
from pycaffe_prune.experiments.settings import MOST_ROUNDS, Different, Share
from pycaffe_prune.experiments.stages import Stage, StageOutput
from pycaffe_prune.formats.blobs import Blob
from pycaffe_prune.formats.caffemodel import (
    BlobKey,
    Caffemodel,
    read_caffemodel,
)
from pycaffe_prune.formats.mask import Mask
from pycaffe_prune.methods.base import Bench, Chain, Method
from pycaffe_prune.methods.masked import MaskedRound
from pycaffe_prune.pruning.connections import prune_to_global_ratio, prune_to_ratios
from pycaffe_prune.pruning.criteria.connection_scores import (
    Curvature,
    connection_criterion,
    connection_scores,
    with_slope,
)

__all__ = ["Choice", "Scope", "Sparse", "SparseRound"]

Scope = Literal["layer", "global"]


@dataclass(frozen=True)
class Choice:
    """How connections are chosen."""

    criterion: str
    """One of `criteria.connection_scores`."""
    scope: Scope
    """The same share of each layer, or of all together."""
    seed: int = 0
    """Of random scores."""
    batches: int = 0
    """By which curvature is measured, where the criterion needs it."""
    weight_decay: float = 0.0
    """Of the solver, where the slope is counted too."""

    @property
    def settings(self) -> Mapping[str, object]:
        """What tells it from others (values that JSON holds)."""
        return vars(self)


class Sparse(Method):
    """Masks of a given sparsity in one or more rounds, each followed by retraining."""

    setting: ClassVar[str] = "sparsity"
    criterion: ClassVar[str]

    sparsities: Annotated[tuple[Share, ...], Different]
    """Shares of the weights of the experiment's layers that are gone in the end."""
    rounds: int = Field(default=1, gt=0, le=MOST_ROUNDS)
    """Of equal shares of what is left."""
    scope: Scope = "layer"
    iterations: int = Field(ge=0, lt=1 << 31)
    """Retraining of one round; 0: none, the pruned net is tested as it is."""

    @property
    def choice(self) -> Choice:
        """How connections are chosen."""
        return Choice(self.criterion, self.scope)

    def steps(self, sparsity: float) -> list[float]:
        """Return the sparsity after each round; in each an equal share of what is left goes."""
        return [
            1 - (1 - sparsity) ** (number / self.rounds) for number in range(1, self.rounds + 1)
        ]

    def chains(self, bench: Bench) -> Sequence[Chain]:  # noqa: D102  (see Method)
        return [Chain(self._rounds(bench, sparsity), sparsity) for sparsity in self.sparsities]

    def _rounds(self, bench: Bench, sparsity: float) -> tuple[Stage, ...]:
        chain: list[SparseRound] = []
        for gone in self.steps(sparsity):
            previous = chain[-1] if chain else None
            chain.append(
                SparseRound(
                    bench.context, self.iterations, bench.baselines, previous, self.choice, gone
                )
            )
        return tuple(chain)

    def most_stages(self, others: Sequence[Method]) -> int:  # noqa: ARG002, D102  (see Method)
        return len(self.sparsities) * self.rounds


@dataclass(frozen=True, eq=False)
class SparseRound(MaskedRound):
    """One round: weights scored, the lowest masked, the rest retrained."""

    choice: Choice
    sparsity: float
    """The share that is gone after this round."""

    kind = "sparse"

    @property
    def settings(self) -> Mapping[str, object]:  # noqa: D102  (see Stage)
        return {
            "choice": dict(self.choice.settings),
            "sparsity": self.sparsity,
            "layers": self.context.layers,
        }

    @property
    def label(self) -> str:  # noqa: D102  (see Stage)
        return f"{self.choice.criterion}-{self.sparsity:.4g}-round{self.place}"

    def start(self, judged: Caffemodel, masks: Mapping[BlobKey, Mask]) -> Caffemodel:  # noqa: ARG002
        """Return the weights that retraining begins with, ``judged`` being masked already."""
        return judged

    def work(self, folder: StageFolder, engine: Engine, observe: Observer) -> StageOutput:  # noqa: D102
        model = read_caffemodel(self.source)
        earlier = self.earlier
        net = self._whole_net(folder)
        keys: list[BlobKey] = [(name, 0) for name in self.context.layers]
        scores = self._scores(model, keys, net, engine)
        if self.choice.scope == "global":
            pruned, masks = prune_to_global_ratio(model, self.sparsity, keys, earlier, scores)
        else:
            ratios = dict.fromkeys(keys, self.sparsity)
            pruned, masks = prune_to_ratios(model, ratios, earlier, scores)
        return self._retrain(
            folder,
            engine,
            observe,
            net=net,
            weights=self.start(pruned, masks),
            masks=masks,
            chosen_by=self.choice.criterion,
            parameters={**self.choice.settings, "sparsity": self.sparsity, "round": self.place},
        )

    def _scores(
        self, model: Caffemodel, keys: Sequence[BlobKey], net: Path, engine: Engine
    ) -> dict[BlobKey, Blob]:
        choice, curvature = self.choice, None
        if (kind := connection_criterion(choice.criterion).curvature) is not None:
            curvature = with_slope(
                self._curvature(model, keys, net, engine, kind), choice.weight_decay
            )
        weights = {(name, index): model.layer(name).blobs[index] for name, index in keys}
        return connection_scores(choice.criterion, weights, curvature=curvature, seed=choice.seed)

    def _curvature(
        self,
        model: Caffemodel,
        keys: Sequence[BlobKey],
        net: Path,
        engine: Engine,
        kind: Curvature,
    ) -> dict[BlobKey, Blob]:
        if not isinstance(engine, TorchEngine):
            raise EngineError(
                f"second derivatives are measured by the engine torch, not by {engine.name}"
            )
        context = self.context
        return engine.curvature(
            CurvatureRequest(
                net=net,
                weights=self.source,
                model=model,
                kind="hessian" if kind is Curvature.HESSIAN else "fisher",
                batches=self.choice.batches,
                blobs=tuple(keys),
                data=context.data,
                device=context.device,
                threads=context.threads,
                own=context.own,
                trust=context.trust,
            )
        )
