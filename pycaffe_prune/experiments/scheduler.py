"""Runs stages side by side, each when its inputs are done."""

import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait

from pycaffe_prune.engines.base import Engine, Event
from pycaffe_prune.errors import InterruptedRunError, PruneError
from pycaffe_prune.experiments.stages import Stage, StageOutput
from pycaffe_prune.experiments.store.stage_lock import Stop

__all__ = ["StageObserver", "Sweep", "run_stages"]

_LOOK_SECONDS = 1.0

StageObserver = Callable[[Stage, Event | None], None]
"""Called with each event of a running stage, and with None when the stage is done."""


def run_stages(
    stages: Sequence[Stage],
    engine: Engine,
    jobs: int,
    observe: StageObserver,
    stop: Stop | None = None,
) -> None:
    """Run all stages, at most ``jobs`` at a time; earlier ones in the list go first.

    The work is done in the engine's child processes; the threads here only wait for them. When a
    stage fails, those that need it are given up and all others are still run.

    Args:
        stages: Each after its inputs.
        engine: What does the work.
        jobs: At least 1.
        observe: See `StageObserver`; called from several threads.
        stop: Asked together with the engine, which ends what it trains; None: it never is.

    Raises:
        InterruptedRunError: The engine was asked to stop; what is done stays done.
        PruneError: Stages failed; the sentence carries the first one's reason.
    """
    sweep = Sweep(stages, observe, stop or Stop())

    def submit(stage: Stage) -> Future[StageOutput]:
        outcome: Future[StageOutput] = Future()

        def run() -> None:
            try:
                outcome.set_result(
                    stage.run(engine, lambda event: observe(stage, event), sweep.stop)
                )
            except BaseException as error:  # noqa: BLE001  (raised where the outcome is read)
                outcome.set_exception(error)

        # Nobody waits for a daemon: a second Ctrl-C leaves at once.
        threading.Thread(target=run, name=stage.label, daemon=True).start()
        return outcome

    sweep.run(submit, at_once=jobs)
    sweep.require_success()


class Sweep:
    """Stages on their way: which wait, which are done, which failed.

    Args:
        stages: Each after its inputs.
        observe: See `StageObserver`; told here when a stage is done.
        stop: Keeps stages that wait from being submitted; asked when one was interrupted.
    """

    def __init__(self, stages: Sequence[Stage], observe: StageObserver, stop: Stop) -> None:
        self.stop = stop
        self._stages = stages
        self._waiting = [stage for stage in stages if stage.output() is None]
        self._done = {stage.key for stage in stages} - {stage.key for stage in self._waiting}
        self._failed: dict[str, PruneError] = {}
        self._observe = observe

    def run(
        self, submit: Callable[[Stage], Future[StageOutput]], at_once: float = math.inf
    ) -> None:
        """Submit each stage once its inputs are done; return when nothing more can be run.

        Args:
            submit: Starts a stage's work. What it raises other than a PruneError is raised here.
            at_once: How many stages may be submitted and not yet ended.
        """
        running: dict[Future[StageOutput], Stage] = {}
        while True:
            for stage in self._ready(at_once - len(running)):
                self._waiting.remove(stage)
                running[submit(stage)] = stage
            if not running:
                return
            # Not without end: a Ctrl-C just before it would be seen only when a stage ends.
            for future in wait(running, _LOOK_SECONDS, FIRST_COMPLETED).done:
                self._settle(running.pop(future), future)

    def require_success(self) -> None:
        """Return if every stage is done.

        Raises:
            InterruptedRunError: The work was asked to stop; what is done stays done.
            PruneError: Stages failed; the sentence carries the first one's reason.
        """
        if len(self._done) + len(self._failed) < len(self._stages):
            raise InterruptedRunError(
                f"stopped with {self.progress}; the same command goes on from there"
            )
        if self._failed:
            first = next(iter(self._failed.values()))
            raise PruneError(
                f"{len(self._failed)} of {len(self._stages)} stages failed; the first: {first}"
            )

    @property
    def progress(self) -> str:
        """How far it is, for people."""
        return f"{len(self._done)} of {len(self._stages)} stages done"

    def _ready(self, room: float) -> list[Stage]:
        for stage in list(self._waiting):
            if any(needed.key in self._failed for needed in stage.inputs):
                self._waiting.remove(stage)
                self._failed[stage.key] = PruneError(f"{stage.label}: a stage it needs failed")
        if self.stop.asked:
            return []
        ready = [s for s in self._waiting if all(needed.key in self._done for needed in s.inputs)]
        return ready[: int(min(room, len(ready)))]

    def _settle(self, stage: Stage, future: Future[StageOutput]) -> None:
        try:
            future.result()
        except InterruptedRunError:
            self.stop.asked = True
        except PruneError as error:
            self._failed[stage.key] = PruneError(f"{stage.label}: {error}")
        else:
            self._done.add(stage.key)
            self._observe(stage, None)
