"""``caffe-prune verify --engines``: do two engines train alike?"""

import json
import math
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from pycaffe_prune.cli.options import engine_to_work_with, say_remark
from pycaffe_prune.cli.progress import training_progress
from pycaffe_prune.cli.tables import table_console
from pycaffe_prune.engines.base import Engine, Observer
from pycaffe_prune.engines.choice import EngineName, EngineWish
from pycaffe_prune.engines.comparison.distances import Difference, EngineComparison
from pycaffe_prune.engines.comparison.parity import compare_engines, run_name, store_runs
from pycaffe_prune.engines.gradient_warnings import gradient_warning
from pycaffe_prune.engines.interrupt import stop_on_signal
from pycaffe_prune.engines.job import TrainRequest
from pycaffe_prune.engines.solver_nets import solver_nets
from pycaffe_prune.engines.stored_runs import StoredRuns
from pycaffe_prune.errors import EngineError, PruneError
from pycaffe_prune.formats.prototxt import read_solver
from pycaffe_prune.formats.temporary import temporary_folder

__all__ = ["NamedEngine", "parse_engines", "verify_engines"]


@dataclass(frozen=True)
class NamedEngine:
    """One side of the comparison, as the command line names it."""

    name: EngineName
    device: str | None
    """None: the command's own for torch, the CPU for the real Caffe."""


def parse_engines(
    _ctx: click.Context, _param: click.Parameter, text: str | None
) -> tuple[NamedEngine, NamedEngine] | None:
    """Read ``caffe,torch`` or ``caffe@cpu,caffe@cuda``."""
    if text is None:
        return None
    match = re.fullmatch(",".join([r"(caffe|torch)(?:@(cpu|cuda(?::\d+)?))?"] * 2), text)
    if match is None:
        raise click.BadParameter(
            f"'{text}' is not two engines: caffe,torch or torch,caffe, each with a device if need "
            "be, as in caffe@cpu,caffe@cuda"
        )
    first, on, second, other = match.groups()
    return NamedEngine(first, on), NamedEngine(second, other)  # type: ignore[arg-type]  # matched


def verify_engines(
    request: TrainRequest,
    named: tuple[NamedEngine, NamedEngine],
    iterations: int,
    out: Path | None,
    tolerance: float,
    *,
    caffe_python: Path | None,
    as_json: bool,
) -> None:
    """Train a job with both engines and show how far apart they are.

    An engine that cannot be had here is stood for by its runs in ``out``, if it has a folder there.

    Args:
        request: The job; its device is torch's, unless that is named with one.
        named: The engines; the first is what differences are measured by.
        iterations: How long to train.
        out: Folder to keep the runs in, with all that the comparison may ever ask of the first
            engine; None: they are not kept.
        tolerance: As `engines.comparison.trajectory.tolerance_at` takes it.
        caffe_python: The interpreter that has pycaffe; None to look for one.
        as_json: JSON instead of tables.

    Raises:
        PruneError: They differ by more than the tolerance, a run failed, or is missing where its
            engine cannot be had.
    """
    devices = [one.device or (request.device if one.name == "torch" else "cpu") for one in named]
    if [named[0].name, devices[0]] == [named[1].name, devices[1]]:
        raise click.UsageError(
            f"--engines: {named[0].name} on {devices[0]} is compared with itself; name another "
            "device, as in caffe@cpu,caffe@cuda"
        )
    wishes = [_wish(one.name, caffe_python, at) for one, at in zip(named, devices, strict=True)]
    with ExitStack() as stack:
        engines = [_engine(wish, wishes, iterations, out, stack) for wish in wishes]
        stack.enter_context(stop_on_signal(lambda: _stop(engines)))
        folder = out or stack.enter_context(temporary_folder())

        def watch(engine: str) -> AbstractContextManager[Observer]:
            return training_progress(engine, iterations)

        if out is not None and not isinstance(engines[0], StoredRuns):
            store_runs(request, engines[0], iterations, out, device=devices[0], watch=watch)
        found = compare_engines(
            request,
            engines,
            iterations,
            folder,
            devices=devices,
            tolerance=tolerance,
            watch=watch,
        )
        if as_json:
            click.echo(json.dumps(_as_json(found), indent=1))
        else:
            _show(found, table_console())
    if found.difference is not None:
        raise PruneError(found.difference + _explanation(request))


def _explanation(request: TrainRequest) -> str:
    """The sentence about layers whose gradient the real Caffe gets wrong, where there are some."""
    told = gradient_warning(solver_nets(request, read_solver(request.solver)).net)
    return f"; {told}" if told else ""


def _engine(
    wish: EngineWish,
    wishes: Sequence[EngineWish],
    iterations: int,
    out: Path | None,
    stack: ExitStack,
) -> Engine:
    """The engine, whose processes ``stack`` ends; where it cannot be had, its runs in ``out``."""
    try:
        return stack.enter_context(engine_to_work_with(wish))
    except EngineError as error:
        run = None if out is None else out / run_name(wish.name, wish.device)
        if run is None or not run.is_dir():
            raise
        engines = ",".join(f"{one.name}@{one.device}" for one in wishes)
        command = (
            f"caffe-prune verify --engines {engines} --iterations {iterations} "
            "--solver … --data … --out DIR"
        )
        found = StoredRuns(wish.name, run, iterations, str(error), command)
        say_remark(f"{run.name}: its runs in {out} are taken, for {error}")
        return found


def _stop(engines: Sequence[Engine]) -> None:
    for engine in engines:
        engine.stop()


def _wish(name: EngineName, caffe_python: Path | None, device: str) -> EngineWish:
    return EngineWish(name, caffe_python if name == "caffe" else None, device)


def _as_json(found: EngineComparison) -> dict[str, Any]:
    """Return all that was found, with the verdict; null where a number is not finite."""

    def part(found: Difference) -> dict[str, Any]:
        numbers = {"relative": found.relative, "allowed": found.allowed}
        return {
            "what": found.what,
            **{name: value if math.isfinite(value) else None for name, value in numbers.items()},
        }

    return {
        "same": found.is_same,
        "difference": found.difference,
        "engines": found.engines,
        "checkpoints": [
            {
                "iteration": point.iteration,
                "loss": part(point.loss),
                "weights": part(point.weights),
                "history": part(point.history),
            }
            for point in found.checkpoints
        ],
        "tests": [asdict(test) for test in found.tests],
    }


def _show(found: EngineComparison, console: Console) -> None:
    first, second = found.engines
    title = f"{second} against {first}"
    table = _table(title, "iterations", "largest difference in", "relative", "allowed", "")
    for point in found.checkpoints:
        for difference in point.differences:
            table.add_row(
                f"{point.iteration:,}",
                difference.what,
                f"{difference.relative:.2g}",
                f"{difference.allowed:.2g}",
                "same" if difference.is_same else "DIFFERENT",
            )
    console.print(table)
    if not found.tests:
        return
    tests = _table("tests", "iterations", "images", first, second, "allowed", "")
    for test in found.tests:
        of = f" ({test.test_net_name})" if test.test_net_name else ""
        tests.add_row(
            f"{test.iteration:,}{of}",
            f"{test.images:,}",
            *(f"{correct:,}" for correct in test.correct),
            f"{test.allowed}",
            "same" if test.is_same else "DIFFERENT",
        )
    console.print(tests)


def _table(title: str, *columns: str) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table
