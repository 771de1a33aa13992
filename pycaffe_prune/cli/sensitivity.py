"""``caffe-prune sensitivity``: what pruning each layer alone costs, and rates chosen from it."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from threading import Event

import click

from data_prep.manifest import MANIFEST_NAME, load_manifest
from pycaffe_prune.cli.options import (
    accuracy_option,
    caffe_python_option,
    device_option,
    engine_option,
    engine_to_work_with,
    require_sense,
    state_options,
    text_path_type,
    tf32_option,
    threads_option,
    trust_option,
)
from pycaffe_prune.cli.progress import console, tests_progress
from pycaffe_prune.cli.tables import table_console
from pycaffe_prune.engines.base import Engine
from pycaffe_prune.engines.choice import EngineName, EngineWish
from pycaffe_prune.engines.interrupt import stop_on_signal
from pycaffe_prune.errors import FormatError, InterruptedRunError
from pycaffe_prune.experiments.sensitivity.budget_suggestion import suggest_within
from pycaffe_prune.experiments.sensitivity.measure import (
    DEFAULT_RATES,
    Analysis,
    SensitivityRequest,
    measure,
    plan,
    working_in,
)
from pycaffe_prune.experiments.sensitivity.result import (
    Measured,
    RatedNet,
    SensitivityMethod,
    SensitivityResult,
)
from pycaffe_prune.experiments.sensitivity.suggestion import suggest
from pycaffe_prune.net.state_wish import StateWish
from pycaffe_prune.pruning.budget import Quantity, parse_budget
from pycaffe_prune.pruning.criteria.units import UNIT_CRITERIA
from pycaffe_prune.reports.sensitivity.tables import print_sensitivity
from pycaffe_prune.reports.sensitivity.write import write_figures
from pycaffe_prune.screen import echo


def _budget(
    _: click.Context, __: click.Parameter, text: str | None
) -> tuple[Quantity, float] | None:
    try:
        return None if text is None else parse_budget(text)
    except FormatError as error:
        raise click.BadParameter(str(error)) from error


@click.command()
@click.option("--net", type=text_path_type, required=True, help="Net prototxt with Data layers.")
@click.option("--weights", type=text_path_type, required=True, help="Trained caffemodel.")
@click.option(
    "--data", type=text_path_type, required=True, help="Folder that holds the net's LMDBs."
)
@click.option("--out", type=text_path_type, required=True, help="Folder of the analysis.")
@click.option(
    "--method",
    type=click.Choice(["connections", "units"]),
    default="connections",
    show_default=True,
    help="Prune small weights, or units and filters.",
)
@click.option(
    "--criterion",
    type=click.Choice(sorted(UNIT_CRITERIA)),
    help="With --method units.  [default: onorm]",
)
@click.option(
    "--layers",
    default="all",
    show_default=True,
    help="Comma-separated names, patterns (conv*), types (InnerProduct), or all.",
)
@click.option(
    "--rates",
    default=",".join(f"{rate:g}" for rate in DEFAULT_RATES),
    show_default=True,
    help="Shares of a layer's weights or units to prune, comma-separated.",
)
@click.option("--images", type=click.IntRange(1), help="Test on the first N images only.")
@click.option(
    "--suggest",
    "total",
    type=click.FloatRange(0, 1, max_open=True),
    metavar="R",
    help="Choose an alpha for each layer, so that this share of all their weights goes.",
)
@click.option(
    "--suggest-budget",
    "budget",
    callback=_budget,
    metavar="WHAT=N|R",
    help="Choose a rate for each layer, so that the net has at most so many parameters, macs or "
    "bytes: a number (bytes=27000), or a share of the whole net (macs=0.1).",
)
@accuracy_option
@state_options
@engine_option
@device_option
@threads_option
@tf32_option
@trust_option
@click.option("--dry-run", is_flag=True, help="Say what would be tested, and do nothing.")
@caffe_python_option
def sensitivity(
    net: Path,
    weights: Path,
    data: Path,
    out: Path,
    method: SensitivityMethod,
    criterion: str | None,
    layers: str,
    rates: str,
    images: int | None,
    total: float | None,
    budget: tuple[Quantity, float] | None,
    accuracy: str | None,
    state: StateWish,
    engine: EngineName,
    device: str,
    threads: int,
    tf32: bool,
    trust: bool,
    dry_run: bool,
    caffe_python: Path | None,
) -> None:
    """Prune one layer at a time, test it without retraining, and show what each rate costs.

    Writes sensitivity.json, after each test, and the figures sensitivity.png and sensitivity.svg.
    Interrupted or killed, the same command goes on where it was. --suggest shares one total
    reduction out over the layers, where the measured curves say that it costs least, and tests that
    beside the paper's one alpha for all layers. --suggest-budget does so for what is left of the
    whole net, of connections or of units, beside one rate for all layers.

    \b
    Examples:
      caffe-prune sensitivity --net prototxt/lenet_300_100/train_val.prototxt \\
          --weights runs/base/final.caffemodel --data data/mnist --out sensitivity
      caffe-prune sensitivity --net prototxt/lenet/train_val.prototxt \\
          --weights lenet_iter_10000.caffemodel --data data/mnist --out lenet --suggest 0.9
      caffe-prune sensitivity --net N --weights W --data D --out units \\
          --method units --layers 'conv*' --suggest-budget macs=0.25
    """
    if criterion and method != "units":
        raise click.UsageError("--criterion goes with --method units")
    wish = EngineWish(engine, caffe_python, device, tf32=tf32)
    require_sense(wish)
    shares = _rates(rates)
    if total is not None and (method != "connections" or total > shares[-1]):
        raise click.UsageError(
            f"--suggest R goes with --method connections and an R up to the highest rate "
            f"({shares[-1]:g})"
        )
    name, is_sample = _data_set(data)
    request = SensitivityRequest(
        net=net,
        weights=weights,
        data=data,
        method=method,
        criterion=criterion or "onorm",
        layers=layers,
        rates=shares,
        images=images,
        accuracy=accuracy,
        state=state,
        data_name=name,
        is_sample=is_sample,
        device=device,
        threads=threads,
        trust=trust,
    )
    if dry_run:
        _show_plan(plan(request, out), (total is not None) + (budget is not None))
        return
    plan(request, out)  # nothing is made where the request is at fault
    with engine_to_work_with(wish) as chosen, working_in(out):
        result = _run(plan(request, out), total, budget, chosen)
    write_figures(result, out)
    print_sensitivity(result, table_console())
    if total is not None and result.suggestion is not None:
        command = _command(request, result.suggestion.suggested)
        for line in ("", "to prune so:", command):
            echo(line)
    if budget is not None and result.budget_suggestion is not None:
        command = _command_of_rates(request, result.budget_suggestion.suggested)
        for line in ("", "to prune so:", command):
            echo(line)
    echo(f"written to {out}")


def _rates(text: str) -> tuple[float, ...]:
    try:
        shares = sorted({float(part) for part in text.split(",")})
    except ValueError:
        shares = []
    if not shares or not all(0 < share < 1 for share in shares):
        raise click.BadParameter(
            f"'{text}' is no list of shares between 0 and 1", param_hint="--rates"
        )
    return tuple(shares)


def _data_set(data: Path) -> tuple[str, bool]:
    """The data set's name and whether it is the sample; a folder without manifest is the user's."""
    if not (data / MANIFEST_NAME).is_file():
        return data.name, False
    manifest = load_manifest(data)
    return manifest.name, manifest.is_sample


def _show_plan(analysis: Analysis, suggestions: int) -> None:
    settings, todo = analysis.settings, analysis.todo
    named = ", ".join(f"{layer.layer} ({layer.size:,})" for layer in settings.layers)
    judge = f" by '{settings.accuracy_name}'" if settings.accuracy_name else ""
    tests = len(todo) + (analysis.earlier is None) + 2 * suggestions
    console.print(f"{settings.method} of {named}")
    console.print(
        f"at {len(settings.rates)} rates: {tests} tests of {settings.images:,} images"
        f"{judge} to do, into {analysis.folder.path}"
    )


def _run(
    analysis: Analysis,
    total: float | None,
    budget: tuple[Quantity, float] | None,
    engine: Engine,
) -> SensitivityResult:
    asked = len(analysis.settings.layers) * len(analysis.settings.rates)
    stopped = Event()

    def stop() -> None:
        stopped.set()  # for when no test is running just now
        engine.stop()

    with (
        stop_on_signal(stop),
        tests_progress("testing", asked, asked - len(analysis.todo)) as advance,
    ):

        def observe(result: SensitivityResult) -> None:
            judge = f" in '{result.accuracy_name}'" if result.accuracy_name else ""
            told = f"baseline {100 * result.baseline.accuracy:.2f} %{judge}"
            advance(len(result.points), told)
            if stopped.is_set():
                raise InterruptedRunError("stopped")

        result = measure(analysis, engine, observe)
        if total is not None:
            advance(asked, "testing the suggestion")
            result = suggest(analysis, result, total, engine)
        if budget is not None:
            advance(asked, "testing the suggestion for the budget")
            result = suggest_within(analysis, result, *budget, engine)
        return result


def _command(request: SensitivityRequest, suggested: Measured) -> str:
    alphas = [
        word
        for row in suggested.layers
        if row.alpha
        for word in ("--alpha", f"{row.layer}={row.alpha:g}")
    ]
    return _command_with(request, "connections", alphas)


def _command_of_rates(request: SensitivityRequest, suggested: RatedNet) -> str:
    ratios = [
        word
        for row in suggested.layers
        if row.rate
        for word in ("--ratio", f"{row.layer}={row.rate:g}")
    ]
    criterion = ["--criterion", request.criterion] if request.method == "units" else []
    return _command_with(request, request.method, [*ratios, *criterion])


def _command_with(
    request: SensitivityRequest, method: SensitivityMethod, pruning: Sequence[str]
) -> str:
    words = ["--net", str(request.net), "--weights", str(request.weights), *pruning]
    words += [word for stage in request.state.stages for word in ("--stage", stage)]
    words += [] if request.state.level is None else ["--level", str(request.state.level)]
    words += ["--out", "pruned"]
    return f"caffe-prune prune {method} " + " ".join(map(shlex.quote, words))
