"""``caffe-prune sensitivity``: what pruning each layer alone costs, and rates chosen from it."""

import shlex
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
from pycaffe_prune.errors import InterruptedRunError
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
    SensitivityMethod,
    SensitivityResult,
)
from pycaffe_prune.experiments.sensitivity.suggestion import suggest
from pycaffe_prune.net.state_wish import StateWish
from pycaffe_prune.pruning.criteria.units import UNIT_CRITERIA
from pycaffe_prune.reports.sensitivity.tables import print_sensitivity, write_figures
from pycaffe_prune.screen import echo


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
    beside the paper's one alpha for all layers.

    \b
    Examples:
      caffe-prune sensitivity --net prototxt/lenet_300_100/train_val.prototxt \\
          --weights runs/base/final.caffemodel --data data/mnist --out sensitivity
      caffe-prune sensitivity --net prototxt/lenet/train_val.prototxt \\
          --weights lenet_iter_10000.caffemodel --data data/mnist --out lenet --suggest 0.9
      caffe-prune sensitivity --net N --weights W --data D --out units \\
          --method units --layers 'conv*'
    """
    if criterion and method != "units":
        raise click.UsageError("--criterion goes with --method units")
    wish = EngineWish(engine, caffe_python, device, tf32)
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
        _show_plan(plan(request, out), total)
        return
    plan(request, out)  # nothing is made where the request is at fault
    with engine_to_work_with(wish) as chosen, working_in(out):
        result = _run(plan(request, out), total, chosen)
    write_figures(result, out)
    print_sensitivity(result, table_console())
    if total is not None and result.suggestion is not None:
        command = _command(request, result.suggestion.suggested)
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


def _show_plan(analysis: Analysis, total: float | None) -> None:
    settings, todo = analysis.settings, analysis.todo
    named = ", ".join(f"{layer.layer} ({layer.size:,})" for layer in settings.layers)
    judge = f" by '{settings.accuracy_name}'" if settings.accuracy_name else ""
    tests = len(todo) + (analysis.earlier is None) + (0 if total is None else 2)
    console.print(f"{settings.method} of {named}")
    console.print(
        f"at {len(settings.rates)} rates: {tests} tests of {settings.images:,} images"
        f"{judge} to do, into {analysis.folder.path}"
    )


def _run(analysis: Analysis, total: float | None, engine: Engine) -> SensitivityResult:
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
        if total is None:
            return result
        advance(asked, "testing the suggestion")
        return suggest(analysis, result, total, engine)


def _command(request: SensitivityRequest, suggested: Measured) -> str:
    alphas = [
        word
        for row in suggested.layers
        if row.alpha
        for word in ("--alpha", f"{row.layer}={row.alpha:g}")
    ]
    words = ["--net", str(request.net), "--weights", str(request.weights), *alphas]
    words += [word for stage in request.state.stages for word in ("--stage", stage)]
    words += [] if request.state.level is None else ["--level", str(request.state.level)]
    words += ["--out", "pruned"]
    return "caffe-prune prune connections " + " ".join(map(shlex.quote, words))
