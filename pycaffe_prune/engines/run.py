"""A whole training run in a folder: prepared, locked, resumed, finished once."""

from pathlib import Path

from filelock import FileLock, Timeout

from pycaffe_prune.engines.base import Engine, Observer, TrainResult, read_result
from pycaffe_prune.engines.job import TrainRequest
from pycaffe_prune.engines.prepare import check
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.errors import FolderInUseError, PruneError

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
        PruneError: The request is at fault, the folder holds another run, or the engine failed.
    """
    folder = RunFolder(out.resolve())
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.lock, timeout=0):
            finished = read_result(folder)
            checked = check(request, folder)
            if finished and finished.iterations >= checked.job.max_iter:
                return finished
            checked.write(folder)
            folder.result.unlink(missing_ok=True)
            return engine.train(folder, checked.job, observe)
    except Timeout as error:
        raise FolderInUseError(f"{out}: another process is working in this folder") from error
    except OSError as error:
        raise PruneError(f"{out}: {error.strerror or error}") from error
