"""The engine ``torch``: Caffe's nets and solvers on PyTorch, in child processes that stay warm."""

import json
import math
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.engines.base import Event, Observer, TestScore, TrainResult
from pycaffe_prune.engines.curvature import CurvatureRequest, measured_curvature
from pycaffe_prune.engines.job import EvaluationJob, Job
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.engines.session import (
    follow_evaluation,
    follow_training,
    forward_by_files,
    parse_event,
    stopped_before,
)
from pycaffe_prune.engines.torch.chains import kind_of
from pycaffe_prune.engines.torch.gathering import Gathering
from pycaffe_prune.engines.torch.request import Request
from pycaffe_prune.errors import EngineError
from pycaffe_prune.formats.blobs import Blob
from pycaffe_prune.formats.caffemodel import BlobKey

__all__ = ["TorchEngine"]

_WORKER = "pycaffe_prune.engines.torch.worker"
_END = '{"event": "end"}\n'
_LAST = '{"event": "last"}\n'


class TorchEngine:
    """Trains and tests with PyTorch, and gives Caffe's answers.

    Work is done in child processes, as many as there are jobs at a time; each stays for the next
    job, with PyTorch loaded and data sets in memory, until the engine goes.

    Args:
        tf32: Whether a GPU may round factors to TF32: faster, and no longer Caffe's answers.
        device: What `forward` computes on; jobs name theirs.
        trust: Whether nets that `forward` gets are the user's own (`net.trust`).
        pack: How many runs that are trained at the same time share a process and a device, stepped
            together where their networks allow it.
        at_once: How many processes work at a time. With a number only runs that step together are
            brought together (`chains.kind_of`), and each, should it be the only one, ends with
            the bits that it ends with in company. None: there is no limit.
    """

    name = "torch"

    def __init__(
        self,
        *,
        tf32: bool = False,
        device: str = "cpu",
        trust: bool = False,
        pack: int = 1,
        at_once: int | None = None,
    ) -> None:
        self._tf32, self._device, self._trust = tf32, device, trust
        self._idle: list[subprocess.Popen[str]] = []
        self._running: set[subprocess.Popen[str]] = set()
        self._stopped = False
        self._lock = threading.Lock()
        weakref.finalize(self, _end_all, self._idle)
        self._packs_of_a_kind = at_once is not None
        self._room = nullcontext() if at_once is None else threading.BoundedSemaphore(at_once)
        self._gathering = None
        if pack > 1:
            self._gathering = Gathering(pack, self._train_together, at_once or math.inf)

    def close(self) -> None:
        """End the processes that wait for work."""
        with self._lock:
            _end_all(self._idle)

    def stop(self) -> None:
        """Ask every running worker for a snapshot and an end; no other one begins."""
        self._stopped = True  # first: a worker that comes now is signalled here or refused there
        if self._gathering:
            self._gathering.stop()
        for process in tuple(self._running):
            process.send_signal(signal.SIGINT)

    def train(self, folder: RunFolder, job: Job, observe: Observer) -> TrainResult:
        """Run the job prepared in ``folder``; see `engines.base.Engine`.

        A snapshot in the folder is resumed, this engine's or the real Caffe's.
        """
        kind = kind_of(folder, job) if self._packs_of_a_kind else None
        if self._gathering and (kind or not self._packs_of_a_kind):
            events = self._gathering.events(folder, job, kind)
        else:
            events = self._train_alone(folder, job)
        return follow_training(self.name, events, folder, job, observe)

    def evaluate(self, folder: RunFolder, job: EvaluationJob) -> Iterator[TestScore]:
        """Test the job's weights one after the other; see `engines.base.Engine`."""
        return follow_evaluation(self._events("evaluate", folder, job.device, job.threads), job)

    def forward(
        self,
        net_path: Path,
        weights: Path,
        inputs: Mapping[str, NDArray[np.float32]],
        outputs: Sequence[str],
    ) -> list[NDArray[np.float32]]:
        """Run ``inputs`` (blob name to array) through a TEST net and return the blobs ``outputs``.

        Raises:
            EngineError: A layer's type is not known, or net, weights and inputs do not fit.
            FormatError: The net is damaged, or not to be trusted.
        """
        work = partial(self._events, "forward", device=self._device, threads=1)
        return forward_by_files(net_path, weights, inputs, outputs, work, trust=self._trust)

    def curvature(self, request: CurvatureRequest) -> dict[BlobKey, Blob]:
        """Measure second derivatives of the loss; see `engines.curvature.measured_curvature`."""
        work = partial(self._events, "curvature", device=request.device, threads=request.threads)
        return measured_curvature(request, work)

    def _train_alone(self, folder: RunFolder, job: Job) -> Iterator[Event]:
        failure = None
        for _, answer in self._train_together([folder], job):
            if isinstance(answer, EngineError):
                failure = answer  # the worker has more to say, and stays for the next job
            else:
                yield answer
        if failure:
            raise failure

    def _train_together(
        self, folders: Sequence[RunFolder], job: Job
    ) -> Iterator[tuple[int, Event | EngineError]]:
        for line in self._lines("train", folders, job.device, job.threads):
            told = json.loads(line)
            number = told.pop("run")
            if told["event"] == "failed":
                log = folders[0].engine_log
                yield number, EngineError(f"{folders[number].path}: {told['message']} ({log})")
            else:
                yield number, parse_event(json.dumps(told), folders[number])

    def _events(self, task: str, folder: RunFolder, device: str, threads: int) -> Iterator[Event]:
        for line in self._lines(task, [folder], device, threads):
            yield parse_event(line, folder)

    def _lines(
        self, task: str, folders: Sequence[RunFolder], device: str, threads: int
    ) -> Iterator[str]:
        """Give a worker its request and yield its answers; turn its death into an error."""
        request = Request.model_validate(
            {
                "task": task,
                "folders": [str(folder.path) for folder in folders],
                "device": device,
                "threads": threads,
                "tf32": self._tf32,
                "packed": self._packs_of_a_kind,
            }
        )
        with self._room:
            yield from self._lines_of(request, folders)

    def _lines_of(self, request: Request, folders: Sequence[RunFolder]) -> Iterator[str]:
        with folders[0].engine_log.open("wb") as log:
            process = self._worker(log)
        self._running.add(process)
        ended = ""
        try:
            if self._stopped:
                raise stopped_before(folders[0])
            for line in _answers(process, request):
                if line in (_END, _LAST):
                    ended = line
                    break
                yield line
            if not ended:
                process.wait()
        finally:
            self._running.discard(process)
            if ended == _END:
                with self._lock:
                    self._idle.append(process)
            else:
                process.kill()  # nothing to do unless an error left it running
                process.communicate()
        if process.returncode == -signal.SIGINT:  # `stop` came before it could listen
            raise stopped_before(folders[0])
        if not ended:
            raise EngineError(_explain(request.task, folders[0], process.returncode))

    def _worker(self, log: BinaryIO) -> subprocess.Popen[str]:
        """Return a worker that waits for a request: one that is there, or a new one.

        Each writes to the log of its request; a new one to ``log`` before it has read that.
        """
        with self._lock:
            while self._idle:
                process = self._idle.pop()
                if process.poll() is None:
                    return process
                process.communicate()
        # A session of its own: Ctrl-C reaches this process only, which passes it on.
        return subprocess.Popen(
            [sys.executable, "-m", _WORKER, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )


def _answers(process: subprocess.Popen[str], request: Request) -> Iterator[str]:
    if process.stdin is None or process.stdout is None:
        return
    with suppress(BrokenPipeError):  # it died: its output ends, and its return code says how
        process.stdin.write(request.model_dump_json() + "\n")
        process.stdin.flush()
    # Not from the pipe itself: whoever stops listening would close it, and the worker stays.
    yield from (line for line in process.stdout)


def _end_all(idle: list[subprocess.Popen[str]]) -> None:
    for process in idle:
        process.communicate()
    idle.clear()


def _explain(task: str, folder: RunFolder, code: int) -> str:
    """One sentence from what the worker left on standard error."""
    text = folder.engine_log.read_text(encoding="utf-8", errors="replace")
    last = (text.strip().splitlines() or ["it left no message"])[-1]
    if code < 0:
        name = signal.Signals(-code).name
        return (
            f"the torch worker was ended by {name} ({last}); the same command goes on from the "
            f"last snapshot in {folder.snapshots}"
        )
    return f"the torch engine failed to {task}: {last} ({folder.engine_log})"
