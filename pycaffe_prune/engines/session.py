"""A training run as an engine leads it: its events logged, its result written."""

from collections.abc import Iterator

from pycaffe_prune.engines.base import (
    Event,
    Observer,
    TrainResult,
    seconds_in_log,
    tests_in_log,
    write_result,
)
from pycaffe_prune.engines.job import Job
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.errors import EngineError, InterruptedRunError
from pycaffe_prune.formats.files import sha256_of

__all__ = ["follow_training", "parse_event"]

_LOGGED = frozenset({"start", "resumed", "test", "snapshot", "stopped", "done"})


def follow_training(
    engine: str, events: Iterator[Event], folder: RunFolder, job: Job, observe: Observer
) -> TrainResult:
    """Log and pass on a worker's events to the end of the run; write and return its result.

    Raises:
        EngineError: The worker failed, or left pruned weights that are not zero.
        InterruptedRunError: It was stopped and left a snapshot.
    """
    last: dict[str, Event] = {}
    with folder.log.open("a", encoding="utf-8") as log:
        for event in events:
            last[event.event] = event
            if event.event in _LOGGED or (event.model_extra or {}).get("display"):
                log.write(event.model_dump_json(exclude_none=True) + "\n")
                log.flush()
            observe(event)
    if "done" not in last:
        at = last["stopped"].iteration if "stopped" in last else 0
        raise InterruptedRunError(
            f"stopped at iteration {at} of {job.max_iter}; a snapshot is in "
            f"{folder.snapshots}, the same command goes on from there"
        )
    done, start = last["done"].model_extra or {}, last["start"].model_extra or {}
    if done["revived"]:
        raise EngineError(f"{folder.path}: {done['revived']} pruned weights are not zero")
    result = TrainResult(
        engine=engine,
        versions=start["versions"],
        seed=job.seed,
        iterations=job.max_iter,
        tests=tests_in_log(folder),
        weights_sha256=sha256_of(folder.final_weights),
        revived=done["revived"],
        seconds=seconds_in_log(folder),
    )
    write_result(folder, result)
    return result


def parse_event(line: str, folder: RunFolder) -> Event:
    """Return the event that a worker wrote as one line of JSON.

    Raises:
        EngineError: It is none.
    """
    try:
        return Event.model_validate_json(line)
    except ValueError as error:
        raise EngineError(f"{folder.path}: the worker said {line[:200]!r}") from error
