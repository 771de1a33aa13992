"""Training on other data: what an initial training on the experiment's own begins with."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pycaffe_prune.engines.base import Engine, Observer
from pycaffe_prune.experiments.paths import StageFolder
from pycaffe_prune.experiments.result import DataSet
from pycaffe_prune.experiments.stages import Stage, StageOutput
from pycaffe_prune.formats.caffemodel import read_caffemodel
from pycaffe_prune.pruning.counts import weight_counts

__all__ = ["Pretraining", "PretrainingFiles"]


@dataclass(frozen=True)
class PretrainingFiles:
    """What a pre-training is made of."""

    solver: Path
    data: Path
    """The folder that holds its LMDBs."""
    data_set: DataSet


@dataclass(frozen=True, eq=False)
class Pretraining(Stage):
    """A training of its own, with its own solver, net and data: its context is its own too."""

    seed: int
    data_set: DataSet
    """What it is trained on; part of its context's fingerprint."""

    kind = "pretraining"

    @property
    def settings(self) -> Mapping[str, object]:  # noqa: D102  (see Stage)
        return {"seed": self.seed}

    @property
    def label(self) -> str:  # noqa: D102  (see Stage)
        return f"pretraining-seed{self.seed}"

    def work(self, folder: StageFolder, engine: Engine, observe: Observer) -> StageOutput:  # noqa: D102
        net = self._whole_net(folder)
        result = self._train(folder, engine, observe, self.seed, net=net)
        trained = read_caffemodel(folder.training.final_weights)
        kept = weight_counts(trained, self.context.layers)
        return self._found(folder, observe, result, kept, None)
