"""An engine that is not here, and the runs that it made elsewhere."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.engines.base import Observer, TestScore, TrainResult
from pycaffe_prune.engines.contents import noted_sha256
from pycaffe_prune.engines.job import EvaluationJob, Job
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.engines.run_state import usable_result
from pycaffe_prune.errors import EngineError

__all__ = ["StoredRuns"]


class StoredRuns:
    """Stands for an engine in `engines.comparison.parity`, where all runs asked of it are finished.

    Args:
        name: The engine's.
        run: The folder that `engines.comparison.parity.store_runs` kept its run in, beside the
            others.
        iterations: How long they have to be.
        reason: Why the engine is not here.
        command: What makes its runs where it is.

    Raises:
        EngineError: Its run is missing, not finished, damaged or shorter.
        FormatError: Its result is of another version.
    """

    def __init__(self, name: str, run: Path, iterations: int, reason: str, command: str) -> None:
        self.name, self._run, self._iterations = name, run, iterations
        self._reason, self._command = reason, command
        found, fault = usable_result(RunFolder(run), noted_sha256)
        if fault:
            raise EngineError(f"{fault}; bring it anew, or make it anew where {name} is")
        if found is None or found.iterations < iterations:
            raise self._missing(run)

    def _missing(self, run: Path) -> EngineError:
        return EngineError(
            f"{run}: holds no finished run of {self._iterations:,} iterations, and the engine "
            f"{self.name} is not here to make it ({self._reason}); make it where {self.name} is "
            f"with `{self._command}`, and bring that folder to {self._run.parent}"
        )

    def train(self, folder: RunFolder, job: Job, observe: Observer) -> TrainResult:  # noqa: ARG002
        """Refuse: the run is not there.

        Raises:
            EngineError: Always.
        """
        raise self._missing(folder.path)

    def evaluate(self, folder: RunFolder, job: EvaluationJob) -> Iterator[TestScore]:  # noqa: ARG002
        """Refuse, as `train` does."""
        raise self._missing(folder.path)

    def forward(
        self,
        net_path: Path,  # noqa: ARG002
        weights: Path,  # noqa: ARG002
        inputs: Mapping[str, NDArray[np.float32]],  # noqa: ARG002
        outputs: Sequence[str],  # noqa: ARG002
    ) -> list[NDArray[np.float32]]:
        """Refuse, as `train` does."""
        raise self._missing(self._run)

    def stop(self) -> None:
        """Do nothing: nothing runs."""

    def close(self) -> None:
        """Do nothing: there are no processes."""
