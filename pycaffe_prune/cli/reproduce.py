"""``caffe-prune reproduce``: a whole experiment, from its TOML file to its report."""

import os
from pathlib import Path

import click
from rich.table import Table

from data_prep.digits import build_digits
from data_prep.manifest import MANIFEST_NAME, Manifest, load_manifest
from data_prep.mnist import build_mnist
from pycaffe_prune.cli.options import (
    caffe_python_option,
    device_option,
    engine_option,
    engine_to_work_with,
    path_type,
    require_sense,
    say_remark,
    tf32_option,
    threads_option,
)
from pycaffe_prune.cli.progress import console, sweep_progress
from pycaffe_prune.engines.choice import EngineName, EngineWish, decide
from pycaffe_prune.engines.interrupt import stop_on_signal
from pycaffe_prune.errors import DataError, DownloadError, EngineError
from pycaffe_prune.experiments.paths import ExperimentFolder
from pycaffe_prune.experiments.reproduce import Plan, assemble, make_plan, solver_path
from pycaffe_prune.experiments.result import DataSet, Execution, write_result
from pycaffe_prune.experiments.scheduler import run_stages
from pycaffe_prune.experiments.spec import ExperimentSpec, find_experiment, read_experiment
from pycaffe_prune.reports.write import print_summary, write_report


@click.command()
@click.argument("experiment")
@click.option("--preset", default="quick", show_default=True, help="Which settings.")
@click.option("--out", type=path_type, help="Folder of the run (default: runs/NAME-PRESET).")
@click.option("--data", type=path_type, help="Folder of the LMDBs (default: data/NAME; made).")
@click.option("--source", type=path_type, help="Folder of the original data files.")
@click.option("--jobs", type=click.IntRange(1), help="Stages side by side (default: all cores).")
@engine_option
@device_option
@threads_option
@tf32_option
@click.option(
    "--pack",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Engine torch: so many stages train at once in one process, on one device.",
)
@click.option("--dry-run", is_flag=True, help="List the stages and an estimate, and do nothing.")
@caffe_python_option
def reproduce(
    experiment: str,
    preset: str,
    out: Path | None,
    data: Path | None,
    source: Path | None,
    jobs: int | None,
    engine: EngineName,
    device: str,
    threads: int,
    tf32: bool,
    pack: int,
    dry_run: bool,
    caffe_python: Path | None,
) -> None:
    """Run a whole experiment of the paper and report it beside the paper's numbers.

    EXPERIMENT is a name such as lenet-300-100, or a .toml file of your own. Finished stages are
    kept: killed or interrupted, the same command goes on where it was.

    \b
    Examples:
      caffe-prune reproduce lenet-300-100                     minutes
      caffe-prune reproduce lenet-300-100 --preset paper-10k  half an hour on two cores
      caffe-prune reproduce lenet-300-100 --preset paper --dry-run
      caffe-prune reproduce lenet-300-100 --engine torch --device cuda --pack 8
    """
    wish = EngineWish(engine, caffe_python, device, tf32, pack)
    require_sense(wish)
    execution = Execution(device=device, threads=threads, tf32=tf32, pack=pack)
    toml = find_experiment(experiment, preset)
    spec = read_experiment(toml)
    folder = out or Path("runs") / f"{spec.name}-{spec.preset}"
    workers = jobs or max(pack, len(os.sched_getaffinity(0)))
    solver = solver_path(spec, toml)
    if dry_run:
        place = data or Path("data") / spec.data
        known = _known_data_set(place)
        plan = make_plan(spec, solver, folder, place, known, _engine_name(wish), execution)
        _show_plan(spec, plan, workers)
        return
    with engine_to_work_with(wish) as chosen:
        place, manifest = _data(spec, data, source)
        data_set = _data_set(manifest)
        plan = make_plan(spec, solver, folder, place, data_set, chosen.name, execution)
        stages = plan.stages
        with stop_on_signal(chosen.stop), sweep_progress(stages) as observe:
            run_stages(stages, chosen, workers, observe)
    result = assemble(spec, plan, data_set, chosen.name, workers, execution)
    path = ExperimentFolder(folder).result
    write_result(path, result)
    page = write_report(result, folder)
    print_summary(result, console)
    click.echo(f"result {path}")
    click.echo(f"report {page}")


def _engine_name(wish: EngineWish) -> str:
    """What would train, so that --dry-run can tell which stages are done."""
    try:
        return decide(wish).name
    except EngineError as error:
        say_remark(f"no engine could do this now: {error}")
        return "caffe"


def _data(spec: ExperimentSpec, data: Path | None, source: Path | None) -> tuple[Path, Manifest]:
    """Build or find the data set; without network and files, the bundled sample, said loudly."""
    if data is not None and (data / MANIFEST_NAME).is_file():
        return data, load_manifest(data)
    place = data or Path("data") / spec.data
    try:
        return place, build_mnist(place, source, console=console)
    except DownloadError as error:
        sample = Path("data") / "digits"
        console.print(
            f"MNIST CANNOT BE HAD: {error}\n"
            "GOING ON WITH THE BUNDLED SAMPLE (1,797 digits of scikit-learn). Its figures say "
            "nothing about the paper's; give the four MNIST files with --source.",
            style="bold yellow",
            markup=False,
        )
        return sample, build_digits(sample, console=console)


def _data_set(manifest: Manifest) -> DataSet:
    train, test = manifest.splits["train"], manifest.splits["test"]
    return DataSet(
        name=manifest.name,
        is_sample=manifest.is_sample,
        train_images=train.count,
        test_images=test.count,
        train_sha256=train.sha256,
        test_sha256=test.sha256,
    )


def _known_data_set(place: Path) -> DataSet:
    """What is built already, so that --dry-run can tell which stages are done."""
    try:
        return _data_set(load_manifest(place))
    except DataError:
        return DataSet(
            name="not built",
            is_sample=False,
            train_images=0,
            test_images=0,
            train_sha256="",
            test_sha256="",
        )


def _show_plan(spec: ExperimentSpec, plan: Plan, jobs: int) -> None:
    table = Table(title=f"{spec.title}, preset {spec.preset}")
    for column in ("stage", "iterations", "done"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for stage in plan.stages:
        table.add_row(stage.label, f"{stage.iterations:,}", "yes" if stage.output() else "")
    console.print(table)
    todo = [stage.iterations for stage in plan.stages if not stage.output()]
    minutes = sum(todo) * spec.ms_per_iteration / 60_000
    console.print(
        f"{len(plan.stages)} stages, {len(todo)} to do: {sum(todo):,} iterations, about "
        f"{minutes:.0f} core-minutes ({minutes / jobs:.0f} minutes with --jobs {jobs}) at "
        f"{spec.ms_per_iteration:g} ms an iteration",
        highlight=False,
    )
