"""Stages: pure functions of their inputs, stored under content keys.

A stage's key is a hash over its kind, its settings and the keys of its inputs, down to the data and
the prototxts. Its output lies in a folder named by the key. A stage is done when its output is
there and the files that it left have the checksums that it recorded.
"""

import hashlib
import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError

from pycaffe_prune.engines.base import Engine, Event, Observer, TestScore, TrainResult
from pycaffe_prune.engines.contents import noted_sha256
from pycaffe_prune.engines.data_shapes import data_shapes
from pycaffe_prune.engines.distillation import TeacherWish
from pycaffe_prune.engines.job import Job, TrainRequest
from pycaffe_prune.engines.masking import Masking
from pycaffe_prune.engines.run import train
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.engines.run_state import ChecksumOf, is_json, remove_partial_files
from pycaffe_prune.engines.tying import Tying
from pycaffe_prune.errors import FormatError, PruneError
from pycaffe_prune.experiments.blas import one_blas_thread
from pycaffe_prune.experiments.machine import this_machine
from pycaffe_prune.experiments.paths import ExperimentFolder, StageFolder
from pycaffe_prune.experiments.result import Machine
from pycaffe_prune.experiments.store.stage_files import (
    checksums,
    fault_of_files,
    fault_of_old_files,
)
from pycaffe_prune.experiments.store.stage_lock import Stop, stage_lock
from pycaffe_prune.formats.caffe_pb2 import TEST, NetParameter
from pycaffe_prune.formats.caffemodel import BlobKey, Caffemodel, read_caffemodel
from pycaffe_prune.formats.compressed.blobs import Hash
from pycaffe_prune.formats.files import write_text
from pycaffe_prune.formats.prototxt import read_net, write_prototxt
from pycaffe_prune.net.graph import NetState, layers_in_state
from pycaffe_prune.net.widths import with_widths
from pycaffe_prune.pruning.sizes import ModelSizes, model_sizes

__all__ = ["Context", "Stage", "StageOutput"]

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
    """Over data, net, solver, the engine's name, whether it rounds to TF32, and ``trust``."""
    device: str = "cpu"
    threads: int = 1
    units: tuple[tuple[str, int], ...] = ()
    """Layers whose number of units is another one than in the net's file."""
    retraining_solver: Path | None = None
    """For what is trained after pruning; None: the same solver."""
    retraining_fingerprint: str = ""
    """As ``fingerprint``, over that solver."""
    accuracy: str | None = None
    """The layer that tests judge; None: chosen by `engines.test_plan`."""
    trust: bool = False
    """Whether solvers and net are the user's own, and may run code and write (`net.trust`)."""
    checksum_of: ChecksumOf = noted_sha256
    """Says what the files of stages that are done hold."""
    own: tuple[Path, ...] = ()
    """Folders that solvers and net come from: they may have files read below them."""

    def read_net(self) -> NetParameter:
        """Return the net that is trained and pruned.

        Raises:
            FormatError: It cannot be read.
            SurgeryError: It has no layer with a width of a name in ``units``.
        """
        return with_widths(read_net(self.net), dict(self.units))


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
    images: int | None = None
    """Training images that these were; None in files of older versions."""
    sizes: ModelSizes | None = None
    """Of the net that it left; None in files of older versions."""
    seconds: float
    versions: dict[str, str]
    device: str | None = None
    threads: int | None = None
    machine: Machine | None = None
    """Where it was done; like device and threads None in files of older versions."""
    files: dict[str, str] | None = None
    """SHA-256 of the files that it left, by path in its folder; None in files of older versions."""
    elsewhere: str | None = None
    """The store that has these files, where they are not here (`experiments.store.files`)."""


@dataclass(frozen=True, eq=False)
class Stage(ABC):
    """A stage: see the module. Subclasses say what it is made of and what it does."""

    context: Context
    iterations: int
    teacher: TeacherWish | None = field(default=None, kw_only=True)
    """Who has part in the loss; no part of the key (`methods.distilled` has a stage around)."""

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

    @property
    def files(self) -> tuple[Path, ...]:
        """What is in the folder when the stage is done, and others may need."""
        return (self.folder.training.final_weights,)

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
            FormatError: The file is of another version.
        """
        found, fault = self._look()
        return None if fault else found

    def _look(self) -> tuple[StageOutput | None, str | None]:
        """What the stage found, and why it is not done though it was."""
        path = self.folder.output
        if not path.is_file():
            return None, None
        if not is_json(path):
            return None, f"{path} is damaged"
        try:
            found = StageOutput.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise FormatError(
                f"{path}: is not as this version writes it; remove the folder {path.parent}"
            ) from error
        # Not every key has the layers in it: with other ones, what is trained must be counted anew.
        if found.kept.keys() != set(self.context.layers):
            return None, None
        return found, self._fault(found)

    def _fault(self, found: StageOutput) -> str | None:
        if found.elsewhere is not None:
            return None
        if found.files is not None:
            return fault_of_files(self.folder, found.files, self.context.checksum_of)
        fault = fault_of_old_files(self.folder, self.files)
        if fault is None:
            with suppress(PruneError):  # a folder that cannot be written to is looked at again
                self._write(found)
        return fault

    def _write(self, found: StageOutput) -> StageOutput:
        files = checksums(self.folder, self.files)
        found = found.model_copy(update={"files": files})
        write_text(self.folder.output, found.model_dump_json(indent=1) + "\n")
        return found

    def require_output(self) -> StageOutput:
        """Return what the stage found.

        Raises:
            FormatError: It is not done, or the file is damaged.
        """
        found = self.output()
        if found is None:
            raise FormatError(
                f"{self.folder.path}: stage {self.label} is not done; run `caffe-prune reproduce` "
                "again"
            )
        return found

    def run(self, engine: Engine, observe: Observer, stop: Stop) -> StageOutput:
        """Do the stage's work unless it is done; its inputs must be.

        A stage that another process is at (presets may share a folder) is waited for.

        Args:
            engine: What does the work.
            observe: Called with each event, and when the stage waits (`stage_lock`).
            stop: Keeps the stage from being begun.

        Raises:
            InterruptedRunError: The sweep was asked to stop, or the run was interrupted.
            PruneError: An input is at fault, or the engine failed.
        """
        with stage_lock(self.folder, stop, observe):
            found, fault = self._look()
            if fault:
                observe(Event(event="anew", message=f"{fault}; the stage is done anew"))
            if found is None or fault:
                remove_partial_files(self.folder.path)
                self._forget_damaged_run(observe)
                with one_blas_thread():
                    found = self._write(self.work(self.folder, engine, observe))
                # These were for resuming; the final weights stay, and the mask.
                shutil.rmtree(self.folder.training.snapshots, ignore_errors=True)
                place = self.folder
                for path in (place.pretrained, place.pruned, place.pruned_state):
                    path.unlink(missing_ok=True)
        return found

    def _forget_damaged_run(self, observe: Observer) -> None:
        """Begin anew where a machine that died has left half of what a run goes on from."""
        job = self.folder.training.job
        if job.is_file() and not is_json(job):
            said = f"{job} is damaged; the stage's training is begun anew"
            observe(Event(event="anew", message=said))
            shutil.rmtree(self.folder.training.path)

    def _whole_net(self, folder: StageFolder) -> Path:
        """The unpruned net: its own file, or one with other numbers of units in ``folder``."""
        if not self.context.units:
            return self.context.net
        write_prototxt(folder.net, self.context.read_net())
        return folder.net

    def _request(self, net: Path, seed: int) -> TrainRequest:
        """A training of this stage, from the net's fillers."""
        return TrainRequest(
            solver=self._solver,
            net=net,
            teacher=self.teacher,
            data=self.context.data,
            max_iter=self.iterations,
            test_interval=0,
            seed=seed,
            accuracy=self.context.accuracy,
            device=self.context.device,
            threads=self.context.threads,
            trust=self.context.trust,
            own=self.context.own,
        )

    def _train(
        self,
        folder: StageFolder,
        engine: Engine,
        observe: Observer,
        seed: int,
        *,
        net: Path,
        weights: Path | None = None,
        restore: Path | None = None,
        mask: Path | None = None,
        masking: Masking | None = None,
        tying: Tying | None = None,
    ) -> TrainResult:
        request = replace(
            self._request(net, seed),
            weights=weights,
            restore=restore,
            mask=mask,
            masking=masking,
            tying=tying,
        )
        place, checksum_of = folder.training.path, self.context.checksum_of
        return train(request, place, engine, observe, checksum_of)

    def _untrained(
        self,
        folder: StageFolder,
        engine: Engine,
        observe: Observer,
        seed: int,
        *,
        net: Path,
        weights: Path | None = None,
    ) -> tuple[TrainResult, Caffemodel]:
        """What a training with this seed begins with: its test, and the weights."""
        request = replace(self._request(net, seed), weights=weights, max_iter=0, teacher=None)
        place = RunFolder(folder.path / "untrained")
        found = train(request, place.path, engine, observe, self.context.checksum_of)
        begun = read_caffemodel(place.final_weights)
        shutil.rmtree(place.path)
        return found, begun

    def _found(
        self,
        folder: StageFolder,
        observe: Observer,
        result: TrainResult,
        kept: dict[str, int],
        units: dict[str, int] | None,
        hashed: Mapping[BlobKey, Hash] = MappingProxyType({}),
    ) -> StageOutput:
        job = Job.model_validate_json(folder.training.job.read_bytes())
        done = result.iterations - (result.restored.iteration if result.restored else 0)
        return StageOutput(
            seed=result.seed,
            kept=kept,
            units=units,
            before=result.first_test,
            after=result.final_test,
            iterations=done,
            images=done * job.iter_size * job.batch,
            sizes=_sizes(folder.training, observe, hashed),
            seconds=result.seconds,
            versions=result.versions,
            device=self.context.device,
            threads=self.context.threads,
            machine=this_machine(),
        )


def _sizes(
    training: RunFolder, observe: Observer, hashed: Mapping[BlobKey, Hash]
) -> ModelSizes | None:
    """What the trained net takes; a net that cannot be measured is trained all the same."""
    try:
        net = read_net(training.net)
        shapes = data_shapes(layers_in_state(net, NetState.of(net, TEST)))
        return model_sizes(net, read_caffemodel(training.final_weights), shapes, hashed)
    except PruneError as error:
        observe(Event(event="warning", message=f"the net's sizes are not known: {error}"))
        return None
