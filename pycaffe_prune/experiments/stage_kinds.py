"""The stages of the paper's experiments: initial training, two ways to prune, small models."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pycaffe_prune.engines.base import Engine, Observer
from pycaffe_prune.experiments.paths import StageFolder
from pycaffe_prune.experiments.pretrained import Pretrained, read_pretrained
from pycaffe_prune.experiments.stages import Stage, StageOutput, with_units
from pycaffe_prune.formats.caffemodel import read_caffemodel, write_caffemodel
from pycaffe_prune.formats.files import sha256_of
from pycaffe_prune.formats.mask import MaskFile, read_mask, write_mask
from pycaffe_prune.formats.prototxt import write_prototxt
from pycaffe_prune.pruning.connections import SigmaRule, prune_connections, thresholds
from pycaffe_prune.pruning.counts import weight_counts
from pycaffe_prune.pruning.units import choose_units, delete_units

__all__ = ["Baseline", "Connections", "SmallModel", "Units", "best"]


@dataclass(frozen=True, eq=False)
class Baseline(Stage):
    """Initial training from one initialisation."""

    seed: int
    pretrained: Pretrained | None = None
    """What its layers begin with, where a layer of the same name is in it."""

    kind = "baseline"

    @property
    def settings(self) -> Mapping[str, object]:  # noqa: D102  (see Stage)
        weights = {"weights": self.pretrained.sha256} if self.pretrained else {}
        return {"seed": self.seed, **weights}

    @property
    def label(self) -> str:  # noqa: D102  (see Stage)
        return f"baseline-seed{self.seed}"

    def work(self, folder: StageFolder, engine: Engine, observe: Observer) -> StageOutput:  # noqa: D102
        weights = None
        if self.pretrained is not None:
            weights = folder.pretrained
            write_caffemodel(weights, read_pretrained(self.pretrained, self.context.read_net()))
        net = self._whole_net(folder)
        result = self._train(folder, engine, observe, self.seed, net=net, weights=weights)
        trained = read_caffemodel(folder.training.final_weights)
        return self._found(self.seed, result, weight_counts(trained, self.context.layers), None)


def best(baselines: tuple[Baseline, ...]) -> Baseline:
    """Return the baseline with the most right test answers; of equal ones the first.

    Raises:
        FormatError: One of them is not done.
    """
    return max(baselines, key=lambda stage: stage.require_output().after.correct)


class _Retraining(Stage):
    """What is trained after pruning: its solver may be another one than the initial training's."""

    @property
    def _fingerprint(self) -> str:
        return self.context.retraining_fingerprint or self.context.fingerprint

    @property
    def _solver(self) -> Path:
        return self.context.retraining_solver or self.context.solver


@dataclass(frozen=True, eq=False)
class Connections(_Retraining):
    """One round of connection pruning: threshold, mask, retrain."""

    baselines: tuple[Baseline, ...]
    previous: "Connections | None"
    alpha: float
    sigma: SigmaRule

    kind = "connections"

    @property
    def files(self) -> tuple[Path, ...]:  # noqa: D102  (see Stage)
        return (*super().files, self.folder.mask)

    @property
    def round(self) -> int:
        """Counted from 1."""
        return 1 if self.previous is None else self.previous.round + 1

    @property
    def inputs(self) -> tuple[Stage, ...]:  # noqa: D102  (see Stage)
        return (*self.baselines, *([self.previous] if self.previous else []))

    @property
    def settings(self) -> Mapping[str, object]:  # noqa: D102  (see Stage)
        return {
            "alpha": self.alpha,
            "round": self.round,
            "sigma": self.sigma.value,
            "layers": self.context.layers,
        }

    @property
    def label(self) -> str:  # noqa: D102  (see Stage)
        return f"alpha{self.alpha:g}-round{self.round}"

    def work(self, folder: StageFolder, engine: Engine, observe: Observer) -> StageOutput:  # noqa: D102
        start = best(self.baselines)
        original = start.folder.training.final_weights
        source = self.previous.folder.training.final_weights if self.previous else original
        earlier = read_mask(self.previous.folder.mask).masks if self.previous else None
        current = read_caffemodel(source)
        limits = thresholds(
            read_caffemodel(original),
            current,
            self.alpha,
            self.context.layers,
            masks=earlier,
            rule=self.sigma,
        )
        pruned, masks = prune_connections(current, limits, earlier)
        write_caffemodel(folder.pruned, pruned)
        parameters = {
            "alpha": self.alpha,
            "sigma": self.sigma.value,
            "round": self.round,
            "thresholds": {f"{name}/{index}": limit for (name, index), limit in limits.items()},
        }
        write_mask(folder.mask, MaskFile(masks, sha256_of(source), "threshold", parameters))
        result = self._train(
            folder,
            engine,
            observe,
            start.seed,
            net=self._whole_net(folder),
            weights=folder.pruned,
            mask=folder.mask,
        )
        kept = {name: int(masks[name, 0].sum()) for name in self.context.layers}
        return self._found(start.seed, result, kept, None)


@dataclass(frozen=True, eq=False)
class Units(_Retraining):
    """Unit pruning: score once, delete at once, retrain once."""

    baselines: tuple[Baseline, ...]
    ratios: tuple[tuple[str, float], ...]
    """Share of the units to delete, per layer."""
    criterion: str

    kind = "units"

    @property
    def inputs(self) -> tuple[Stage, ...]:  # noqa: D102  (see Stage)
        return self.baselines

    @property
    def settings(self) -> Mapping[str, object]:  # noqa: D102  (see Stage)
        return {"ratios": self.ratios, "criterion": self.criterion}

    @property
    def label(self) -> str:  # noqa: D102  (see Stage)
        return "units-" + "-".join(f"{name}-{ratio:g}" for name, ratio in self.ratios)

    def work(self, folder: StageFolder, engine: Engine, observe: Observer) -> StageOutput:  # noqa: D102
        start = best(self.baselines)
        net = self.context.read_net()
        original = read_caffemodel(start.folder.training.final_weights)
        kept = choose_units(net, original, dict(self.ratios), criterion=self.criterion)
        small_net, small = delete_units(net, original, kept)
        write_prototxt(folder.net, small_net)
        write_caffemodel(folder.pruned, small)
        result = self._train(
            folder, engine, observe, start.seed, net=folder.net, weights=folder.pruned
        )
        units = {name: int(keep.sum()) for name, keep in kept.items()}
        return self._found(start.seed, result, weight_counts(small, self.context.layers), units)


@dataclass(frozen=True, eq=False)
class SmallModel(Stage):
    """A net of the shape that unit pruning gives, trained from scratch."""

    units: tuple[tuple[str, int], ...]
    """Units in each layer that is smaller than in the original."""
    seed: int

    kind = "small"

    @property
    def settings(self) -> Mapping[str, object]:  # noqa: D102  (see Stage)
        return {"units": self.units, "seed": self.seed}

    @property
    def label(self) -> str:  # noqa: D102  (see Stage)
        shape = "-".join(f"{name}-{count}" for name, count in self.units)
        return f"small-{shape}-seed{self.seed}"

    def work(self, folder: StageFolder, engine: Engine, observe: Observer) -> StageOutput:  # noqa: D102
        net = with_units(self.context.read_net(), dict(self.units))
        write_prototxt(folder.net, net)
        result = self._train(folder, engine, observe, self.seed, net=folder.net)
        trained = read_caffemodel(folder.training.final_weights)
        kept = weight_counts(trained, self.context.layers)
        return self._found(self.seed, result, kept, dict(self.units))
