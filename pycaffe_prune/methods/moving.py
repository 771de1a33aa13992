"""The stages of the methods that change masks or weights while the net trains."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pycaffe_prune.engines.base import Engine, Observer
from pycaffe_prune.engines.masking import Masking
from pycaffe_prune.experiments.baselines import Baseline, best
from pycaffe_prune.experiments.paths import StageFolder
from pycaffe_prune.experiments.stages import Stage, StageOutput
from pycaffe_prune.formats.caffemodel import read_caffemodel
from pycaffe_prune.formats.mask import read_mask
from pycaffe_prune.methods.base import Retraining
from pycaffe_prune.pruning.counts import weight_counts

__all__ = ["Guided", "MovingMasks"]


@dataclass(frozen=True, eq=False)
class Guided(Retraining):
    """One training from the unpruned network, in which a `Masking` has its say."""

    baselines: tuple[Baseline, ...]
    masking: Masking
    told: str
    """What tells it from others, for its label."""

    @property
    def inputs(self) -> tuple[Stage, ...]:  # noqa: D102  (see Stage)
        return self.baselines

    @property
    def label(self) -> str:  # noqa: D102  (see Stage)
        return self.told

    def work(self, folder: StageFolder, engine: Engine, observe: Observer) -> StageOutput:  # noqa: D102
        start = best(self.baselines)
        result = self._train(
            folder,
            engine,
            observe,
            start.seed,
            net=self._whole_net(folder),
            weights=start.folder.training.final_weights,
            masking=self.masking,
        )
        return self._found(folder, observe, result, self.kept(folder), None)

    def kept(self, folder: StageFolder) -> dict[str, int]:
        """Return how many weights the training left in each fully connected layer."""
        return weight_counts(read_caffemodel(folder.training.final_weights), self.context.layers)


@dataclass(frozen=True, eq=False)
class MovingMasks(Guided):
    """One training from the unpruned network, in which masks change."""

    kind = "moving-masks"

    @property
    def files(self) -> tuple[Path, ...]:  # noqa: D102  (see Stage)
        return (*super().files, self.folder.training.final_mask)

    @property
    def settings(self) -> Mapping[str, object]:  # noqa: D102  (see Stage)
        return {"masking": self.masking.model_dump(mode="json")}

    def kept(self, folder: StageFolder) -> dict[str, int]:  # noqa: D102  (see Guided)
        masks = read_mask(folder.training.final_mask).masks
        whole = super().kept(folder)
        return {
            name: int(masks[name, 0].sum()) if (name, 0) in masks else count
            for name, count in whole.items()
        }
