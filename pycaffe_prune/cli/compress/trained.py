"""``caffe-prune compress --solver``: pruned, shared and retrained to a budget, then coded."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import cast

import click
from click.core import ParameterSource
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from pycaffe_prune.cli.options import (
    accuracy_option,
    caffe_python_option,
    device_option,
    engine_option,
    engine_to_work_with,
    text_path_type,
    tf32_option,
    threads_option,
    trust_option,
)
from pycaffe_prune.cli.progress import console as progress_console
from pycaffe_prune.cli.progress import training_progress
from pycaffe_prune.engines.base import Observer
from pycaffe_prune.engines.choice import EngineName, EngineWish
from pycaffe_prune.engines.interrupt import stop_on_signal
from pycaffe_prune.experiments.compression.result import CompressionResult
from pycaffe_prune.experiments.compression.run import Compression, CompressionRequest
from pycaffe_prune.experiments.result import Execution
from pycaffe_prune.experiments.stages import Stage
from pycaffe_prune.formats.caffemodel import Caffemodel, read_caffemodel
from pycaffe_prune.formats.prototxt import read_solver
from pycaffe_prune.formats.temporary import temporary_folder
from pycaffe_prune.screen import Screen

__all__ = ["TrainingWish", "compress_trained", "show_plan", "training_options"]


@dataclass(frozen=True)
class TrainingWish:
    """The options of a compression that trains."""

    solver: Path
    data: Path
    budget: float | None
    times: float | None
    max_iter: int | None
    hold_out: int | None
    held_out: Path | None
    run: Path | None
    accuracy: str | None
    engine: EngineName
    device: str
    threads: int
    tf32: bool
    trust: bool
    caffe_python: Path | None

    @property
    def wish(self) -> EngineWish:
        """The engine."""
        return EngineWish(
            self.engine, self.caffe_python, self.device, tf32=self.tf32, trust=self.trust
        )

    def request(self, weights: Path, out: Path) -> CompressionRequest:
        """Return what is asked for, for the ``weights`` of a file ``out``.

        Raises:
            FormatError: The solver cannot be read.
        """
        return CompressionRequest(
            solver=self.solver,
            weights=weights,
            data=self.data,
            run=self.run or out.with_name(f"{out.name}.run"),
            iterations=self.max_iter or read_solver(self.solver).max_iter,
            points=self.budget,
            times=self.times,
            images=self.hold_out or 5_000,
            held_out=self.held_out,
            accuracy=self.accuracy,
            execution=Execution(
                device=self.device, threads=self.threads, tf32=self.tf32, trusted=self.trust
            ),
        )


_OPTIONS = (
    click.option(
        "--solver", type=text_path_type, help="Prune, share and retrain with this solver."
    ),
    click.option("--data", type=text_path_type, help="Folder that holds its net's LMDBs."),
    click.option(
        "--budget",
        type=click.FloatRange(0, 100),
        metavar="POINTS",
        help="So many points of accuracy may be lost, on held-out training images.",
    ),
    click.option(
        "--times",
        type=click.FloatRange(1, min_open=True),
        metavar="N",
        help="Or: N times smaller than all values as float32, whatever that costs.",
    ),
    click.option(
        "--max-iter", type=click.IntRange(1), help="Of each training (default: the solver's)."
    ),
    click.option(
        "--hold-out",
        type=click.IntRange(1),
        metavar="N",
        help="So many training images are held out to choose settings on (default: 5000).",
    ),
    click.option(
        "--held-out",
        type=text_path_type,
        metavar="DIR",
        help="Or a folder as --data, whose test images are held out already.",
    ),
    click.option("--run", type=text_path_type, help="Folder of the trials (default: OUT.run)."),
    accuracy_option,
    engine_option,
    device_option,
    threads_option,
    tf32_option,
    trust_option,
    caffe_python_option,
)


def training_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add ``--solver`` and what goes with it: the parameter ``training``, a `TrainingWish`."""

    @wraps(function)
    def bundled(*arguments: object, **options: object) -> None:
        given = {name: options.pop(name) for name in TrainingWish.__annotations__}
        if given["solver"] is None:
            _require_none_given(given)
            function(*arguments, training=None, **options)
            return
        if given["data"] is None or (given["budget"] is None) == (given["times"] is None):
            raise click.UsageError("--solver goes with --data and one of --budget and --times")
        if given["hold_out"] is not None and given["held_out"] is not None:
            raise click.UsageError("--hold-out and --held-out: give one of them")
        wish = cast("Callable[..., TrainingWish]", TrainingWish)(**given)
        function(*arguments, training=wish, **options)

    for option in reversed(_OPTIONS):
        bundled = option(bundled)
    return bundled


def _require_none_given(names: dict[str, object]) -> None:
    context = click.get_current_context()
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name in names and source is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{parameter.opts[0]} is for a training; name its --solver")


def show_plan(training: TrainingWish, weights: Path, out: Path) -> None:
    """Print what would be done, and how long it takes by a short training in a temporary folder."""
    screen, request = Screen(), training.request(weights, out)
    with engine_to_work_with(training.wish) as engine, temporary_folder() as folder:
        elsewhere = replace(request, run=folder)
        compression = Compression(elsewhere, engine, screen.print, _watched)
        seconds = compression.seconds_per_iteration()
    least, most = compression.fewest_and_most_trainings
    each = request.iterations * seconds / 60
    screen.print(
        f"{least} to {most} trainings of {request.iterations:,} iterations, at "
        f"{1000 * seconds:.2f} ms an iteration {each * least:.1f} to {each * most:.1f} minutes, in "
        f"{request.run}",
        soft_wrap=True,
    )


def compress_trained(
    training: TrainingWish, weights: Path, out: Path, console: Console
) -> Caffemodel:
    """Compress, print what came of it, and return the weights that the file is to hold."""
    request = training.request(weights, out)
    with engine_to_work_with(training.wish) as engine:
        compression = Compression(
            request, engine, lambda said: progress_console.print(said, soft_wrap=True), _watched
        )

        def stop() -> None:
            compression.stop.asked = True  # first: a stage that is about to begin sees one of both
            engine.stop()

        with stop_on_signal(stop):
            result = compression.run()
    _show(result, console)
    return read_caffemodel(request.final)


@contextmanager
def _watched(stage: Stage) -> Iterator[Observer]:
    with training_progress(stage.label, stage.iterations) as observe:
        yield observe


def _show(result: CompressionResult, console: Console) -> None:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("accuracy")
    for column in ("whole %", "compressed %", "points lost", "images"):
        table.add_column(column, justify="right")
    for name, whole, small in (
        ("held-out training images", result.whole_held_out, result.chosen.held_out),
        ("test images", result.whole_test, result.compressed_test),
    ):
        table.add_row(
            name,
            f"{whole.percent:.2f}",
            f"{small.percent:.2f}",
            f"{small.points_below(whole):+.2f}",
            f"{whole.images:,}",
        )
    console.print(table)
