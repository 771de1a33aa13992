"""One process at a time works at a stage: others wait for it, unless they are asked to stop."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from filelock import FileLock, Timeout

from pycaffe_prune.engines.base import Event, Observer
from pycaffe_prune.errors import InterruptedRunError, PruneError
from pycaffe_prune.experiments.paths import StageFolder

__all__ = ["Stop", "stage_lock"]

_POLL_SECONDS = 0.2


@dataclass
class Stop:
    """Whether a sweep was asked to end. May be asked from a signal's handler, at any moment."""

    asked: bool = False


@contextmanager
def stage_lock(folder: StageFolder, stop: Stop, observe: Observer) -> Iterator[None]:
    """Hold the stage's folder, which is made when missing.

    Args:
        folder: The stage's.
        stop: Ends the waiting.
        observe: Told once when another process is at the stage: an event ``start`` that has the
            folder's path as ``waits_for``.

    Raises:
        InterruptedRunError: The sweep was asked to stop.
        PruneError: The folder cannot be written to.
    """
    lock, waits = FileLock(folder.lock), False
    while True:
        if stop.asked:
            raise InterruptedRunError(f"{folder.path}: stopped before it began")
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout:
            if not waits:
                told = {"event": "start", "waits_for": str(folder.path)}
                observe(Event.model_validate(told))
                waits = True
            time.sleep(_POLL_SECONDS)
        except OSError as error:
            raise PruneError(f"{folder.path}: {error.strerror or error}") from error
        else:
            break
    try:
        yield
    finally:
        lock.release()
