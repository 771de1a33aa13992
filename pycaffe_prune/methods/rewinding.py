"""Rewinding: what magnitude keeps goes back to its early value and is trained anew.

From iteration k on it is trained as it was then: by the rate, the momentum and the data of that
iteration (Frankle and Carbin 2019, arXiv 1903.01611).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from pycaffe_prune.engines.base import Engine, Observer
from pycaffe_prune.engines.job import TrainRequest
from pycaffe_prune.errors import FormatError
from pycaffe_prune.experiments.baselines import Baseline, best
from pycaffe_prune.experiments.paths import StageFolder
from pycaffe_prune.experiments.pretrained import read_pretrained
from pycaffe_prune.experiments.stages import Stage, StageOutput
from pycaffe_prune.formats.caffemodel import (
    BlobKey,
    Caffemodel,
    read_caffemodel,
    write_caffemodel,
)
from pycaffe_prune.formats.mask import Mask
from pycaffe_prune.formats.prototxt import read_solver
from pycaffe_prune.formats.solverstate import read_solverstate, write_solverstate
from pycaffe_prune.methods.base import Bench, Chain, Method
from pycaffe_prune.methods.sparse import Sparse, SparseRound
from pycaffe_prune.pruning.counts import weight_counts
from pycaffe_prune.pruning.rewinding import rewind

__all__ = ["Beginning", "Rewinding", "RewoundRound"]


class Rewinding(Sparse):
    """The smallest |w| go; the rest trains again from its values at an early iteration."""

    title: ClassVar[str] = "rewinding"
    source: ClassVar[str] = "Frankle and Carbin 2019"
    criterion: ClassVar[str] = "magnitude"

    kind: Literal["rewinding"] = "rewinding"
    to: int = Field(default=0, ge=0, lt=1 << 31)
    """The iteration of the initial training that is gone back to, and on from; 0: its first
    values."""

    def chains(self, bench: Bench) -> Sequence[Chain]:  # noqa: D102  (see Method)
        beginning = Beginning(bench.context, self.to, bench.baselines)
        return [
            Chain((beginning, *self._from(beginning, bench, sparsity)), sparsity)
            for sparsity in self.sparsities
        ]

    def _from(self, beginning: "Beginning", bench: Bench, sparsity: float) -> list[SparseRound]:
        chain: list[SparseRound] = []
        for gone in self.steps(sparsity):
            previous = chain[-1] if chain else None
            chain.append(
                RewoundRound(
                    bench.context,
                    self.iterations,
                    bench.baselines,
                    previous,
                    self.choice,
                    gone,
                    beginning,
                )
            )
        return chain

    def most_stages(self, others: Sequence[Method]) -> int:  # noqa: D102  (see Method)
        return super().most_stages(others) + 1


@dataclass(frozen=True, eq=False)
class Beginning(Stage):
    """The first iterations of the initial training that is pruned, once more: nothing is pruned."""

    baselines: tuple[Baseline, ...]

    kind = "beginning"

    @property
    def inputs(self) -> tuple[Stage, ...]:  # noqa: D102  (see Stage)
        return self.baselines

    @property
    def files(self) -> tuple[Path, ...]:  # noqa: D102  (see Stage)
        return (*super().files, *([self.folder.state] if self.iterations else []))

    @property
    def settings(self) -> Mapping[str, object]:  # noqa: D102  (see Stage)
        return {"leaves": "a solverstate"} if self.iterations else {}

    @property
    def label(self) -> str:  # noqa: D102  (see Stage)
        return f"beginning-{self.iterations}"

    def work(self, folder: StageFolder, engine: Engine, observe: Observer) -> StageOutput:  # noqa: D102
        if self.iterations and read_solver(self._solver).lr_policy == "poly":
            raise FormatError(
                f"{self._solver}: with lr_policy: poly the rate depends on how long a run is, so "
                "its first iterations cannot be run alone; rewind to the iteration 0"
            )
        start, weights = best(self.baselines), None
        if start.pretrained is not None:
            weights = folder.pretrained
            write_caffemodel(weights, read_pretrained(start.pretrained, self.context.read_net()))
        net = self._whole_net(folder)
        result = self._train(folder, engine, observe, start.seed, net=net, weights=weights)
        begun = read_caffemodel(folder.training.final_weights)
        if self.iterations:
            last = read_solverstate(folder.training.state_at(self.iterations))
            named = folder.training.final_weights.relative_to(folder.path)
            write_solverstate(folder.state, replace(last, learned_net=str(named)))
        kept = weight_counts(begun, self.context.layers)
        return self._found(folder, observe, result, kept, None)


@dataclass(frozen=True, eq=False)
class RewoundRound(SparseRound):
    """One round: what is kept is trained from its early values, as that training went on."""

    beginning: Beginning

    kind = "rewound"

    @property
    def settings(self) -> Mapping[str, object]:  # noqa: D102  (see Stage)
        return {**super().settings, **({"from": "a solverstate"} if self._goes_on else {})}

    @property
    def inputs(self) -> tuple[Stage, ...]:  # noqa: D102  (see Stage)
        return (*super().inputs, self.beginning)

    @property
    def label(self) -> str:  # noqa: D102  (see Stage)
        return f"rewound-{super().label}"

    def start(self, judged: Caffemodel, masks: Mapping[BlobKey, Mask]) -> Caffemodel:  # noqa: D102
        begun = read_caffemodel(self.beginning.folder.training.final_weights)
        return rewind(judged, begun, masks)

    @property
    def _goes_on(self) -> bool:
        return bool(self.beginning.iterations and self.iterations)

    def _state(self, folder: StageFolder) -> Path | None:
        if not self._goes_on:
            return None
        begun = read_solverstate(self.beginning.folder.state)
        write_solverstate(folder.pruned_state, replace(begun, learned_net=folder.pruned.name))
        return folder.pruned_state

    def _request(self, net: Path, seed: int) -> TrainRequest:
        request = super()._request(net, seed)
        start = self.beginning.iterations if self._goes_on else 0
        return replace(request, max_iter=start + self.iterations)

    def work(self, folder: StageFolder, engine: Engine, observe: Observer) -> StageOutput:  # noqa: D102
        found = super().work(folder, engine, observe)
        if not self._goes_on:
            return found
        net = self._whole_net(folder)
        begun, _ = self._untrained(
            folder, engine, observe, found.seed, net=net, weights=folder.pruned
        )
        return found.model_copy(update={"before": begun.final_test})

    @property
    def _fingerprint(self) -> str:
        return self.context.fingerprint

    @property
    def _solver(self) -> Path:
        return self.context.solver
