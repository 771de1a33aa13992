"""A Dask cluster of real processes on loopback."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class DaskProcesses:
    """The processes, and where the scheduler is told of."""

    scheduler_file: Path
    scheduler: subprocess.Popen[bytes]
    workers: tuple[subprocess.Popen[bytes], ...]

    def alive(self, workers: int) -> bool:
        """Tell whether the scheduler and so many workers are there."""
        living = [process for process in self.workers if process.poll() is None]
        return self.scheduler.poll() is None and len(living) >= workers


@contextmanager
def dask_processes(folder: Path, workers: int, *options: str) -> Iterator[DaskProcesses]:
    """Start a scheduler and workers of one thread each, without nannies: a killed one stays dead.

    Yields:
        The processes; all are killed at the end.
    """
    file = folder / "scheduler.json"
    with ExitStack() as stack:

        def start(module: str, *arguments: str) -> subprocess.Popen[bytes]:
            log = stack.enter_context((folder / f"{module}.log").open("ab"))
            process = subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.{module}", *arguments],
                cwd=folder,
                stdout=log,
                stderr=log,
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        scheduler = start(
            "dask_scheduler",
            *("--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--no-show"),
            *("--scheduler-file", str(file)),
        )
        while not file.is_file():
            assert scheduler.poll() is None
            time.sleep(0.05)
        told = ("--scheduler-file", str(file), "--nthreads", "1", "--no-dashboard", "--no-nanny")
        started = tuple(
            start("dask_worker", *told, "--host", "127.0.0.1", *options) for _ in range(workers)
        )
        yield DaskProcesses(file, scheduler, started)
