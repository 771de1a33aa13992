"""Initial training: what every method begins with."""

from collections.abc import Mapping
from dataclasses import dataclass

from pycaffe_prune.engines.base import Engine, Observer
from pycaffe_prune.experiments.paths import StageFolder
from pycaffe_prune.experiments.pretrained import Pretrained, read_pretrained
from pycaffe_prune.experiments.pretraining import Pretraining
from pycaffe_prune.experiments.stages import Stage, StageOutput
from pycaffe_prune.formats.caffemodel import read_caffemodel, write_caffemodel
from pycaffe_prune.formats.files import sha256_of
from pycaffe_prune.pruning.counts import weight_counts

__all__ = ["Baseline", "best"]


@dataclass(frozen=True, eq=False)
class Baseline(Stage):
    """Initial training from one initialisation."""

    seed: int
    pretrained: Pretrained | None = None
    """What its layers begin with, where a layer of the same name is in it."""
    pretraining: Pretraining | None = None
    """The training whose weights they begin with, in the same way."""

    kind = "baseline"

    @property
    def inputs(self) -> tuple[Stage, ...]:  # noqa: D102  (see Stage)
        return () if self.pretraining is None else (self.pretraining,)

    @property
    def settings(self) -> Mapping[str, object]:  # noqa: D102  (see Stage)
        weights = {"weights": self.pretrained.sha256} if self.pretrained else {}
        return {"seed": self.seed, **weights}

    @property
    def label(self) -> str:  # noqa: D102  (see Stage)
        return f"baseline-seed{self.seed}"

    def work(self, folder: StageFolder, engine: Engine, observe: Observer) -> StageOutput:  # noqa: D102
        weights, begun = None, self._begun()
        if begun is not None:
            weights = folder.pretrained
            write_caffemodel(weights, read_pretrained(begun, self.context.read_net()))
        net = self._whole_net(folder)
        result = self._train(folder, engine, observe, self.seed, net=net, weights=weights)
        trained = read_caffemodel(folder.training.final_weights)
        return self._found(
            folder, observe, result, weight_counts(trained, self.context.layers), None
        )

    def _begun(self) -> Pretrained | None:
        if self.pretraining is None:
            return self.pretrained
        trained = self.pretraining.folder.training.final_weights
        return Pretrained(trained, sha256_of(trained))


def best(baselines: tuple[Baseline, ...]) -> Baseline:
    """Return the baseline with the most right test answers; of equal ones the first.

    Raises:
        FormatError: One of them is not done.
    """
    return max(baselines, key=lambda stage: stage.require_output().after.correct)
