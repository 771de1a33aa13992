"""Progress bars of training runs and of tests."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from pycaffe_prune.engines.base import Event, Observer, TestMeans, read_test
from pycaffe_prune.screen import PlainColumn, Screen

__all__ = ["console", "tests_progress", "training_progress"]

console = Screen(stderr=True)
"""Progress and remarks go to standard error; results to standard output."""


def _bar() -> Progress:
    return Progress(
        PlainColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        PlainColumn("{task.fields[detail]}"),
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
    test = read_test(event.model_dump())
    if isinstance(test, TestMeans):
        return f"iteration {test.iteration}: {test.told}"
    lost = "none" if test.finite else "not finite"
    loss = lost if test.loss is None else f"{test.loss:.4g}"
    return f"iteration {event.iteration}: {test.told}, loss {loss}"


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
                bar.console.print(_test_line(event), soft_wrap=True)
            elif event.event == "warning":
                bar.console.print(f"warning: {event.message}", soft_wrap=True)
            elif event.event in ("anew", "weights", "restored"):
                said = f"{event.event}: {event.message}"
                bar.console.print(said, soft_wrap=True)

        yield observe


@contextmanager
def tests_progress(name: str, tests: int, done: int) -> Iterator[Callable[[int, str], None]]:
    """Show tests one after the other; give a function of how many are done and what was last."""
    with _bar() as bar:
        task = bar.add_task(name, total=tests, completed=done, detail="starting")
        yield lambda completed, detail: bar.update(task, completed=completed, detail=detail)
