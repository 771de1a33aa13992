"""Every file that a training run reads or writes, one line each."""

from dataclasses import dataclass
from pathlib import Path

from pycaffe_prune.engines.caffe.caffe_worker.snapshots import SNAPSHOT, STATE

__all__ = ["RunFolder"]


@dataclass(frozen=True)
class RunFolder:
    """The folder of one training run. ``result.json`` is written last: its presence means done."""

    path: Path

    @property
    def job(self) -> Path:
        """What to do (`engines.job.Job`)."""
        return self.path / "job.json"

    @property
    def net(self) -> Path:
        """The net with absolute paths to its data."""
        return self.path / "net.prototxt"

    @property
    def solver(self) -> Path:
        """The solver with all overrides in it."""
        return self.path / "solver.prototxt"

    @property
    def mask_arrays(self) -> Path:
        """The masks as the worker reads them (NumPy only)."""
        return self.path / "mask.npz"

    @property
    def products(self) -> Path:
        """How the engine torch computes masked layers, as it was measured at the beginning."""
        return self.path / "products.json"

    @property
    def teacher(self) -> Path:
        """The net of a teacher, with Input layers for its data."""
        return self.path / "teacher.prototxt"

    @property
    def log(self) -> Path:
        """Tests, displayed losses and snapshots as JSON lines."""
        return self.path / "log.jsonl"

    @property
    def engine_log(self) -> Path:
        """What the engine itself had to say on standard error."""
        return self.path / "engine.log"

    @property
    def snapshots(self) -> Path:
        """Caffemodels and solverstates to resume from."""
        return self.path / "snapshots"

    def state_at(self, iteration: int) -> Path:
        """The solverstate of the snapshot after so many iterations."""
        return self.snapshots / f"{SNAPSHOT % iteration}{STATE}"

    @property
    def final_weights(self) -> Path:
        """The weights after the last iteration."""
        return self.path / "final.caffemodel"

    @property
    def final_mask(self) -> Path:
        """The masks after the last iteration, where they changed (`formats.mask`)."""
        return self.path / "final.mask.h5"

    @property
    def result(self) -> Path:
        """The outcome (`engines.base.TrainResult`)."""
        return self.path / "result.json"

    @property
    def lock(self) -> Path:
        """Held while a process works in this folder."""
        return self.path / ".lock"
