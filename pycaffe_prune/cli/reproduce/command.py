"""``caffe-prune reproduce``: a whole experiment, from its TOML file to its report."""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import click
from rich.table import Table

from pycaffe_prune.cli.options import (
    accuracy_option,
    caffe_python_option,
    device_option,
    engine_option,
    path_type,
    require_sense,
    say_remark,
    text_path_type,
    tf32_option,
    threads_option,
    trust_option,
    verify_option,
)
from pycaffe_prune.cli.progress import console
from pycaffe_prune.cli.reproduce.crew import crew_to_work_with
from pycaffe_prune.cli.reproduce.experiment_data import (
    data_folder,
    data_set_of,
    get_data,
    known_data_set,
    made_data_set,
    pretraining_files,
)
from pycaffe_prune.cli.reproduce.measuring import measured
from pycaffe_prune.cli.reproduce.packing import with_packs
from pycaffe_prune.cli.reproduce.prediction import prediction_table, telling_prediction
from pycaffe_prune.cli.reproduce.progress import sweep_progress
from pycaffe_prune.engines.caffe.engine import CaffeEngine
from pycaffe_prune.engines.caffe.python import find_caffe_python
from pycaffe_prune.engines.choice import EngineName, EngineWish, decide
from pycaffe_prune.engines.interrupt import stop_on_signal
from pycaffe_prune.engines.run_state import ChecksumOf
from pycaffe_prune.errors import EngineError, FormatError, PruneError
from pycaffe_prune.experiments.known import known_points, points_of_the_best
from pycaffe_prune.experiments.paths import ExperimentFolder
from pycaffe_prune.experiments.plan import (
    Plan,
    make_plan,
    retraining_solver_path,
    solver_path,
)
from pycaffe_prune.experiments.pretrained import Pretrained, find_weights
from pycaffe_prune.experiments.pretraining import PretrainingFiles
from pycaffe_prune.experiments.reproduce import as_told_before, assemble
from pycaffe_prune.experiments.result import (
    DataSet,
    Execution,
    read_result,
    result_path,
    write_result,
)
from pycaffe_prune.experiments.spec import ExperimentSpec, find_experiment, read_experiment
from pycaffe_prune.methods.base import Method
from pycaffe_prune.reports.outputs.write import print_summary, write_report
from pycaffe_prune.screen import Screen, echo

_PRESET = "quick"


@click.command()
@click.argument("experiment")
@click.option("--preset", help=f"Which settings (default: {_PRESET}).")
@click.option("--out", type=text_path_type, help="Folder of the run (default: runs/NAME-PRESET).")
@click.option("--data", type=text_path_type, help="Folder of the LMDBs (default: data/NAME; made).")
@click.option(
    "--weights", type=text_path_type, help="Trained weights to begin with, by layer name."
)
@click.option("--source", type=path_type, help="Folder of the original data files.")
@accuracy_option
@click.option(
    "--jobs",
    type=click.IntRange(1),
    help="Stages, or packs of them, side by side (default: all cores).",
)
@click.option("--scheduler", help="Do the stages on this Dask cluster (address, or its file).")
@click.option("--store", help="URL at which the cluster's machines share files (docs/cluster.md).")
@engine_option
@device_option
@threads_option
@tf32_option
@click.option(
    "--pack",
    type=click.IntRange(1),
    help="Engine torch: so many stages train at once in one process, on one device (default: 1, "
    "and 6 on a CPU where their nets can step together).",
)
@trust_option
@verify_option
@click.option(
    "--measure",
    is_flag=True,
    help="Time the nets that the report holds against each other at equal accuracy in the real "
    "Caffe, and keep it in the result.",
)
@click.option(
    "--known",
    metavar="RUN",
    multiple=True,
    type=click.Path(path_type=Path),
    help="An earlier result.json, or its folder; may be given several times. Points whose stages "
    "are all the same are taken from it, not trained.",
)
@click.option("--dry-run", is_flag=True, help="List the stages and an estimate, and do nothing.")
@caffe_python_option
def reproduce(
    experiment: str,
    preset: str | None,
    out: Path | None,
    data: Path | None,
    weights: Path | None,
    source: Path | None,
    accuracy: str | None,
    jobs: int | None,
    scheduler: str | None,
    store: str | None,
    engine: EngineName,
    device: str,
    threads: int,
    tf32: bool,
    pack: int | None,
    trust: bool,
    checksum_of: ChecksumOf,
    measure: bool,
    known: tuple[Path, ...],
    dry_run: bool,
    caffe_python: Path | None,
) -> None:
    """Run a whole experiment of the paper and report it beside the paper's numbers.

    EXPERIMENT is a name such as lenet-300-100, or a .toml file of your own. Finished stages are
    kept: killed or interrupted, the same command goes on where it was; one whose files are gone or
    damaged is done anew. A preset that changes a few
    settings of another one takes over the stages that are the same from that one's run, unless
    --out names a folder of its own.

    \b
    Examples:
      caffe-prune reproduce lenet-300-100                     minutes
      caffe-prune reproduce lenet-300-100 --preset paper-10k  half an hour on two cores
      caffe-prune reproduce lenet-300-100 --preset paper --dry-run
      caffe-prune reproduce lenet-300-100 --engine torch --device cuda --pack 8
      caffe-prune reproduce caffenet-oxford102 --preset tiny
      caffe-prune reproduce caffenet-oxford102 --preset paper --device cuda \\
          --weights bvlc_reference_caffenet.caffemodel
      caffe-prune reproduce lenet-5 --scheduler tcp://HOST:8786
      caffe-prune reproduce lenet-5 --preset paper-10k-sigma-all \\
          --known runs/lenet-5-paper-10k
    """
    wish = EngineWish(engine, caffe_python, device, tf32=tf32, pack=pack or 1, trust=trust)
    require_sense(wish)
    execution = Execution(device=device, threads=threads, tf32=tf32, trusted=trust)
    if preset is not None and experiment.endswith(".toml"):
        raise click.UsageError(
            f"--preset goes with the name of an experiment; {experiment} is one preset itself"
        )
    toml = find_experiment(experiment, preset or _PRESET)
    spec = read_experiment(toml)
    if accuracy is not None:
        spec = spec.model_copy(update={"accuracy": accuracy})
    wish = replace(wish, torch_only=_torch_only(spec.methods))
    folder = out or Path("runs") / f"{spec.name}-{spec.preset}"
    stages_folder = out or Path("runs") / f"{spec.name}-{spec.variant_of or spec.preset}"
    solver = solver_path(spec, toml)

    def plan_for(
        place: Path,
        data_set: DataSet,
        engine_name: str,
        pretrained: Pretrained | None,
        pretraining: PretrainingFiles | None,
    ) -> Plan:
        def plan_of(one: ExperimentSpec) -> Plan:
            return make_plan(
                one,
                solver_path(one, toml),
                stages_folder,
                place,
                data_set,
                engine_name,
                execution,
                retraining_solver=retraining_solver_path(one, toml),
                pretrained=pretrained,
                pretraining=pretraining,
                checksum_of=checksum_of,
            )

        return _with_known(spec, plan_of, known)

    timing = None
    if measure:  # before hours of training: it may not be here
        _require_nets(dry_run, known)
        timing = CaffeEngine(find_caffe_python(caffe_python).executable, trust=trust)
    workers = jobs or max(pack or 1, len(os.sched_getaffinity(0)))
    if dry_run:
        place = data_folder(spec, data)
        begins_with = _known_weights(spec, toml, weights)
        before = pretraining_files(spec, toml, data, known_data_set)
        plan = plan_for(place, known_data_set(place), _engine_name(wish), begins_with, before)
        _show_plan(spec, plan, workers)
        return
    begins_with = find_weights(spec.weights, toml, weights)
    wish = with_packs(wish, pack, jobs, solver, scheduler)
    execution = execution.model_copy(update={"pack": wish.pack})
    with crew_to_work_with(wish, workers, scheduler, store) as crew:
        place, manifest = get_data(spec, data, source)
        data_set = data_set_of(manifest, place)
        before = pretraining_files(spec, toml, data, made_data_set)
        plan = plan_for(place, data_set, crew.engine_name, begins_with, before)
        stages = plan.stages
        crew.fetch(stages)
        was_done = all(stage.output() for stage in stages)
        with stop_on_signal(crew.stop), sweep_progress(stages) as observe:
            watch = telling_prediction(spec, plan, observe, console.print)
            crew.run(stages, watch)
    result = assemble(spec, plan, data_set, crew.engine_name, crew.jobs, execution)
    path = ExperimentFolder(folder).result
    if was_done:  # by earlier commands, which the result tells of
        result = as_told_before(result, path, ExperimentFolder(stages_folder).result)
    if timing is not None:
        result = measured(result, plan, timing, say_remark)
    write_result(path, result)
    page = write_report(result, folder)
    print_summary(result, console)
    if result.prediction is not None:
        console.print(prediction_table(spec.name, result.prediction, result))
    echo(f"result {path}")
    echo(f"report {page}")


def _require_nets(dry_run: bool, known: Sequence[Path]) -> None:
    """Refuse what --measure cannot do."""
    if dry_run:
        raise click.UsageError("--measure times nets and --dry-run does nothing; give one of them")
    if known:
        raise click.UsageError("--measure needs the nets of all points; give no --known")


def _with_known(
    spec: ExperimentSpec, plan_of: Callable[[ExperimentSpec], Plan], known: Sequence[Path]
) -> Plan:
    """Lay out the experiment, take what earlier results have, and say how many points that is.

    Raises:
        FormatError: One is not there or damaged, or none has a point for this plan.
    """
    plan = plan_of(spec)
    if not known:
        return plan
    paths = [result_path(run) for run in known]
    results = [read_result(path) for path in paths]
    points = dict(known_points(results))
    for result in results:
        with suppress(PruneError):  # what is not here cannot have gone through the same stages
            points = {**points_of_the_best(result, spec, plan_of), **points}
    plan = replace(plan, known=points)
    taken = len(plan.taken)
    if not taken:
        raise FormatError(
            f"{', '.join(map(str, paths))}: no point went through the stages of this preset: data, "
            "net, solver, engine or settings are others, or it is from a version that did not tell "
            "stages; leave --known out"
        )
    say_remark(f"{taken} points are taken from {', '.join(map(str, paths))}")
    return plan


def _torch_only(methods: Sequence[Method]) -> str:
    """Which of the methods the engine caffe cannot do; empty for none."""
    called = [f"'{method.called}'" for method in methods if "caffe" not in method.engines]
    return f"the method{'s' * (len(called) > 1)} {', '.join(called)}" if called else ""


def _engine_name(wish: EngineWish) -> str:
    """What would train, so that --dry-run can tell which stages are done."""
    try:
        return decide(wish).name
    except EngineError as error:
        say_remark(f"no engine could do this now: {error}")
        return "caffe"


def _known_weights(spec: ExperimentSpec, toml: Path, given: Path | None) -> Pretrained | None:
    """What training would begin with; what is missing for it is said, and no reason to stop."""
    try:
        return find_weights(spec.weights, toml, given)
    except FormatError as error:
        say_remark(str(error))
        return None


def _show_plan(spec: ExperimentSpec, plan: Plan, jobs: int) -> None:
    # On standard output: the plan is the command's result.
    screen = Screen()
    table = Table(title=f"{spec.title}, preset {spec.preset}")
    table.add_column("stage", overflow="fold")
    for column in ("iterations", "done"):
        table.add_column(column, justify="right")
    for stage in plan.stages:
        table.add_row(stage.label, f"{stage.iterations:,}", "yes" if stage.output() else "")
    screen.print(table)
    todo = [stage.iterations for stage in plan.stages if not stage.output()]
    minutes = sum(todo) * spec.ms_per_iteration / 60_000
    screen.print(
        f"{len(plan.stages)} stages, {len(todo)} to do: {sum(todo):,} iterations, about "
        f"{minutes:.0f} core-minutes ({minutes / jobs:.0f} minutes with --jobs {jobs}) at "
        f"{spec.ms_per_iteration:g} ms an iteration",
        soft_wrap=True,
    )
