"""Runs stages side by side, each when its inputs are done."""

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from pycaffe_prune.engines.base import Engine, Event
from pycaffe_prune.errors import InterruptedRunError, PruneError
from pycaffe_prune.experiments.stages import Stage

__all__ = ["StageObserver", "run_stages"]

StageObserver = Callable[[Stage, Event | None], None]
"""Called with each event of a running stage, and with None when the stage is done."""


def run_stages(stages: Sequence[Stage], engine: Engine, jobs: int, observe: StageObserver) -> None:
    """Run all stages, at most ``jobs`` at a time; earlier ones in the list go first.

    The work is done in the engine's child processes; the threads here only wait for them. When a
    stage fails, those that need it are given up and all others are still run.

    Args:
        stages: Each after its inputs.
        engine: What does the work.
        jobs: At least 1.
        observe: See `StageObserver`; called from several threads.

    Raises:
        InterruptedRunError: The engine was asked to stop; what is done stays done.
        PruneError: Stages failed; the sentence carries the first one's reason.
    """
    sweep = _Sweep(stages, engine, observe)
    with ThreadPoolExecutor(jobs) as pool:
        sweep.run(pool, jobs)
    if sweep.interrupted:
        raise InterruptedRunError(
            f"stopped with {len(sweep.done)} of {len(stages)} stages done; "
            "the same command goes on from there"
        )
    if sweep.failed:
        first = next(iter(sweep.failed.values()))
        raise PruneError(f"{len(sweep.failed)} of {len(stages)} stages failed; the first: {first}")


class _Sweep:
    def __init__(self, stages: Sequence[Stage], engine: Engine, observe: StageObserver) -> None:
        self.waiting = [stage for stage in stages if stage.output() is None]
        self.done = {stage.key for stage in stages} - {stage.key for stage in self.waiting}
        self.failed: dict[str, PruneError] = {}
        self.interrupted = False
        self._engine = engine
        self._observe = observe

    def run(self, pool: ThreadPoolExecutor, jobs: int) -> None:
        running: dict[Future[None], Stage] = {}
        while True:
            for stage in self._ready(jobs - len(running)):
                self.waiting.remove(stage)
                running[pool.submit(self._work, stage)] = stage
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                self._settle(running.pop(future), future)

    def _ready(self, room: int) -> list[Stage]:
        for stage in list(self.waiting):
            if any(needed.key in self.failed for needed in stage.inputs):
                self.waiting.remove(stage)
                self.failed[stage.key] = PruneError(f"{stage.label}: a stage it needs failed")
        if self.interrupted:
            return []
        ready = [s for s in self.waiting if all(needed.key in self.done for needed in s.inputs)]
        return ready[:room]

    def _work(self, stage: Stage) -> None:
        stage.run(self._engine, lambda event: self._observe(stage, event))

    def _settle(self, stage: Stage, future: Future[None]) -> None:
        try:
            future.result()
        except InterruptedRunError:
            self.interrupted = True
        except PruneError as error:
            self.failed[stage.key] = PruneError(f"{stage.label}: {error}")
        else:
            self.done.add(stage.key)
            self._observe(stage, None)
