"""A whole training run in a folder: prepared, locked, resumed, finished once."""

from pathlib import Path

from filelock import FileLock, Timeout

from pycaffe_prune.engines.base import Engine, Event, Observer, TrainResult
from pycaffe_prune.engines.contents import noted_sha256
from pycaffe_prune.engines.job import TrainRequest
from pycaffe_prune.engines.prepare import CheckedRun, check
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.engines.run_state import (
    ChecksumOf,
    drop_damaged_snapshots,
    remove_leftovers,
    usable_result,
)
from pycaffe_prune.errors import FolderInUseError, PruneError

__all__ = ["train"]


def train(
    request: TrainRequest,
    out: Path,
    engine: Engine,
    observe: Observer,
    checksum_of: ChecksumOf = noted_sha256,
) -> TrainResult:
    """Train as ``request`` says in the folder ``out``; begin, go on, or return what is there.

    A run killed at any moment goes on from its last snapshot when called again. A finished run is
    returned at once, unless more iterations are asked for: then it goes on from its end. Weights
    that are gone or not as they were written are made anew, and damaged snapshots passed over; an
    event ``anew`` tells each.

    Args:
        request: What to train.
        out: The run's folder; made when missing.
        engine: What does the work.
        observe: Called with each event.
        checksum_of: Says what the weights of a finished run hold.

    Raises:
        FolderInUseError: Another process works in the folder.
        PruneError: The request is at fault, the folder holds another run, or the engine failed.
    """
    folder = RunFolder(out.resolve())
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.lock, timeout=0):
            finished, fault = usable_result(folder, checksum_of)
            checked = check(request, folder)
            if finished and not fault and finished.iterations >= checked.job.max_iter:
                return finished
            if fault:
                observe(Event(event="anew", message=f"{fault}; it is made anew"))
            return _train(folder, checked, engine, observe)
    except Timeout as error:
        raise FolderInUseError(f"{out}: another process is working in this folder") from error
    except OSError as error:
        raise PruneError(f"{out}: {error.strerror or error}") from error


def _train(
    folder: RunFolder, checked: CheckedRun, engine: Engine, observe: Observer
) -> TrainResult:
    folder.result.unlink(missing_ok=True)
    remove_leftovers(folder)
    for fault in drop_damaged_snapshots(folder, checked.job.max_iter):
        observe(Event(event="anew", message=fault))
    checked.write(folder)
    return engine.train(folder, checked.job, observe)
