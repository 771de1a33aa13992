"""The engine ``caffe``: the real BVLC Caffe in a child process, which may die but never lies."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.engines.base import Event, Observer, TestScore, TrainResult
from pycaffe_prune.engines.caffe import caffe_worker
from pycaffe_prune.engines.caffe.forward_times import times_by_files
from pycaffe_prune.engines.caffe.names import require_names_for_pycaffe
from pycaffe_prune.engines.gpus import NO_DRIVER
from pycaffe_prune.engines.job import EvaluationJob, Job
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.engines.run_state import half_written
from pycaffe_prune.engines.session import (
    follow_evaluation,
    follow_training,
    forward_by_files,
    parse_event,
    stopped_before,
)
from pycaffe_prune.errors import EngineError

__all__ = ["CaffeEngine"]

_FATAL = re.compile(r"^F\d{4} [^\]]*\] (.*)", re.MULTILINE)
_STACK = "*** Check failure stack trace"
# What Boost.Python raises when Caffe has printed the error of a Python layer, and cleared it.
_TOLD_BEFORE = "returned NULL without setting an error"
# cudaErrorInsufficientDriver, which is also what no driver at all gives, and cudaErrorNoDevice.
_WITHOUT_GPU = re.compile(r"error == cudaSuccess \((35|100) vs")


class CaffeEngine:
    """Trains and tests with the pycaffe of another Python interpreter.

    Args:
        executable: A Python that can import caffe (`engines.caffe.python.find_caffe_python`).
        trust: Whether nets that `forward` gets are the user's own, and may run code (`net.trust`).
    """

    name = "caffe"

    def __init__(self, executable: Path, *, trust: bool = False) -> None:
        self._executable, self._trust = executable, trust
        self._running: set[subprocess.Popen[str]] = set()
        self._stopped = False

    def stop(self) -> None:
        """Ask every running worker for a snapshot and an end; no other one begins."""
        self._stopped = True  # first: a worker that comes now is signalled here or refused there
        for process in tuple(self._running):
            process.send_signal(signal.SIGINT)

    def close(self) -> None:
        """Nothing to do: every process ends with its job."""

    def train(self, folder: RunFolder, job: Job, observe: Observer) -> TrainResult:
        """Run the job prepared in ``folder``; see `engines.base.Engine`.

        A snapshot of the same run in the folder is resumed, to the same final bits.
        """
        if job.distillation:
            raise EngineError(
                f"{folder.path}: a teacher has part in the loss of this run, and Caffe has no "
                "layer for that; use --engine torch"
            )
        events = self._events("train", folder, job.threads)
        return follow_training(self.name, events, folder, job, observe)

    def evaluate(self, folder: RunFolder, job: EvaluationJob) -> Iterator[TestScore]:
        """Test the job's weights one after the other in one process; see `engines.base.Engine`."""
        return follow_evaluation(self._events("evaluate", folder, job.threads), job)

    def forward(
        self,
        net_path: Path,
        weights: Path,
        inputs: Mapping[str, NDArray[np.float32]],
        outputs: Sequence[str],
    ) -> list[NDArray[np.float32]]:
        """Run ``inputs`` (blob name to array) through a TEST net and return the blobs ``outputs``.

        Raises:
            EngineError: Caffe refused the net, the weights or the inputs.
            FormatError: The net is damaged, or not to be trusted.
        """
        work = partial(self._events, "forward", threads=1)
        return forward_by_files(net_path, weights, inputs, outputs, work, trust=self._trust)

    def forward_times(
        self, net_path: Path, weights: Path, batches: Sequence[int]
    ) -> tuple[float, ...]:
        """Measure a forward pass of a deploy net on one thread of the CPU.

        Args:
            net_path: The net, with Input layers whose first axis is images.
            weights: Its weights.
            batches: Numbers of images that go through together.

        Returns:
            Milliseconds of the thread for each of them, medians of up to 11 rounds: what the wall
            would show with nothing beside, save for caches that others fill.

        Raises:
            EngineError: Caffe refused the net or the weights.
            FormatError: The net is damaged, or not to be trusted.
        """
        work = partial(self._events, "times", threads=1)
        return times_by_files(net_path, weights, batches, work, trust=self._trust)

    def _events(self, task: str, folder: RunFolder, threads: int) -> Iterator[Event]:
        """Start the worker and yield its events; turn its death into an error."""
        require_names_for_pycaffe(folder.net)
        command = [
            str(self._executable),
            str(Path(caffe_worker.__file__).parent),
            task,
            str(folder.job),
        ]
        environment = {
            **os.environ,
            "GLOG_minloglevel": "2",
            "GLOG_logtostderr": "1",
            "OPENBLAS_NUM_THREADS": str(threads),
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
        }
        with folder.engine_log.open("wb") as errors:
            try:
                # A session of its own: Ctrl-C reaches this process only, which passes it on.
                process = subprocess.Popen(
                    command,
                    stdout=subprocess.PIPE,
                    stdin=subprocess.PIPE,  # by its end the worker sees that this process is gone
                    stderr=errors,
                    env=environment,
                    text=True,
                    start_new_session=True,
                )
            except OSError as error:
                raise EngineError(
                    f"{self._executable}: cannot be started ({error.strerror}); "
                    "see `caffe-prune doctor`"
                ) from error
            with process:
                self._running.add(process)
                try:
                    if self._stopped:
                        raise stopped_before(folder)
                    for line in process.stdout or ():
                        yield parse_event(line, folder)
                    process.wait()
                finally:
                    self._running.discard(process)
                    process.kill()  # nothing to do unless an error left it running
        if process.returncode == -signal.SIGINT:  # `stop` came before it could listen
            raise stopped_before(folder)
        if process.returncode:
            raise EngineError(_explain(task, folder, process.returncode))


def _explain(task: str, folder: RunFolder, code: int) -> str:
    """One sentence from what the worker left on standard error: Caffe's own when it aborted."""
    if code != -signal.SIGKILL and (cut_off := half_written(folder)):
        # The worker's own words would lie on the same disk.
        free = shutil.disk_usage(folder.path).free
        return (
            f"{folder.path}: Caffe could not write {cut_off.name}, with {free / 1e6:,.1f} MB of "
            "space left there; free some, and the same command goes on from the last snapshot"
        )
    text = folder.engine_log.read_text(encoding="utf-8", errors="replace")
    if fatal := _FATAL.search(text):
        sentence = " ".join(text[fatal.start(1) :].split(_STACK)[0].split())
        if _WITHOUT_GPU.search(sentence):
            sentence += f": {NO_DRIVER}"
        return f"Caffe refused to {task}: {sentence} ({folder.engine_log})"
    if text.rstrip().endswith(_TOLD_BEFORE):
        text = text.rpartition("Traceback (most recent call last)")[0]
    last = text.strip().splitlines()[-1:] or ["it left no message"]
    if code < 0:
        name = signal.Signals(-code).name
        return (
            f"the Caffe worker was ended by {name} ({last[0]}); the same command goes on from the "
            f"last snapshot in {folder.snapshots}"
        )
    return f"the Caffe worker failed: {last[0]} ({folder.engine_log})"
