"""Progress bars of training runs and of sweeps."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from pycaffe_prune.engines.base import Event, Observer
from pycaffe_prune.experiments.scheduler import StageObserver
from pycaffe_prune.experiments.stages import Stage

__all__ = ["console", "sweep_progress", "tests_progress", "training_progress"]

console = Console(stderr=True)
"""Progress and remarks go to standard error; results to standard output."""


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[detail]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )


def _detail(event: Event) -> str:
    parts = []
    if event.loss is not None:
        parts.append(f"loss {event.loss:.4f}")
    if event.lr is not None:
        parts.append(f"lr {event.lr:.5f}")
    if event.images_per_second is not None:
        parts.append(f"{event.images_per_second:,.0f} images/s")
    return "  ".join(parts)


def _test_line(event: Event) -> str:
    found = event.model_extra or {}
    loss = "not finite" if event.loss is None else f"{event.loss:.4f}"
    return (
        f"iteration {event.iteration}: accuracy {100 * found['accuracy']:.2f} % "
        f"({found['correct']} of {found['images']}), loss {loss}"
    )


@contextmanager
def training_progress(name: str, iterations: int) -> Iterator[Observer]:
    """Show one run: iteration, loss, learning rate, images a second, time left; tests as lines."""
    with _bar() as bar:
        task = bar.add_task(name, total=iterations, detail="starting")

        def observe(event: Event) -> None:
            if event.event == "progress":
                bar.update(task, completed=event.iteration, detail=_detail(event))
            elif event.event == "resumed":
                bar.update(task, completed=event.iteration)
                bar.console.print(f"resumed at iteration {event.iteration}")
            elif event.event == "test":
                bar.console.print(_test_line(event), highlight=False)

        yield observe


@contextmanager
def tests_progress(name: str, tests: int, done: int) -> Iterator[Callable[[int, str], None]]:
    """Show tests one after the other; give a function of how many are done and what was last."""
    with _bar() as bar:
        task = bar.add_task(name, total=tests, completed=done, detail="starting")
        yield lambda completed, detail: bar.update(task, completed=completed, detail=detail)


@contextmanager
def sweep_progress(stages: Sequence[Stage]) -> Iterator[StageObserver]:
    """Show a sweep: all iterations of all stages, and a bar for each stage that is running."""
    todo = [stage for stage in stages if stage.output() is None]
    finished = len(stages) - len(todo)
    with _bar() as bar:
        whole = bar.add_task(
            "all stages",
            total=sum(stage.iterations for stage in todo),
            detail=f"{finished} of {len(stages)} stages done",
        )
        running: dict[str, TaskID] = {}
        reached = dict.fromkeys((stage.key for stage in todo), 0)

        def advance(stage: Stage, iteration: int) -> None:
            bar.update(whole, advance=iteration - reached[stage.key])
            reached[stage.key] = iteration

        def observe(stage: Stage, event: Event | None) -> None:
            nonlocal finished
            if event is None:
                finished += 1
                advance(stage, stage.iterations)
                bar.update(whole, detail=f"{finished} of {len(stages)} stages done")
                if stage.key in running:
                    bar.remove_task(running.pop(stage.key))
            elif event.event == "start":
                running[stage.key] = bar.add_task(
                    stage.label, total=stage.iterations, detail="starting"
                )
            elif event.event in ("progress", "resumed"):
                advance(stage, event.iteration)
                bar.update(running[stage.key], completed=event.iteration, detail=_detail(event))

        yield observe
