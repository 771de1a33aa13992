"""Every file that an experiment writes, one line each."""

from dataclasses import dataclass
from pathlib import Path

from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.path_names import as_component

__all__ = ["ExperimentFolder", "SensitivityFolder", "StageFolder"]


@dataclass(frozen=True)
class StageFolder:
    """The folder of one stage. ``stage.json`` is written last: its presence means done."""

    path: Path

    @property
    def output(self) -> Path:
        """What the stage found (`experiments.stages.StageOutput`)."""
        return self.path / "stage.json"

    @property
    def net(self) -> Path:
        """The net that was trained."""
        return self.path / "net.prototxt"

    @property
    def solver(self) -> Path:
        """The solver, where it is another one than the experiment's."""
        return self.path / "solver.prototxt"

    @property
    def pretrained(self) -> Path:
        """The weights that the initial training begins with; gone when the stage is done."""
        return self.path / "pretrained.caffemodel"

    @property
    def pruned(self) -> Path:
        """The weights after pruning, before training; gone when the stage is done."""
        return self.path / "pruned.caffemodel"

    @property
    def pruned_state(self) -> Path:
        """The solverstate that those go on from, where they do; gone when the stage is done."""
        return self.path / "pruned.solverstate"

    @property
    def state(self) -> Path:
        """The solverstate that the training ended with, where others go on from it."""
        return self.path / "final.solverstate"

    @property
    def mask(self) -> Path:
        """Which connections are kept."""
        return self.path / "kept.mask.h5"

    @property
    def lock(self) -> Path:
        """Held while a process works at the stage."""
        return self.path / ".lock"

    @property
    def training(self) -> RunFolder:
        """The solver run of this stage."""
        return RunFolder(self.path / "train")


@dataclass(frozen=True)
class ExperimentFolder:
    """The folder of one experiment."""

    path: Path

    @property
    def result(self) -> Path:
        """Every point (`experiments.result.ExperimentResult`)."""
        return self.path / "result.json"

    def stage(self, name: str, key: str) -> StageFolder:
        """The folder of the stage called ``name`` with the content key ``key``.

        A stage is named after layers, which may be called anything; the key keeps stages apart.
        """
        return StageFolder(self.path / "stages" / f"{as_component(name)}-{key[:12]}")


@dataclass(frozen=True)
class SensitivityFolder:
    """The folder of one sensitivity analysis."""

    path: Path

    @property
    def result(self) -> Path:
        """Every point so far (`experiments.sensitivity.result.SensitivityResult`)."""
        return self.path / "sensitivity.json"

    @property
    def testing(self) -> RunFolder:
        """Where pruned weights wait for their test; gone when all are done."""
        return RunFolder(self.path / "testing")

    @property
    def lock(self) -> Path:
        """Held while a process works in this folder."""
        return self.path / ".lock"
