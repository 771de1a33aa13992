"""Stages: pure functions of their inputs, stored under content keys.

A stage's key is a hash over its kind, its settings and the keys of its inputs, down to the data and
the prototxts. Its output lies in a folder named by the key; a stage whose output exists is done.
"""

import hashlib
import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError

from pycaffe_prune.engines.base import Engine, Observer, TestScore, TrainResult
from pycaffe_prune.engines.job import TrainRequest
from pycaffe_prune.engines.run import train
from pycaffe_prune.errors import FormatError
from pycaffe_prune.experiments.paths import ExperimentFolder, StageFolder
from pycaffe_prune.experiments.pretrained import Pretrained, read_pretrained
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import read_caffemodel, write_caffemodel
from pycaffe_prune.formats.files import sha256_of, write_text
from pycaffe_prune.formats.mask import MaskFile, read_mask, write_mask
from pycaffe_prune.formats.prototxt import read_net, write_prototxt
from pycaffe_prune.pruning.connections import SigmaRule, prune_connections, thresholds
from pycaffe_prune.pruning.counts import weight_counts
from pycaffe_prune.pruning.units import choose_units, delete_units

__all__ = ["Baseline", "Connections", "Context", "SmallModel", "Stage", "StageOutput", "Units"]

_FORMAT = 1
"""Part of every key: raise it when a stage's meaning changes."""


@dataclass(frozen=True)
class Context:
    """What all stages of one experiment share."""

    folder: ExperimentFolder
    solver: Path
    net: Path
    data: Path
    layers: tuple[str, ...]
    fingerprint: str
    """Over data, net, solver, the engine's name, and whether it rounds to TF32."""
    device: str = "cpu"
    threads: int = 1
    units: tuple[tuple[str, int], ...] = ()
    """Layers whose number of units is another one than in the net's file."""
    retraining_solver: Path | None = None
    """For what is trained after pruning; None: the same solver."""
    retraining_fingerprint: str = ""
    """As ``fingerprint``, over that solver."""

    def read_net(self) -> NetParameter:
        """Return the net that is trained and pruned.

        Raises:
            FormatError: It cannot be read, or has no InnerProduct layer of a name in ``units``.
        """
        return with_units(read_net(self.net), dict(self.units))


class StageOutput(BaseModel):
    """What a stage found (``stage.json``)."""

    model_config = ConfigDict(frozen=True)

    seed: int
    kept: dict[str, int]
    """Weights left in each fully connected layer."""
    units: dict[str, int] | None = None
    """Units left in each layer that lost some."""
    before: TestScore
    after: TestScore
    iterations: int
    seconds: float
    versions: dict[str, str]


@dataclass(frozen=True, eq=False)
class Stage(ABC):
    """A stage: see the module. Subclasses say what it is made of and what it does."""

    context: Context
    iterations: int

    kind: ClassVar[str]

    @property
    def inputs(self) -> tuple["Stage", ...]:
        """The stages whose outputs this one needs."""
        return ()

    @property
    @abstractmethod
    def settings(self) -> Mapping[str, object]:
        """What tells this stage from others of its kind (values that JSON holds)."""

    @property
    @abstractmethod
    def label(self) -> str:
        """A short name for people, also part of the folder's name."""

    @abstractmethod
    def work(self, folder: StageFolder, engine: Engine, observe: Observer) -> StageOutput:
        """Do the stage's work in its folder."""

    @property
    def _fingerprint(self) -> str:
        return self.context.fingerprint

    @property
    def _solver(self) -> Path:
        return self.context.solver

    @cached_property
    def key(self) -> str:
        """The content key, 64 hexadecimal digits."""
        content = [
            _FORMAT,
            self.kind,
            self._fingerprint,
            self.iterations,
            dict(self.settings),
            [stage.key for stage in self.inputs],
        ]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def folder(self) -> StageFolder:
        """Where the stage's files lie."""
        return self.context.folder.stage(self.label, self.key)

    def output(self) -> StageOutput | None:
        """Return what the stage found, or None when it is not done.

        Raises:
            FormatError: The file is damaged.
        """
        path = self.folder.output
        if not path.is_file():
            return None
        try:
            return StageOutput.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise FormatError(f"{path}: is damaged; remove the folder {path.parent}") from error

    def run(self, engine: Engine, observe: Observer) -> StageOutput:
        """Do the stage's work unless it is done; its inputs must be.

        Raises:
            PruneError: An input is at fault, the engine failed, or the run was interrupted.
        """
        found = self.output()
        if found is None:
            found = self.work(self.folder, engine, observe)
            write_text(self.folder.output, found.model_dump_json(indent=1) + "\n")
            # These were for resuming; the final weights stay, and the mask.
            shutil.rmtree(self.folder.training.snapshots, ignore_errors=True)
            for path in (self.folder.pretrained, self.folder.pruned):
                path.unlink(missing_ok=True)
        return found

    def _whole_net(self, folder: StageFolder) -> Path:
        """The unpruned net: its own file, or one with other numbers of units in ``folder``."""
        if not self.context.units:
            return self.context.net
        write_prototxt(folder.net, self.context.read_net())
        return folder.net

    def _train(
        self,
        folder: StageFolder,
        engine: Engine,
        observe: Observer,
        seed: int,
        *,
        net: Path,
        weights: Path | None = None,
        mask: Path | None = None,
    ) -> TrainResult:
        request = TrainRequest(
            solver=self._solver,
            net=net,
            weights=weights,
            mask=mask,
            data=self.context.data,
            max_iter=self.iterations,
            test_interval=0,
            seed=seed,
            device=self.context.device,
            threads=self.context.threads,
        )
        return train(request, folder.training.path, engine, observe)

    def _found(
        self, seed: int, result: TrainResult, kept: dict[str, int], units: dict[str, int] | None
    ) -> StageOutput:
        return StageOutput(
            seed=seed,
            kept=kept,
            units=units,
            before=result.tests[0],
            after=result.final_test,
            iterations=result.iterations,
            seconds=result.seconds,
            versions=result.versions,
        )


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
    """Return the baseline with the most right test answers; of equal ones the first."""
    outputs = [(stage, stage.output()) for stage in baselines]
    done = [(output.after.correct, stage) for stage, output in outputs if output is not None]
    return max(done, key=lambda pair: pair[0])[1]


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


def with_units(net: NetParameter, units: Mapping[str, int]) -> NetParameter:
    """Return the net with other numbers of units in some layers.

    Raises:
        FormatError: It has no InnerProduct layer of one of these names.
    """
    changed = NetParameter()
    changed.CopyFrom(net)
    missing = set(units)
    for layer in changed.layer:
        if layer.type == "InnerProduct" and layer.name in units:
            layer.inner_product_param.num_output = units[layer.name]
            missing.discard(layer.name)
    if missing:
        raise FormatError(f"the net has no InnerProduct layer '{min(missing)}'")
    return changed
