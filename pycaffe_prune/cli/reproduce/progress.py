"""Progress bars of a sweep."""

import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TimeRemainingColumn,
)
from rich.text import Text

from pycaffe_prune.cli.progress import console
from pycaffe_prune.engines.base import Event
from pycaffe_prune.experiments.scheduler import StageObserver
from pycaffe_prune.experiments.stages import Stage
from pycaffe_prune.screen import PlainColumn, plain

__all__ = ["sweep_progress"]


class _SpeedColumn(ProgressColumn):
    """Iterations a second, as rich estimates them from the last two minutes."""

    def render(self, task: Task) -> Text:
        return plain(f"{task.speed:,.0f} it/s" if task.speed else "", "progress.data.speed")


@contextmanager
def sweep_progress(stages: Sequence[Stage]) -> Iterator[StageObserver]:
    """Show a sweep: stages done, iterations a second, time left; a bar for each running stage.

    Where standard error is no terminal, each stage that is done is a line.
    """
    bar = Progress(
        PlainColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        _SpeedColumn(),
        PlainColumn("{task.fields[detail]}"),
        TimeRemainingColumn(),
        console=console,
        speed_estimate_period=120,
        disable=not console.is_terminal,
    )
    with bar:
        yield _SweepBars(bar, stages).observe


class _SweepBars:
    def __init__(self, bar: Progress, stages: Sequence[Stage]) -> None:
        todo = [stage for stage in stages if stage.output() is None]
        self._bar, self._count = bar, len(stages)
        self._done = len(stages) - len(todo)
        self._left = sum(stage.iterations for stage in todo)
        self._began, self._trained = time.monotonic(), 0
        self._reached = dict.fromkeys((stage.key for stage in todo), 0)
        self._running: dict[str, TaskID] = {}
        self._warned: set[str] = set()
        self._lock = threading.Lock()
        self._whole = bar.add_task("all stages", total=self._left, detail=self._stages_done)

    def observe(self, stage: Stage, event: Event | None) -> None:
        """See `StageObserver`."""
        with self._lock:
            if event is None:
                self._end(stage)
            elif event.event == "start":
                self._begin(stage)
                self._say_if_it_waits(stage, event)
            elif event.event == "resumed":
                self._resume(stage, event.iteration)
            elif event.event == "warning":
                self._warn(stage, event.message or "")
            elif event.event == "anew":
                said = f"{stage.label}: {event.message}"
                self._bar.console.print(said, soft_wrap=True)
            elif event.event == "progress":
                self._advance(stage, event.iteration)
                self._bar.update(
                    self._running[stage.key], completed=event.iteration, detail=_loss(event)
                )

    @property
    def _stages_done(self) -> str:
        return f"{self._done} of {self._count} stages done"

    def _begin(self, stage: Stage) -> None:
        """Also after a worker's death: what its stage had reached may have to be done again."""
        self._left += self._reached.pop(stage.key, 0)
        self._reached[stage.key] = 0
        self._bar.update(self._whole, total=self._left + self._trained)
        if stage.key in self._running:
            self._bar.remove_task(self._running.pop(stage.key))
        self._running[stage.key] = self._bar.add_task(
            stage.label, total=stage.iterations, detail="starting"
        )

    def _say_if_it_waits(self, stage: Stage, event: Event) -> None:
        """See `experiments.store.stage_lock`."""
        folder = (event.model_extra or {}).get("waits_for")
        if folder is not None:
            self._bar.update(self._running[stage.key], detail="waits")
            self._bar.console.print(
                f"{stage.label}: waits for another process, which works at it in {folder}",
                soft_wrap=True,
            )

    def _warn(self, stage: Stage, message: str) -> None:
        """Once, though every stage of a sweep may have the same to say, with other figures."""
        kind = re.sub(r"[\d.,]+", "", message)
        if kind not in self._warned:
            self._bar.console.print(f"warning: {stage.label}: {message}", soft_wrap=True)
        self._warned.add(kind)

    def _resume(self, stage: Stage, iteration: int) -> None:
        """What an earlier run did is no work of this one: it says nothing about the speed."""
        self._reached[stage.key] = iteration
        self._left -= iteration
        self._bar.update(self._whole, total=self._left + self._trained)
        self._bar.reset(self._running[stage.key], completed=iteration, detail="resumed")

    def _advance(self, stage: Stage, iteration: int) -> None:
        steps = iteration - self._reached[stage.key]
        self._reached[stage.key] = iteration
        self._left -= steps
        self._trained += steps
        self._bar.update(self._whole, completed=self._trained)

    def _end(self, stage: Stage) -> None:
        self._advance(stage, stage.iterations)
        self._done += 1
        self._bar.update(self._whole, detail=self._stages_done)
        if stage.key in self._running:
            self._bar.remove_task(self._running.pop(stage.key))
        if not self._bar.console.is_terminal:
            self._bar.console.print(f"{self._stages_done}: {stage.label} ({self._time_left()})")

    def _time_left(self) -> str:
        seconds = time.monotonic() - self._began
        if not self._trained:
            return "time left unknown"
        left = timedelta(seconds=round(self._left * seconds / self._trained))
        return f"{self._trained / seconds:,.0f} it/s, about {left} left"


def _loss(event: Event) -> str:
    return "" if event.loss is None else f"loss {event.loss:.4f}"
