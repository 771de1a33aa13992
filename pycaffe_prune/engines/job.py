"""Jobs: what a user asks for, and what an engine gets."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, field_validator, model_validator

from pycaffe_prune.engines.distillation import Distillation, TeacherWish
from pycaffe_prune.engines.masking import Masking
from pycaffe_prune.engines.test_plan import NetTest, TestPlan
from pycaffe_prune.engines.tying import Tying
from pycaffe_prune.net.state_wish import OWN_STATE, StateWish

__all__ = [
    "EvaluationJob",
    "ForwardJob",
    "Job",
    "LoadedWeights",
    "ReadFile",
    "RestoredState",
    "SolverSettings",
    "TrainRequest",
]


@dataclass(frozen=True)
class TrainRequest:
    """One solver run as a user asks for it; None means: as the solver says."""

    solver: Path
    net: Path | None = None
    """Used in place of the solver's net (a pruned one, say)."""
    weights: Path | None = None
    more_weights: tuple[Path, ...] = ()
    """Loaded after ``weights``, in this order: a later file overwrites layers of the same names."""
    restore: Path | None = None
    """A solverstate to go on from, Caffe's or ours, with the weights that it names."""
    mask: Path | None = None
    masking: Masking | None = None
    """How masks change while it trains."""
    teacher: TeacherWish | None = None
    """A net that has part in its loss (engine torch)."""
    tying: Tying | None = None
    """Which equal weights stay equal while it trains."""
    data: Path | None = None
    """Folder in which the net's relative LMDB and mean paths are looked up."""
    max_iter: int | None = None
    snapshot: int | None = None
    test_interval: int | None = None
    """0: test before the first and after the last iteration only. With a number also solvers
    without ``test_iter`` are tested, which else never are."""
    seed: int | None = None
    device: str = "cpu"
    threads: int = 1
    """BLAS threads; with one, runs repeat bit for bit."""
    state: StateWish = OWN_STATE
    """Level and stages beside those of the nets' own states."""
    keep_snapshots: bool = False
    checkpoints: tuple[int, ...] = ()
    """Iterations after which a snapshot is taken as well; for `keep_snapshots`."""
    accuracy: str | None = None
    """The Accuracy layer, or the loss, that tests judge; None: chosen by `engines.test_plan`."""
    trust: bool = False
    """Whether solver and nets are the user's own, and may run code and write (`net.trust`)."""
    own: tuple[Path, ...] = ()
    """Folders below which the nets may have files read, besides those of ``data``, solver and net:
    where solver and net come from, when they were made of others."""


class SolverSettings(BaseModel):
    """What the learning rate depends on."""

    model_config = ConfigDict(frozen=True)

    lr_policy: str
    base_lr: float
    gamma: float
    power: float
    stepsize: int
    stepvalue: tuple[int, ...]
    max_iter: int


class LoadedWeights(BaseModel):
    """A file of weights that a run begins with, and what Caffe does with its layers."""

    model_config = ConfigDict(frozen=True)

    file: str
    sha256: str
    copied: tuple[str, ...]
    """Layers that get their blobs."""
    unused: tuple[str, ...]
    """Layers with blobs that the net does not have."""


class RestoredState(BaseModel):
    """The solverstate that a run goes on from, as it was when the run began."""

    model_config = ConfigDict(frozen=True)

    file: str
    iteration: int
    sha256: str
    weights: str
    """The file of its weights."""
    weights_sha256: str
    changes: tuple[str, ...] = ()
    """Settings of the solver that are others than in the run that left it, where that is known."""


class ReadFile(BaseModel):
    """A file, an LMDB or a list with all that it names, as a layer of the net reads it."""

    model_config = ConfigDict(frozen=True)

    reader: str
    """The layer, with its phase."""
    field: str
    """The one that names it."""
    told: str
    """What it is and who reads it, for a sentence."""
    sha256: str
    """Over its content (`engines.contents.Content`)."""


class Job(BaseModel):
    """What an engine does, with the fingerprints of all that decides the outcome."""

    model_config = ConfigDict(frozen=True)

    schema_version: Literal[1] = 1
    net_sha256: str
    """Over the net and the content of all files that it reads."""
    files: tuple[ReadFile, ...] = ()
    """Those files. Older versions knew an LMDB by its name and its number of records only."""
    solver_sha256: str
    """Over the solver's settings that decide the weights (not tests, snapshots, display)."""
    weights: tuple[str, ...] = ()
    """Paths of the initial weights, loaded in this order."""
    weights_sha256: tuple[str, ...] = ()
    loaded: tuple[LoadedWeights, ...] = ()
    """What is used of each of them."""
    new_layers: tuple[str, ...] = ()
    """Layers that none of them fills; empty too where there are none."""
    restored: RestoredState | None = None
    mask_sha256: str | None
    masked: tuple[tuple[str, int], ...]
    """Layer and blob index of each mask in ``mask.npz``, in its order."""
    masking: Masking | None = None
    """How masks change while it trains."""
    distillation: Distillation | None = None
    """The teacher that has part in its loss."""
    tying: Tying | None = None
    """Which equal weights stay equal while it trains."""
    seed: int
    max_iter: int
    iter_size: int
    snapshot: int
    keep_snapshots: bool
    checkpoints: tuple[int, ...] = ()
    """Iterations after which a snapshot is taken, besides each ``snapshot`` of them."""
    test_interval: int
    test_initialization: bool = True
    """Whether there is a test before the first iteration."""
    display: int
    batch: int
    tests: tuple[NetTest, ...] = ()
    """How each of the solver's test nets is tested, in Caffe's order."""
    headline: int | None = None
    """The number of the test net that the run is judged by; None: no answers are counted."""
    losses: tuple[tuple[str, float], ...] = ()
    """The blobs that add to the training loss, with their weights."""
    replay: tuple[tuple[str, int], ...]
    """Layers to bring back to their place on resume, with the batches after which they come round
    (0: never, each forward is replayed)."""
    solver: SolverSettings
    device: str
    threads: int
    trusted: bool = False
    """Whether its layers may run code and write (`net.trust`)."""
    module_folders: tuple[str, ...] = ()
    """Of a trusted run: where the modules of Python layers are looked for."""

    def differences(self, other: "Job") -> list[str]:
        """Name what makes ``other`` another run than this one, not a continuation of it."""
        names = ["net_sha256", "solver_sha256", "weights_sha256", "mask_sha256", "masking"]
        names += ["tying", "seed", "trusted"]
        if self.solver.lr_policy == "poly":
            names.append("max_iter")
        names.append("taught_by")
        found = [
            name.removesuffix("_sha256")
            for name in names
            if getattr(self, name) != getattr(other, name)
        ]
        if None not in (self.accuracy, other.accuracy) and self.accuracy != other.accuracy:
            found.append("accuracy")
        return found if self._restored_sha256 == other._restored_sha256 else [*found, "solverstate"]

    @property
    def taught_by(self) -> dict[str, object] | None:
        """The teacher, but for where its weights lie."""
        return self.distillation.identity if self.distillation else None

    @property
    def accuracy(self) -> str | None:
        """The layer that the run is judged by."""
        plan = None if self.headline is None else self.tests[self.headline].plan
        return plan.layer if plan else None

    @property
    def _restored_sha256(self) -> tuple[str, ...]:
        return (self.restored.sha256, self.restored.weights_sha256) if self.restored else ()

    @model_validator(mode="before")
    @classmethod
    def _of_one_test_net(cls, value: Any) -> Any:
        """As older versions wrote it."""
        if not isinstance(value, dict) or not value.get("test"):
            return value
        test = {"plan": value["test"], "images": value["test_images"]}
        return {**value, "tests": (test,), "headline": 0}

    @field_validator("weights", "weights_sha256", mode="before")
    @classmethod
    def _of_older_versions(cls, value: object) -> object:
        """One file or none, as older versions wrote it."""
        return () if value is None else (value,) if isinstance(value, str) else value


class EvaluationJob(BaseModel):
    """Weights of one net to test, each over exactly the same ``test_images`` images."""

    model_config = ConfigDict(frozen=True)

    net_sha256: str
    weights: tuple[str, ...]
    """Paths of caffemodels that all hold the same blobs."""
    test_images: int
    rewind: bool
    """Whether each caffemodel needs a net of its own: Caffe's Data layers never rewind, so only
    whole passes in whole batches leave the next one the same batches; LSTM and RNN begin with the
    states that the last pass left (`src/caffe/layers/recurrent_layer.cpp`)."""
    test: TestPlan
    headline_mark: str | None = None
    """See `engines.test_plan.headline_mark`."""
    device: str = "cpu"
    threads: int = 1
    module_folders: tuple[str, ...] = ()
    """As `Job.module_folders`."""


class TimesJob(BaseModel):
    """Time forward passes of a net whose inputs are Input layers."""

    model_config = ConfigDict(frozen=True)

    weights: str
    batches: tuple[int, ...]
    """Numbers of images that go through together."""
    rounds: int = 11
    seconds: float = 5.0
    """After which no more rounds than three are begun, for each number of images."""
    device: str = "cpu"
    module_folders: tuple[str, ...] = ()
    """As `Job.module_folders`."""


class ForwardJob(BaseModel):
    """Run given inputs through given weights; the wanted blobs go to ``outputs.npz``."""

    model_config = ConfigDict(frozen=True)

    weights: str
    inputs: tuple[str, ...]
    """Names of the blobs in ``inputs.npz``, where they are called i0, i1, ..."""
    outputs: tuple[str, ...]
    """Names of the blobs in ``outputs.npz``, where they are called o0, o1, ..."""
    device: str = "cpu"
    module_folders: tuple[str, ...] = ()
    """As `Job.module_folders`."""
