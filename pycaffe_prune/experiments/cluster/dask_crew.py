"""Stages on a Dask cluster, wherever its workers are.

The scheduler hands out stages and passes on what happens in them; it keeps nothing. What is done
lies in the run folder alone, so that any loss (a worker, the scheduler, this process) costs at most
what running stages did since their last snapshots.
"""

import asyncio
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from distributed import Client, KilledWorker
from distributed import Future as DaskFuture

from pycaffe_prune import __version__
from pycaffe_prune.engines.base import Event
from pycaffe_prune.engines.choice import EngineWish
from pycaffe_prune.errors import EngineError, InterruptedRunError
from pycaffe_prune.experiments.cluster.watch import quiet_dask, telling_lack_of_workers
from pycaffe_prune.experiments.cluster.worker import (
    Orders,
    end_sweep,
    report,
    stop_sweep,
    wait_until_seen,
    work_on,
)
from pycaffe_prune.experiments.scheduler import StageObserver, Sweep
from pycaffe_prune.experiments.stages import Stage, StageOutput
from pycaffe_prune.experiments.store.files import AtStore, Store
from pycaffe_prune.experiments.store.moving import Kept, Places, moved
from pycaffe_prune.experiments.store.stage_lock import Stop

__all__ = ["Cluster", "connected", "run_stages_on_cluster"]

_CONNECT_SECONDS = 10
_CANCELLED = (CancelledError, asyncio.CancelledError)
"""What Dask raises of work whose scheduler is gone."""


def _say_nothing(sentence: str) -> None:
    """Say nothing."""


@dataclass(frozen=True)
class Cluster:
    """A connection to a Dask cluster for one sweep."""

    client: Client
    address: str
    sweep: str
    """The sweep's name among others on the same cluster."""
    ending: Stop = field(default_factory=Stop)
    """Whether it is to end."""
    say: Callable[[str], None] = _say_nothing
    """Called with a sentence when it waits."""

    def settle(self, wish: EngineWish) -> EngineWish:
        """Return the wish with the engine's name as a worker of the cluster would choose it.

        Waits for a worker if there is none yet, and says so.

        Raises:
            EngineError: The worker has no such engine or another version of this package, no
                worker offers a GPU, or the scheduler is gone.
        """
        self._require_resources(_resources(wish))
        asked = self.client.submit(report, wish, pure=False, resources=_resources(wish))
        with telling_lack_of_workers(self.client, self.address, self.say):
            found = self._result(asked)
        if found.version != __version__:
            raise EngineError(
                f"{self.address}: a worker has pycaffe-prune {found.version}, and this is "
                f"{__version__}; install the same on both"
            )
        return replace(wish, name=found.decision.name)

    @property
    def threads(self) -> int:
        """Stages that its workers do at a time, as of now."""
        return sum(self.client.nthreads().values())

    def stop(self) -> None:
        """Ask the workers to end this sweep's stages with snapshots; give them no more."""
        self.ending.asked = True
        with suppress(OSError):  # the scheduler is gone: there is nobody to ask
            self.client.run(stop_sweep, self.sweep)

    def _result(self, asked: "DaskFuture[Any]") -> Any:
        try:
            return asked.result()
        except KilledWorker as error:
            raise EngineError(f"the worker died that was asked for its engine: {error}") from error
        except (*_CANCELLED, OSError) as error:
            raise EngineError(
                f"{self.address}: the scheduler is gone; give the command again, with a scheduler "
                "that lives"
            ) from error

    def _require_resources(self, needed: dict[str, float]) -> None:
        offers = [
            worker["resources"] for worker in self.client.scheduler_info(-1)["workers"].values()
        ]
        for name in needed:
            if offers and not any(name in offer for offer in offers):
                raise EngineError(
                    f"{self.address}: none of its {len(offers)} workers offers a {name}; start "
                    f'them with --resources "{name}=1"'
                )


@contextmanager
def connected(address: str, say: Callable[[str], None] = _say_nothing) -> Iterator[Cluster]:
    """Connect to a Dask cluster.

    Args:
        address: Of the scheduler (``tcp://HOST:8786``), or the path of its scheduler file.
        say: Called with a sentence when the sweep waits for a worker.

    Raises:
        EngineError: There is no scheduler.
    """
    with quiet_dask(), _client(address) as client:
        cluster = Cluster(client, address, f"caffe-prune-{uuid.uuid4().hex}", say=say)
        try:
            yield cluster
        finally:
            if client.status == "running":
                with suppress(OSError, *_CANCELLED):  # the scheduler went just now
                    client.run(end_sweep, cluster.sweep, on_error="ignore")


def _client(address: str) -> Client:
    place = {"scheduler_file": address} if Path(address).is_file() else {"address": address}
    try:
        return Client(**place, timeout=_CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise EngineError(
            f"{address}: no Dask scheduler answers there ({error}); start one with "
            "`dask scheduler`, or name its scheduler file"
        ) from error


def run_stages_on_cluster(
    stages: Sequence[Stage],
    cluster: Cluster,
    wish: EngineWish,
    observe: StageObserver,
    store: str | None = None,
) -> None:
    """Run all stages on the cluster's workers, as many at a time as they have threads.

    A stage whose worker dies is given to another one, which goes on from its last snapshot.

    Args:
        stages: Each after its inputs. The experiment's folder and the data must be seen by all
            workers under the same path, unless there is a store.
        cluster: Where to work.
        wish: The engine; its name as `Cluster.settle` gives it.
        observe: See `StageObserver`; called from several threads.
        store: URL at which stages, data and definition are shared (`experiments.store.files`).

    Raises:
        InterruptedRunError: The work was asked to stop; what is done stays done.
        EngineError: The scheduler was lost.
        PruneError: Stages failed; the sentence carries the first one's reason.
    """
    if not stages:
        return
    kept = Kept(stages[0].context.folder)
    here = [moved(stage, kept) for stage in stages]
    shared = Store(store) if store else None
    if shared:
        for needed in _inputs_of_what_is_left(here):
            shared.put_done(needed)
    orders = Orders(cluster.sweep, wish, store)
    sent = _Sent(cluster, orders, AtStore(shared) if shared else None, observe)
    get_output = shared.fetch_output if shared else wait_until_seen
    priorities = {stage.key: -place for place, stage in enumerate(here)}

    def settled(stage: Stage, event: Event | None) -> None:
        get_output(stage)
        sent.observe(stage, event)

    sweep = Sweep(here, settled, cluster.ending)

    def submit(stage: Stage) -> Future[StageOutput]:
        outcome: Future[StageOutput] = Future()
        sent.send(stage, priorities[stage.key], outcome)
        return outcome

    with sent.told(), telling_lack_of_workers(cluster.client, cluster.address, cluster.say):
        sweep.run(submit)
    if sent.lost:
        raise EngineError(
            f"{cluster.address}: the scheduler is gone, with {sweep.progress}; what was running "
            "goes on from its last snapshots when you give the command again, with a scheduler "
            "that lives"
        )
    sweep.require_success()


def _inputs_of_what_is_left(stages: Sequence[Stage]) -> list[Stage]:
    """The stages that are done and that others need which are not."""
    needed = {stage.key: stage for left in stages if left.output() is None for stage in left.inputs}
    return [stage for stage in needed.values() if stage.output() is not None]


def _resources(wish: EngineWish) -> dict[str, float]:
    """What a stage takes of its worker: a GPU, or the part of one that a packed run takes."""
    return {"GPU": 1 / wish.pack} if wish.device.startswith("cuda") else {}


class _Sent:
    """The stages that were handed to the cluster, and what is heard of them."""

    def __init__(
        self, cluster: Cluster, orders: Orders, places: Places | None, observe: StageObserver
    ) -> None:
        self.lost = False
        self._cluster, self._orders, self._places = cluster, orders, places
        self._observe = observe
        self._lock = threading.Lock()
        self._running: dict[str, Stage] = {}
        self._snapshots: dict[str, int] = {}
        """Iteration of each stage's last snapshot that was told."""

    @contextmanager
    def told(self) -> Iterator[None]:
        """Hear what happens in the stages."""
        client, topic = self._cluster.client, self._orders.sweep
        client.subscribe_topic(topic, self._hear)
        try:
            yield
        finally:
            if client.status == "running":
                client.unsubscribe_topic(topic)

    def observe(self, stage: Stage, event: Event | None) -> None:
        """Pass on what happened, in order: nothing of a stage after its end."""
        with self._lock:
            if event is None:
                self._running.pop(stage.key, None)
            elif stage.key not in self._running:
                return
            self._observe(stage, event)

    def send(self, stage: Stage, priority: int, outcome: Future[StageOutput]) -> None:
        """Give a stage to the cluster, higher priorities first; ``outcome`` is told how it ends."""
        self._running[stage.key] = stage
        before = self._snapshots.get(stage.key, 0)
        future = self._cluster.client.submit(
            work_on,
            moved(stage, self._places) if self._places else stage,
            self._orders,
            key=f"{stage.label}-{uuid.uuid4().hex[:8]}",
            pure=False,
            priority=priority,
            resources=_resources(self._orders.wish),
        )

        def ended(future: "DaskFuture[Any]") -> None:
            try:
                result = self._result(future)
                if result is None and self._snapshots.get(stage.key, 0) > before:
                    self.send(stage, priority, outcome)  # it gets on, if with many workers
                elif result is None:
                    why = "worker after worker died at it; their logs say more"
                    outcome.set_exception(EngineError(why))
                else:
                    outcome.set_result(result)
            except BaseException as error:  # noqa: BLE001  (raised where the outcome is read)
                outcome.set_exception(error)

        future.add_done_callback(ended)

    def _result(self, future: "DaskFuture[Any]") -> StageOutput | None:
        """What a stage found; None where all workers died that Dask is willing to try."""
        if future.status == "cancelled":
            self.lost = True
            raise InterruptedRunError("the scheduler is gone")
        try:
            output: StageOutput = future.result()
        except KilledWorker:
            return None
        return output

    def _hear(self, told: tuple[float, tuple[str, str]]) -> None:
        key, line = told[1]
        stage, event = self._running.get(key), Event.model_validate_json(line)
        if event.event == "snapshot":
            self._snapshots[key] = event.iteration
        if stage is not None:
            self.observe(stage, event)
