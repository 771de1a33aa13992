"""``caffe-prune train``: one solver run."""

from pathlib import Path
from typing import get_args

import click

from pycaffe_prune.cli.options import (
    accuracy_option,
    caffe_python_option,
    device_option,
    engine_option,
    engine_to_work_with,
    path_type,
    require_sense,
    state_options,
    text_path_type,
    tf32_option,
    threads_option,
    trust_option,
    verify_option,
)
from pycaffe_prune.cli.progress import console, training_progress
from pycaffe_prune.cli.quantize import read_rule
from pycaffe_prune.cli.test_lines import output_lines
from pycaffe_prune.engines.choice import EngineName, EngineWish
from pycaffe_prune.engines.distillation import TeacherWish
from pycaffe_prune.engines.interrupt import stop_on_signal
from pycaffe_prune.engines.job import TrainRequest
from pycaffe_prune.engines.masking import FewBits, Masking, read_masking
from pycaffe_prune.engines.run import train as run
from pycaffe_prune.engines.run_state import ChecksumOf
from pycaffe_prune.engines.tying import Gradient, Tying
from pycaffe_prune.formats.prototxt import read_solver
from pycaffe_prune.net.state_wish import StateWish
from pycaffe_prune.screen import echo


def _files(
    _ctx: click.Context, _param: click.Parameter, texts: tuple[str, ...]
) -> tuple[Path, ...]:
    """As Caffe's tool: commas part files, but for a file whose name has one."""
    parts = (
        part
        for text in texts
        for part in ([text] if Path(text).is_file() else text.split(","))
        if part
    )
    return tuple(Path(part) for part in parts)


def _masking(file: Path | None, rules: tuple[str, ...]) -> Masking | None:
    if file and rules:
        raise click.UsageError(
            "--quantize and --masking: give one of them; a file of the kind few_bits says the same"
        )
    if not rules:
        return read_masking(file) if file else None
    wished = {}
    for text in rules:
        layer, equals, rule = text.rpartition("=")
        if not equals or layer in wished:
            told = f"layer '{layer}' is named twice" if equals else f"'{text}' is not LAYER=RULE"
            raise click.BadParameter(told, param_hint="--quantize")
        wished[layer] = read_rule(rule, text)
    return FewBits.of(wished)


def _teacher(
    net: Path | None, weights: Path | None, temperature: float | None, mix: float | None
) -> TeacherWish | None:
    if net is None and weights is None:
        if temperature is not None or mix is not None:
            raise click.UsageError("--temperature and --mix are for a --teacher-net")
        return None
    if net is None or weights is None:
        raise click.UsageError("--teacher-net and --teacher-weights go together")
    told = {"temperature": temperature, "mix": mix}
    return TeacherWish(net, weights, **{name: v for name, v in told.items() if v is not None})


def _tying(texts: tuple[str, ...], gradient: Gradient | None) -> Tying | None:
    layers = dict.fromkeys(name for text in texts for name in text.split(",") if name)
    if not layers:
        if gradient is not None:
            raise click.UsageError("--tie-gradient is for layers of --tie")
        return None
    return Tying(blobs=tuple((name, 0) for name in layers), gradient=gradient or "sum")


@click.command()
@click.option("--solver", type=text_path_type, required=True, help="Solver prototxt.")
@click.option("--out", type=text_path_type, required=True, help="Folder of the run.")
@click.option("--net", type=text_path_type, help="Net prototxt to use in place of the solver's.")
@click.option(
    "--weights",
    multiple=True,
    callback=_files,
    metavar="FILE[,FILE]",
    help="Weights to start from, .caffemodel or .caffemodel.h5; repeatable, later ones overwrite.",
)
@click.option("--restore", type=path_type, help="Solverstate to go on from, in a new --out.")
@click.option("--mask", type=text_path_type, help="Mask file: pruned weights stay exactly zero.")
@click.option(
    "--masking", type=text_path_type, help="TOML file: masks that change while the net trains."
)
@click.option(
    "--quantize",
    multiple=True,
    metavar="LAYER=RULE",
    help="Passes use this layer's weights on few levels: 1bits to 8bits, 3bits:min-max, binary, "
    "ternary; repeatable.",
)
@click.option("--teacher-net", type=path_type, help="Learn from this net's scores, too (torch).")
@click.option("--teacher-weights", type=path_type, help="Its trained weights.")
@click.option(
    "--temperature",
    type=click.FloatRange(0, min_open=True),
    help="T, by which both nets' scores are divided (default: 4).",
)
@click.option(
    "--mix",
    type=click.FloatRange(0, 1),
    help="Share of the teacher in the loss: 0, labels alone, to 1 (default: 0.5).",
)
@click.option(
    "--tie",
    multiple=True,
    metavar="LAYER[,LAYER]",
    help="Layers whose equal weights (blob 0) stay equal, and those that are zero at zero.",
)
@click.option(
    "--tie-gradient",
    type=click.Choice(get_args(Gradient)),
    help="Of weights that are tied: the sum of theirs (default), or the mean, at which a rate of "
    "the whole net serves.",
)
@click.option("--data", type=text_path_type, help="Folder that holds the net's LMDBs.")
@click.option(
    "--max-iter",
    type=click.IntRange(0),
    help="Iterations (default: the solver's); 0: write the weights that a run begins with.",
)
@click.option("--snapshot", type=click.IntRange(0), help="Snapshot interval (0: at the end only).")
@click.option("--test-interval", type=click.IntRange(0), help="0: test at start and end only.")
@click.option(
    "--seed",
    type=click.IntRange(0, (1 << 63) - 1),
    help="Random seed (default: the solver's, else 1).",
)
@accuracy_option
@state_options
@engine_option
@device_option
@threads_option
@tf32_option
@trust_option
@click.option("--keep-snapshots", is_flag=True, help="Keep all snapshots, not the last one only.")
@verify_option
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@caffe_python_option
def train(
    solver: Path,
    out: Path,
    net: Path | None,
    weights: tuple[Path, ...],
    restore: Path | None,
    mask: Path | None,
    masking: Path | None,
    quantize: tuple[str, ...],
    teacher_net: Path | None,
    teacher_weights: Path | None,
    temperature: float | None,
    mix: float | None,
    tie: tuple[str, ...],
    tie_gradient: Gradient | None,
    data: Path | None,
    max_iter: int | None,
    snapshot: int | None,
    test_interval: int | None,
    seed: int | None,
    accuracy: str | None,
    state: StateWish,
    engine: EngineName,
    device: str,
    threads: int,
    tf32: bool,
    trust: bool,
    keep_snapshots: bool,
    checksum_of: ChecksumOf,
    dry_run: bool,
    caffe_python: Path | None,
) -> None:
    """Run one solver. Killed at any moment, the same command goes on to the same final bits.

    The folder then holds final.caffemodel, result.json (written last), log.jsonl and the last
    snapshot; weights that are gone or damaged are made anew. More iterations later: the same
    command with a larger --max-iter. A run that one engine began can go on in the other.

    The nets may be named in any of Caffe's fields (net, train_net and test_net, or the nets
    themselves), and layers chosen by train_state, test_state and the nets' own states; --stage and
    --level add to those.

    \b
    Examples:
      caffe-prune train --solver solvers/lenet_300_100.prototxt --data data/mnist --out runs/base
      caffe-prune train --solver S --data data/mnist --out runs/pruned \\
          --weights pruned/pruned.caffemodel --mask pruned/kept.mask.h5 --max-iter 5000
      caffe-prune train --solver S --data data/mnist --out runs/two \\
          --weights trunk.caffemodel.h5,head.caffemodel
      caffe-prune train --solver S --data data/mnist --out runs/surgery \\
          --weights runs/base/final.caffemodel --masking surgery.toml
      caffe-prune train --solver S --data data/mnist --out runs/few \\
          --weights runs/base/final.caffemodel --quantize ip1=2bits --quantize ip2=ternary
      caffe-prune train --solver S --net small.prototxt --data data/mnist --out runs/student \\
          --teacher-net train_val.prototxt --teacher-weights runs/base/final.caffemodel
      caffe-prune train --solver S --data data/mnist --out runs/shared \\
          --weights shared.caffemodel --tie ip1,ip2,ip3
      caffe-prune train --solver LOWER_RATE --data data/mnist --out runs/on \\
          --restore snapshots/lenet_iter_5000.solverstate --max-iter 10000
    """
    teacher = _teacher(teacher_net, teacher_weights, temperature, mix)
    wish = EngineWish(engine, caffe_python, device, tf32=tf32, teacher=teacher is not None)
    require_sense(wish)
    iterations = read_solver(solver).max_iter if max_iter is None else max_iter
    request = TrainRequest(
        solver=solver,
        net=net,
        weights=weights[0] if weights else None,
        more_weights=weights[1:],
        restore=restore,
        mask=mask,
        masking=_masking(masking, quantize),
        teacher=teacher,
        tying=_tying(tie, tie_gradient),
        data=data,
        max_iter=max_iter,
        snapshot=snapshot,
        test_interval=test_interval,
        seed=seed,
        accuracy=accuracy,
        state=state,
        device=device,
        threads=threads,
        keep_snapshots=keep_snapshots,
        trust=trust,
    )
    if dry_run:
        console.print(f"{iterations} iterations of {solver} on {engine} ({device}) into {out}")
        return
    with (
        engine_to_work_with(wish) as chosen,
        stop_on_signal(chosen.stop),
        training_progress(out.name, iterations) as observe,
    ):
        result = run(request, out, chosen, observe, checksum_of)
    for test in result.last_tests:
        for line in output_lines(test, result.weights_of_loss(test.test_net)):
            echo(line)
        echo(f"{test.told} after {result.iterations} iterations")
    echo(f"weights {out / 'final.caffemodel'}")
    if result.mask_sha256:
        echo(f"masks {out / 'final.mask.h5'}")
