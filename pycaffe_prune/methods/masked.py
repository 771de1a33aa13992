"""The stage of the methods that mask connections, then retrain the rest: no method itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pycaffe_prune.engines.base import Engine, Observer
from pycaffe_prune.experiments.baselines import Baseline, best
from pycaffe_prune.experiments.paths import StageFolder
from pycaffe_prune.experiments.stages import Stage, StageOutput
from pycaffe_prune.formats.caffemodel import BlobKey, Caffemodel, write_caffemodel
from pycaffe_prune.formats.files import sha256_of
from pycaffe_prune.formats.mask import Mask, MaskFile, read_mask, write_mask
from pycaffe_prune.methods.base import Retraining

__all__ = ["MaskedRound"]


@dataclass(frozen=True, eq=False)
class MaskedRound(Retraining):
    """One round of a chain in which masks only shrink."""

    baselines: tuple[Baseline, ...]
    previous: "MaskedRound | None"

    @property
    def files(self) -> tuple[Path, ...]:  # noqa: D102  (see Stage)
        return (*super().files, self.folder.mask)

    @property
    def inputs(self) -> tuple[Stage, ...]:  # noqa: D102  (see Stage)
        return (*self.baselines, *([self.previous] if self.previous else []))

    @property
    def place(self) -> int:
        """In the chain, counted from 1."""
        return 1 if self.previous is None else self.previous.place + 1

    @property
    def source(self) -> Path:
        """The weights that are judged: of the round before, or of the initial training."""
        before = self.previous or best(self.baselines)
        return before.folder.training.final_weights

    @property
    def earlier(self) -> Mapping[BlobKey, Mask]:
        """The masks of the round before; none before the first."""
        return read_mask(self.previous.folder.mask).masks if self.previous else {}

    def _state(self, folder: StageFolder) -> Path | None:  # noqa: ARG002
        """A solverstate of the weights that are pruned, to go on from; None: begin with them."""
        return None

    def _retrain(
        self,
        folder: StageFolder,
        engine: Engine,
        observe: Observer,
        *,
        net: Path,
        weights: Caffemodel,
        masks: Mapping[BlobKey, Mask],
        chosen_by: str,
        parameters: Mapping[str, object],
    ) -> StageOutput:
        """Keep the masks, with how they were chosen from `source`, and train what they leave."""
        write_caffemodel(folder.pruned, weights)
        mask = MaskFile(masks, sha256_of(self.source), chosen_by, parameters)
        write_mask(folder.mask, mask)
        state = self._state(folder)
        result = self._train(
            folder,
            engine,
            observe,
            best(self.baselines).seed,
            net=net,
            weights=None if state else folder.pruned,
            restore=state,
            mask=folder.mask,
        )
        kept = {
            name: int(masks[name, 0].sum())
            if (name, 0) in masks
            else weights.layer(name).blobs[0].size
            for name in self.context.layers
        }
        return self._found(folder, observe, result, kept, None)
