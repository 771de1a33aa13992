"""``caffe-prune verify --engines``: do two engines train alike?"""

import json
import math
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from pycaffe_prune.cli.options import engine_to_work_with, say_remark
from pycaffe_prune.cli.progress import training_progress
from pycaffe_prune.engines.base import Engine, Observer
from pycaffe_prune.engines.choice import EngineName, EngineWish
from pycaffe_prune.engines.interrupt import stop_on_signal
from pycaffe_prune.engines.job import TrainRequest
from pycaffe_prune.engines.parity import compare_engines, store_runs
from pycaffe_prune.engines.stored_runs import StoredRuns
from pycaffe_prune.engines.trajectory import EngineComparison
from pycaffe_prune.errors import EngineError, PruneError

__all__ = ["parse_engines", "verify_engines"]

_NAMES = [name for name in get_args(EngineName) if name != "auto"]


def parse_engines(
    _ctx: click.Context, _param: click.Parameter, text: str | None
) -> tuple[EngineName, ...] | None:
    """Read ``caffe,torch``."""
    if text is None:
        return None
    names = tuple(text.split(","))
    if sorted(names) != sorted(_NAMES):
        raise click.BadParameter(f"'{text}' is not two engines: caffe,torch or torch,caffe")
    return names  # type: ignore[return-value]  # the names were just compared


def verify_engines(
    request: TrainRequest,
    names: tuple[EngineName, EngineName],
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
        request: The job; its device is torch's, the real Caffe computes on the CPU.
        names: The engines; the first is what differences are measured by.
        iterations: How long to train.
        out: Folder to keep the runs in, with all that the comparison may ever ask of the first
            engine; None: they are not kept.
        tolerance: As `engines.trajectory.tolerance_at` takes it.
        caffe_python: The interpreter that has pycaffe; None to look for one.
        as_json: JSON instead of tables.

    Raises:
        PruneError: They differ by more than the tolerance, a run failed, or is missing where its
            engine cannot be had.
    """
    devices = [request.device if name == "torch" else "cpu" for name in names]
    with ExitStack() as stack:
        engines = [
            _engine(_wish(name, caffe_python, device), names, iterations, out, stack)
            for name, device in zip(names, devices, strict=True)
        ]
        stack.enter_context(stop_on_signal(lambda: _stop(engines)))
        folder = out or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="caffe-prune-"))
        )

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
            _show(found, Console(markup=False, emoji=False, highlight=False))
    if found.difference is not None:
        raise PruneError(found.difference)


def _engine(
    wish: EngineWish,
    names: Sequence[EngineName],
    iterations: int,
    out: Path | None,
    stack: ExitStack,
) -> Engine:
    """The engine, whose processes ``stack`` ends; where it cannot be had, its runs in ``out``."""
    try:
        return stack.enter_context(engine_to_work_with(wish))
    except EngineError as error:
        if out is None or not (out / wish.name).is_dir():
            raise
        command = (
            f"caffe-prune verify --engines {','.join(names)} --iterations {iterations} "
            "--solver … --data … --out DIR"
        )
        found = StoredRuns(wish.name, out, iterations, str(error), command)
        say_remark(f"{wish.name}: its runs in {out} are taken, for {error}")
        return found


def _stop(engines: Sequence[Engine]) -> None:
    for engine in engines:
        engine.stop()


def _wish(name: EngineName, caffe_python: Path | None, device: str) -> EngineWish:
    return EngineWish(name, caffe_python if name == "caffe" else None, device)


def _as_json(found: EngineComparison) -> dict[str, Any]:
    """Return all that was found, with the verdict; null where a number is not finite."""
    everything = asdict(found)
    for point in everything["checkpoints"]:
        for part in (point["loss"], point["weights"], point["history"]):
            for name in ("relative", "allowed"):
                if not math.isfinite(part[name]):
                    part[name] = None
    return {"same": found.is_same, "difference": found.difference, **everything}


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
        tests.add_row(
            f"{test.iteration:,}",
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
