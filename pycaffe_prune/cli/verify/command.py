"""``caffe-prune verify``: do two models compute the same?"""

import json
import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import click
from click.core import ParameterSource
from rich.box import SIMPLE_HEAD
from rich.table import Table

from pycaffe_prune.cli.input_shapes import input_shapes_option
from pycaffe_prune.cli.options import (
    caffe_python_option,
    device_option,
    engine_to_work_with,
    path_type,
    phase_option,
    say_remark,
    state_options,
    threads_option,
    trust_option,
)
from pycaffe_prune.cli.tables import table_console
from pycaffe_prune.cli.verify.engines import NamedEngine, parse_engines, verify_engines
from pycaffe_prune.engines.choice import EngineWish
from pycaffe_prune.engines.comparison import opencv_net
from pycaffe_prune.engines.comparison.trajectory import TOLERANCE as ENGINE_TOLERANCE
from pycaffe_prune.engines.job import TrainRequest
from pycaffe_prune.errors import EngineError, FormatError, PruneError
from pycaffe_prune.formats.mean import read_mean
from pycaffe_prune.net.shapes import Shape, extents
from pycaffe_prune.net.state_wish import StateWish
from pycaffe_prune.pruning.verify import (
    TOLERANCE,
    BlobComparison,
    InputSource,
    Judge,
    ModelFiles,
    Verification,
)
from pycaffe_prune.pruning.verify import verify as verify_models
from pycaffe_prune.pruning.verify_input import array_input, lmdb_input, random_input

__all__ = ["verify"]

_WEIGHTS = (".caffemodel", ".h5", ".npz", ".safetensors")
_NOT_WEIGHTS = (".mask.h5", ".solverstate.h5")

_OF_ENGINES = ("solver", "weights", "mask", "data", "iterations", "device", "threads", "out")
_OF_MODELS = ("judge", "batch", "seed", "scale", "array", "lmdb", "mean", "inputs", "phase")


@click.command()
@click.argument("models", metavar="[A B]", nargs=-1)
@click.option(
    "--judge",
    type=click.Choice(["caffe", "torch", "opencv", "all"]),
    default="all",
    show_default=True,
    help="What runs the models; all = those that are here.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    help=f"Largest difference that counts as the same, relative to the largest value of A, "
    f"or of the first engine after one iteration.  [default: {TOLERANCE:g}, of engines "
    f"{ENGINE_TOLERANCE:g}]",
)
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    help="How many images, random or of --lmdb.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the random images.")
@click.option(
    "--scale",
    type=float,
    default=1.0,
    show_default=True,
    help="Deviation of the random values; with --lmdb the factor of the pixels.",
)
@click.option(
    "--input", "array", type=path_type, metavar="FILE.npy", help="Run the images of a .npy array."
)
@click.option("--lmdb", type=path_type, metavar="DIR", help="Run the first images of an LMDB.")
@click.option("--mean", type=path_type, help="With --lmdb: mean image to subtract.")
@input_shapes_option
@phase_option
@state_options
@click.option(
    "--engines",
    metavar="E[@DEVICE],E[@DEVICE]",
    callback=parse_engines,
    help="Compare two engines instead: caffe,torch, or caffe@cpu,caffe@cuda.",
)
@click.option("--solver", type=path_type, help="With --engines: solver prototxt to train by.")
@click.option("--weights", type=path_type, help="With --engines: caffemodel to start from.")
@click.option("--mask", type=path_type, help="With --engines: mask file.")
@click.option("--data", type=path_type, help="With --engines: folder of the net's LMDBs.")
@click.option(
    "--iterations",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    help="With --engines: how long to train.",
)
@click.option(
    "--out",
    type=path_type,
    help="With --engines: folder to keep the runs in; they stand for an engine that is not here.",
)
@device_option
@threads_option
@trust_option
@click.option("--json", "as_json", is_flag=True, help="JSON instead of tables.")
@caffe_python_option
@click.pass_context
def verify(
    ctx: click.Context,
    models: tuple[str, ...],
    judge: str,
    tolerance: float | None,
    batch: int,
    seed: int,
    scale: float,
    array: Path | None,
    lmdb: Path | None,
    mean: Path | None,
    inputs: dict[str, Shape],
    state: StateWish,
    engines: tuple[NamedEngine, NamedEngine] | None,
    solver: Path | None,
    weights: Path | None,
    mask: Path | None,
    data: Path | None,
    iterations: int,
    out: Path | None,
    device: str,
    threads: int,
    trust: bool,
    as_json: bool,
    caffe_python: Path | None,
) -> None:
    """Run models A and B on the same input and compare their outputs, probabilities and logits.

    A and B are folders as `prune` writes them, or NET.prototxt:WEIGHTS. Exit code 0 when they are
    the same within the tolerance, 1 when not.

    With --engines, the same job is trained by two engines from the same weights, and compared
    after 1, 10, 100, … iterations: losses, weights, history, and the tests at start and end. The
    tolerance grows with the iterations, 1e-5 after one to 1e-3 after 1,000; beyond it, what other
    roundings do to a blob of the first engine itself is measured and allowed to that blob. --device
    is torch's; an engine may be named with its own, and so be compared with itself on another
    device. --stage and --level choose layers of the solver's nets, as for `train`.

    \b
    Examples:
      caffe-prune verify masked deleted
      caffe-prune verify deploy.prototxt:before.caffemodel smaller --scale 50
      caffe-prune verify masked deleted --lmdb data/mnist/mnist_test_lmdb --scale 0.00390625
      caffe-prune verify --engines caffe,torch --solver solvers/lenet_300_100.prototxt \\
          --data data/mnist
      caffe-prune verify --engines caffe@cpu,caffe@cuda --solver solvers/lenet.prototxt \\
          --data data/mnist --iterations 1000
    """
    _require_one_mode(ctx, engines is not None)
    if engines is not None:
        if models or solver is None:
            raise click.UsageError("--engines takes no models A B, and needs --solver")
        request = TrainRequest(
            solver=solver,
            weights=weights,
            mask=mask,
            data=data,
            device=device,
            threads=threads,
            state=state,
            trust=trust,
        )
        verify_engines(
            request,
            engines,
            iterations,
            out,
            ENGINE_TOLERANCE if tolerance is None else tolerance,
            caffe_python=caffe_python,
            as_json=as_json,
        )
        return
    if len(models) != 2:
        raise click.UsageError("two models are needed, A and B, or --engines")
    if array and lmdb:
        raise click.UsageError("--input and --lmdb exclude each other")
    if mean and not lmdb:
        raise click.UsageError("--mean goes with --lmdb")
    allowed = TOLERANCE if tolerance is None else tolerance
    first, second = (_model_files(text) for text in models)
    with ExitStack() as stack:
        found = verify_models(
            first,
            second,
            _judges(judge, caffe_python, trust, stack),
            _source(array, lmdb, mean, batch, seed, scale),
            tolerance=allowed,
            shapes=inputs,
            state=state,
            trust=trust,
        )
    _remark(found)
    if as_json:
        click.echo(json.dumps(_as_json(found), indent=1))
    else:
        table_console().print(_table(found))
    if found.difference is not None:
        raise PruneError(_sentence(models, *found.difference, allowed))


def _require_one_mode(ctx: click.Context, engines: bool) -> None:
    """Refuse options that would have no effect.

    Raises:
        click.UsageError: There is one.
    """
    for name in _OF_MODELS if engines else _OF_ENGINES:
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            option = next(param.opts[0] for param in ctx.command.params if param.name == name)
            raise click.UsageError(
                f"{option} goes with two models A and B, not with --engines"
                if engines
                else f"{option} goes with --engines"
            )


def _model_files(text: str) -> ModelFiles:
    folder = Path(text)
    if folder.is_dir():
        return ModelFiles(
            _in_folder(folder, ("net.prototxt",), (".prototxt",), "a net prototxt"),
            _in_folder(
                folder, ("pruned.caffemodel", "final.caffemodel"), _WEIGHTS, "a file of weights"
            ),
        )
    parts = text.split(":")
    splits = [(":".join(parts[:at]), ":".join(parts[at:])) for at in range(1, len(parts))]
    for net, weights in splits:
        if Path(net).is_file():
            return ModelFiles(Path(net), Path(weights))
    if splits:
        return ModelFiles(*map(Path, splits[0]))  # reading it says what is missing
    raise FormatError(f"{text}: is no folder with a model; give one, or NET.prototxt:WEIGHTS")


def _in_folder(folder: Path, names: Sequence[str], endings: Sequence[str], what: str) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    found = sorted(
        path
        for path in folder.iterdir()
        if path.name.endswith(tuple(endings)) and not path.name.endswith(_NOT_WEIGHTS)
    )
    if len(found) != 1:
        listed = ", ".join(path.name for path in found) or "none"
        raise FormatError(
            f"{folder}: {what} is needed, {names[0]} or the only one there, and it holds "
            f"{listed}; give NET.prototxt:WEIGHTS"
        )
    return found[0]


def _judges(wanted: str, caffe_python: Path | None, trust: bool, stack: ExitStack) -> list[Judge]:
    """Return the judges that are wanted; of "all" those that are usable, with a remark if not.

    ``stack`` ends their processes.
    """
    judges, missing = [], []
    wishes = [EngineWish("caffe", caffe_python, trust=trust), EngineWish("torch", trust=trust)]
    for wish in wishes:
        if wanted in (wish.name, "all"):
            try:
                engine = stack.enter_context(engine_to_work_with(wish))
                judges.append(Judge(wish.name, engine.forward))
            except EngineError as error:
                missing.append(error)
    if wanted in ("opencv", "all"):
        try:
            opencv_net.require_importer()
            judges.append(Judge("opencv", opencv_net.forward))
        except EngineError as error:
            missing.append(error)
    if not judges:
        raise EngineError("; ".join(map(str, missing)))
    for reason in missing:
        say_remark(f"not asked: {reason}")
    return judges


def _source(
    array: Path | None, lmdb: Path | None, mean: Path | None, images: int, seed: int, scale: float
) -> InputSource:
    if array is not None:
        return array_input(array)
    if lmdb is not None:
        return lmdb_input(lmdb, images, scale=scale, mean=read_mean(mean) if mean else None)
    return random_input(images, seed=seed, scale=scale)


def _remark(found: Verification) -> None:
    for refusal in found.refused:
        say_remark(f"not asked: {refusal.reason}")
    for name in found.only_in_one:
        say_remark(f"not compared: only one of the nets has the output '{name}'")
    for name in found.not_felt:
        say_remark(
            f"'{name}' is the same for all images: the input is hardly felt; try a larger --scale "
            "or real input"
        )


def _as_json(found: Verification) -> dict[str, object]:
    """Return all that was found, with the verdicts; null where a number is not finite."""
    everything = asdict(found)
    for told, verdict in zip(everything["judged"], found.judged, strict=True):
        for values, blob in zip(told["blobs"], verdict.blobs, strict=True):
            values["relative_difference"] = blob.relative_difference
            values["same"] = blob.is_same(found.tolerance)
            for name in ("largest", "max_difference", "relative_difference", "spread"):
                if not math.isfinite(values[name]):
                    values[name] = None
    return {"same": found.is_same, **everything}


def _table(found: Verification) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("judge", no_wrap=True)
    table.add_column("blob", overflow="fold")
    table.add_column("shape", no_wrap=True)
    for column in ("max |A|", "max |A-B|", "relative", "arg max", ""):
        table.add_column(column, justify="right", no_wrap=True)
    for verdict in found.judged:
        for blob in verdict.blobs:
            same = "same" if blob.is_same(found.tolerance) else "DIFFERENT"
            table.add_row(
                verdict.judge,
                blob.blob,
                extents(blob.shape),
                f"{blob.largest:.4g}",
                f"{blob.max_difference:.2g}",
                f"{blob.relative_difference:.2g}",
                f"{blob.same_arg_max} of {blob.shape[0]}",
                same if blob.finite else "NaN/Inf",
            )
    return table


def _sentence(models: Sequence[str], judge: str, blob: BlobComparison, tolerance: float) -> str:
    both = f"{models[0]} and {models[1]}"
    if not blob.finite:
        return f"{both}: blob '{blob.blob}' holds NaN or infinite values (judge {judge})"
    return (
        f"{both} are not the same: blob '{blob.blob}' differs by {blob.relative_difference:.2g} of "
        f"its largest value, more than the tolerance {tolerance:g} (judge {judge})"
    )
