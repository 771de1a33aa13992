"""What a Dask worker does for a sweep: run stages, tell what happens, stop when asked.

Everything here is called by `experiments.cluster.dask_crew` and runs in a worker's process. One
engine serves all stages of a sweep there, so that its child processes stay warm from stage to
stage.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from distributed import get_worker

from pycaffe_prune import __version__
from pycaffe_prune.engines.base import Engine, Event
from pycaffe_prune.engines.choice import Decision, EngineWish, choose_engine, decide
from pycaffe_prune.errors import DataError, InterruptedRunError
from pycaffe_prune.experiments.stages import Stage, StageOutput
from pycaffe_prune.experiments.store.files import Store, run_in_store
from pycaffe_prune.experiments.store.stage_lock import Stop

__all__ = [
    "Orders",
    "WorkerReport",
    "end_sweep",
    "report",
    "stop_sweep",
    "wait_until_seen",
    "work_on",
]

_PATIENCE_SECONDS = 120.0
"""How long a file system may take to show what another machine wrote."""


@dataclass(frozen=True)
class Orders:
    """What holds for all stages of a sweep."""

    sweep: str
    """The sweep's name: the Dask topic under which events are told."""
    wish: EngineWish
    store: str | None = None
    """URL of the store that keeps the stages (`experiments.store.files`); None: they lie where they
    say, in a folder that all machines see."""


@dataclass(frozen=True)
class WorkerReport:
    """What a worker says of itself."""

    version: str
    """Of pycaffe-prune."""
    decision: Decision


def report(wish: EngineWish) -> WorkerReport:
    """Say which version works here, and which engine would.

    Raises:
        EngineError: The worker has no engine.
    """
    return WorkerReport(__version__, decide(wish))


def work_on(stage: Stage, orders: Orders) -> StageOutput:
    """Run a stage to its end; go on where another worker left it.

    Raises:
        InterruptedRunError: The sweep was stopped.
        PruneError: The stage failed.
    """
    worker = get_worker()

    def tell(event: Event) -> None:
        worker.log_event(orders.sweep, [stage.key, event.model_dump_json(exclude_none=True)])

    with _ENGINES.borrowed(orders) as (engine, stop):
        if orders.store:
            scratch = Path(worker.local_directory) / "caffe-prune"
            return run_in_store(stage, Store(orders.store), scratch, engine, tell, stop)
        for needed in stage.inputs:
            wait_until_seen(needed)
        return stage.run(engine, tell, stop)


def stop_sweep(sweep: str) -> None:
    """End what runs here for a sweep, with a snapshot, and refuse more of it."""
    _ENGINES.stop(sweep)


def end_sweep(sweep: str) -> None:
    """Close the engines that a sweep used here."""
    _ENGINES.close(sweep)


def wait_until_seen(stage: Stage) -> None:
    """Wait until this machine sees the output of a stage that is done elsewhere.

    Raises:
        DataError: It does not come.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while stage.output() is None:
        if time.monotonic() > deadline:
            raise DataError(
                f"{stage.folder.output}: the stage is done, and this machine does not see it; the "
                "run folder must lie on a file system that all machines share, under the same path"
            )
        time.sleep(0.2)


class _Engines:
    """The engines of this process, one for each sweep that is at work here."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._engines: dict[Orders, Engine] = {}
        self._borrowers: dict[Orders, int] = {}
        self._stops: dict[str, Stop] = {}

    @contextmanager
    def borrowed(self, orders: Orders) -> Iterator[tuple[Engine, Stop]]:
        """Give the sweep's engine, and what tells whether the sweep is to end.

        Engines of other sweeps that do nothing are closed.

        Raises:
            InterruptedRunError: The sweep was stopped.
            EngineError: It cannot be had.
        """
        with self._lock:
            stop = self._stops.setdefault(orders.sweep, Stop())
            if stop.asked:
                raise InterruptedRunError("stopped before it began")
            self._close([other for other, count in self._borrowers.items() if not count], orders)
            if orders not in self._engines:
                self._engines[orders] = choose_engine(orders.wish).engine
            self._borrowers[orders] = self._borrowers.get(orders, 0) + 1
            engine = self._engines[orders]
        try:
            yield engine, stop
        finally:
            with self._lock:
                self._borrowers[orders] -= 1

    def stop(self, sweep: str) -> None:
        with self._lock:
            self._stops.setdefault(sweep, Stop()).asked = True
            engines = [engine for orders, engine in self._engines.items() if orders.sweep == sweep]
        for engine in engines:
            engine.stop()

    def close(self, sweep: str) -> None:
        with self._lock:
            self._close([orders for orders in self._engines if orders.sweep == sweep])

    def _close(self, ended: list[Orders], kept: Orders | None = None) -> None:
        for orders in ended:
            if orders != kept and not self._borrowers.get(orders):
                self._engines.pop(orders).close()
                self._borrowers.pop(orders, None)


_ENGINES = _Engines()
