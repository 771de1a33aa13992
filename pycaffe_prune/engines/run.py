"""A whole training run in a folder: prepared, locked, resumed, finished once."""

from pathlib import Path

from filelock import FileLock, Timeout

from pycaffe_prune.engines.base import Engine, Observer, TrainResult, read_result
from pycaffe_prune.engines.job import TrainRequest
from pycaffe_prune.engines.prepare import check
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.errors import FolderInUseError, FormatError, PruneError

__all__ = ["train"]


def train(request: TrainRequest, out: Path, engine: Engine, observe: Observer) -> TrainResult:
    """Train as ``request`` says in the folder ``out``; begin, go on, or return what is there.

    A run killed at any moment goes on from its last snapshot when called again. A finished run is
    returned at once, unless more iterations are asked for: then it goes on from its end.

    Args:
        request: What to train.
        out: The run's folder; made when missing.
        engine: What does the work.
        observe: Called with each event.

    Raises:
        FolderInUseError: Another process works in the folder.
        FormatError: The run is finished, and was tested by another layer than is asked for.
        PruneError: The request is at fault, the folder holds another run, or the engine failed.
    """
    folder = RunFolder(out.resolve())
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.lock, timeout=0):
            finished = read_result(folder)
            checked = check(request, folder)
            if finished and finished.iterations >= checked.job.max_iter:
                _require_judged_by(request.accuracy, finished, out)
                return finished
            checked.write(folder)
            folder.result.unlink(missing_ok=True)
            return engine.train(folder, checked.job, observe)
    except Timeout as error:
        raise FolderInUseError(f"{out}: another process is working in this folder") from error
    except OSError as error:
        raise PruneError(f"{out}: {error.strerror or error}") from error


def _require_judged_by(accuracy: str | None, finished: TrainResult, out: Path) -> None:
    judged = finished.tests[-1].accuracy_name if finished.tests else None
    if accuracy is not None and accuracy != judged:
        by = f"by '{judged}'" if judged else "without a name of what was judged"
        raise FormatError(
            f"{out}: holds this run finished, tested {by}; choose another --out to test by "
            f"'{accuracy}'"
        )
