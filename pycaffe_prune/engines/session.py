"""What an engine does around the work of its processes: logging events, moving files."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.engines.base import (
    Event,
    Observer,
    TestMeans,
    TestScore,
    TrainResult,
    seconds_in_log,
    tests_in_log,
    write_result,
)
from pycaffe_prune.engines.caffe.caffe_worker.snapshots import drop_snapshots
from pycaffe_prune.engines.final_mask import write_final_mask
from pycaffe_prune.engines.gradient_warnings import gradient_warnings
from pycaffe_prune.engines.initial_weights import beginning
from pycaffe_prune.engines.job import EvaluationJob, ForwardJob, Job
from pycaffe_prune.engines.net_files import refuse_files
from pycaffe_prune.engines.net_tests import untested_warnings
from pycaffe_prune.engines.restoring import restored_events
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.engines.run_log import appending
from pycaffe_prune.engines.state_warnings import with_state_warnings
from pycaffe_prune.engines.trusted_layers import module_folders
from pycaffe_prune.errors import EngineError, InterruptedRunError
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.files import sha256_of, write_text
from pycaffe_prune.formats.prototxt import (
    read_net,
    refuse_carried,
    write_prototxt,
)
from pycaffe_prune.formats.temporary import temporary_folder
from pycaffe_prune.net.trust import refuse_untrusted, untrusted_layers

__all__ = [
    "follow_evaluation",
    "follow_training",
    "forward_by_files",
    "parse_event",
    "stopped_before",
]

_LOGGED = frozenset(
    {"start", "weights", "restored", "warning", "resumed", "products", "test", "snapshot"}
    | {"stopped", "done"}
)


def _beginning(folder: RunFolder, job: Job) -> Iterator[Event]:
    """What a run's log has before all that its worker says; once, not in each part of it."""
    net = read_net(folder.net)
    trusted = _trusted_events(net) if job.trusted else ()
    warnings = gradient_warnings(net)
    return chain(trusted, restored_events(job), beginning(job), warnings, untested_warnings(job))


def _trusted_events(net: NetParameter) -> Iterator[Event]:
    """What of a trusted run would not have passed otherwise, for its log."""
    told = "; ".join(untrusted_layers(net)) or "no layer of it runs code or writes files"
    yield Event(event="warning", message=f"trusted as one's own (--trust): {told}")


def follow_training(
    engine: str, events: Iterator[Event], folder: RunFolder, job: Job, observe: Observer
) -> TrainResult:
    """Log and pass on a worker's events to the end of the run; write and return its result.

    Raises:
        EngineError: The worker failed, or left pruned weights that are not zero.
        InterruptedRunError: It was stopped and left a snapshot.
    """
    last: dict[str, Event] = {}
    began = () if folder.log.exists() else _beginning(folder, job)
    with appending(folder.log) as log:
        for event in with_state_warnings(chain(began, events), folder):
            last[event.event] = event
            if event.event in _LOGGED or (event.model_extra or {}).get("display"):
                log(event.model_dump_json(exclude_none=True))
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
    tests = tests_in_log(folder, job.max_iter)
    scores = [_score(test, job) for test in tests if isinstance(test, TestScore)]
    result = TrainResult(
        engine=engine,
        versions=start["versions"],
        seed=job.seed,
        iterations=job.max_iter,
        tests=tuple(test for test in scores if test.test_net == job.headline),
        other_tests=tuple(test for test in scores if test.test_net != job.headline),
        means=tuple(test for test in tests if isinstance(test, TestMeans)),
        loss_weights=tuple(dict(test.losses) for test in job.tests),
        weights_sha256=sha256_of(folder.final_weights),
        mask_sha256=_mask_left(folder, job),
        revived=done["revived"],
        seconds=seconds_in_log(folder),
        loaded=job.loaded,
        new_layers=job.new_layers,
        restored=job.restored,
        trusted=job.trusted,
    )
    write_result(folder, result)
    if not job.keep_snapshots:
        drop_snapshots(str(folder.snapshots), job.max_iter, 1)
    return result


def _mask_left(folder: RunFolder, job: Job) -> str | None:
    moves = job.masking is not None and job.masking.moves_masks
    return write_final_mask(folder, job) if moves else None


def _score(test: TestScore, job: Job) -> TestScore:
    """Without the answers of a test that was the last one when fewer iterations were asked for."""
    is_last = test.iteration == job.max_iter
    return test if is_last else test.model_copy(update={"right_answers": None})


def follow_evaluation(events: Iterator[Event], job: EvaluationJob) -> Iterator[TestScore]:
    """Yield the scores that a worker finds, one for each of the job's weights.

    Raises:
        EngineError: The worker failed.
        InterruptedRunError: It was stopped before the last one.
    """
    done = 0
    for event in events:
        if event.event == "test":
            done += 1
            yield TestScore.model_validate(event.model_dump())
    if done < len(job.weights):
        raise InterruptedRunError(f"stopped with {done} of {len(job.weights)} tests done")


def forward_by_files(
    net_path: Path,
    weights: Path,
    inputs: Mapping[str, NDArray[np.float32]],
    outputs: Sequence[str],
    work: Callable[[RunFolder], Iterator[Event]],
    *,
    trust: bool,
) -> list[NDArray[np.float32]]:
    """Run ``inputs`` (blob name to array) through a TEST net and return the blobs ``outputs``.

    Args:
        net_path: The net.
        weights: Its weights.
        inputs: By blob name.
        outputs: Blobs of the net.
        work: Does the job that a folder holds, in a worker.
        trust: Whether the net is the user's own, and may run code (`net.trust`).

    Raises:
        EngineError: The worker refused the net, the weights or the inputs.
        FormatError: The net is damaged, or not to be trusted.
    """
    net = read_net(net_path)
    if not trust:
        refuse_untrusted(net, net_path)
        refuse_files(net, net_path)
    refuse_carried(net, net_path, "an engine")
    job = ForwardJob(
        weights=str(weights.resolve()),
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        module_folders=module_folders() if trust else (),
    )
    with temporary_folder() as place:
        folder = RunFolder(place)
        write_prototxt(folder.net, net)
        arrays = {f"i{place}": array for place, array in enumerate(inputs.values())}
        np.savez(folder.path / "inputs.npz", allow_pickle=False, **arrays)
        write_text(folder.job, job.model_dump_json())
        for _ in work(folder):
            pass
        with np.load(folder.path / "outputs.npz", allow_pickle=False) as found:
            return [found[f"o{place}"] for place in range(len(outputs))]


def stopped_before(folder: RunFolder) -> InterruptedRunError:
    """Return the error of a run whose engine was stopped before it began."""
    return InterruptedRunError(
        f"{folder.path}: stopped before it began; the same command begins it, or goes on with it"
    )


def parse_event(line: str, folder: RunFolder) -> Event:
    """Return the event that a worker wrote as one line of JSON.

    Raises:
        EngineError: It is none.
    """
    try:
        return Event.model_validate_json(line)
    except ValueError as error:
        raise EngineError(f"{folder.path}: the worker said {line[:200]!r}") from error
