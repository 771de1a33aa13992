"""``caffe-prune convert``: models from one format to another, and into other nets."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from pycaffe_prune.cli.convert.classifier import new_classifiers, parse_classifiers
from pycaffe_prune.cli.convert.formats import (
    ENDINGS,
    FORMATS,
    Conversion,
    Request,
)
from pycaffe_prune.cli.convert.zoo import fetch_from_zoo, show_zoo
from pycaffe_prune.cli.input_shapes import input_shapes_option
from pycaffe_prune.cli.inspect.unknown_fields import warn_of_unknown_fields
from pycaffe_prune.cli.options import path_type, phase_option, state_options
from pycaffe_prune.convert.classifier import Classifier
from pycaffe_prune.convert.zoo import zoo_model
from pycaffe_prune.errors import PruneError, SurgeryError
from pycaffe_prune.formats.caffe_pb2 import TEST
from pycaffe_prune.formats.files import existing_file, holds_text
from pycaffe_prune.net.shapes import Shape
from pycaffe_prune.net.state_wish import StateWish
from pycaffe_prune.screen import echo

__all__ = ["convert"]

_MEANS = frozenset({"binaryproto", "npy"})
_OF_ONE_STATE = frozenset({"deploy", "onnx"})
"""Formats that hold the layers of one state of a net only."""


@click.command()
@click.argument("source", metavar="[INPUT]", required=False, type=path_type)
@click.option("--net", type=path_type, help="Net prototxt of the weights INPUT.")
@click.option("--to", "target", type=click.Choice(sorted(FORMATS)), help="Default: by --out.")
@click.option("--out", type=path_type, help="File to write; a folder for several.")
@input_shapes_option
@phase_option
@state_options
@click.option(
    "--classifier",
    "classifiers",
    multiple=True,
    metavar="OLD=NEW:N",
    callback=parse_classifiers,
    help="Replace an output layer by a new one of N outputs; repeatable.",
)
@click.option("--strip", is_flag=True, help="Leave out all that only training needs.")
@click.option(
    "--mask", type=path_type, help="With --to stock: file for the masks behind a fork's weights."
)
@click.option("--from-zoo", metavar="NAME", help="Download known weights; 'list' shows them.")
@click.option(
    "--mirror", "mirrors", multiple=True, metavar="URL", help="Ask this address first; repeatable."
)
@click.option("--dry-run", is_flag=True, help="Do all but write (or download).")
def convert(
    source: Path | None,
    net: Path | None,
    target: str | None,
    out: Path | None,
    inputs: Mapping[str, Shape],
    state: StateWish,
    classifiers: list[Classifier],
    strip: bool,
    mask: Path | None,
    from_zoo: str | None,
    mirrors: tuple[str, ...],
    dry_run: bool,
) -> None:
    """Convert weights, nets and mean images; all files are read by their content.

    \b
    Weights   caffemodel (V0 and V1 upgraded), hdf5, sparse, compressed, npz,
              safetensors, onnx
    Nets      prototxt (V0 and V1 upgraded), deploy (of a train_val net)
    Means     npy, binaryproto
    Forks     stock: a fork's net or weights as stock Caffe has them

    \b
    Examples:
      caffe-prune convert old.caffemodel --to caffemodel --out new.caffemodel
      caffe-prune convert pruned.caffemodel --out pruned.sparse.npz
      caffe-prune convert pruned.sparse.npz --out again.caffemodel
      caffe-prune convert small.cpz --out again.caffemodel
      caffe-prune convert train_val.prototxt --to deploy --input-shape data=1x1x28x28 \\
          --out deploy.prototxt
      caffe-prune convert all_in_one.prototxt --to deploy --stage deploy --out deploy.prototxt
      caffe-prune convert final.caffemodel --net train_val.prototxt --out model.onnx
      caffe-prune convert bvlc_reference_caffenet.caffemodel --net train_val.prototxt \\
          --classifier fc8=fc8_oxford_102:102 --out flowers
      caffe-prune convert imagenet_mean.binaryproto --out imagenet_mean.npy
      caffe-prune convert --from-zoo caffenet --out zoo
    """
    if from_zoo == "list":
        show_zoo()
        return
    if out is None:
        raise click.UsageError("--out is needed: the file to write, or a folder for several")
    if from_zoo is not None:
        if dry_run:
            show_zoo([zoo_model(from_zoo)])
        else:
            _finish(fetch_from_zoo(from_zoo, out, mirrors), (), dry_run=False)
        return
    if source is None:
        raise click.UsageError("INPUT is needed: the file to convert")
    existing_file(source, "the file to convert")
    request = Request(source, net, out, inputs, strip, state, mask)
    _require_sense(request, target, classifiers)
    warn_of_unknown_fields(source, net)
    conversion = _conversion(request, target, classifiers)
    _finish(conversion, (source, net), dry_run=dry_run)


def _require_sense(request: Request, target: str | None, classifiers: Sequence[Classifier]) -> None:
    """Refuse options that would have no effect."""
    chosen = None if classifiers else target or _format_of(request.out)
    if request.mask and (chosen != "stock" or holds_text(request.source)):
        raise click.UsageError("--mask goes with --to stock and weights as INPUT")
    if classifiers and (target is not None or request.strip):
        raise click.UsageError(
            "--classifier writes a net and its caffemodel; convert these in a second step"
        )
    if classifiers:
        if request.state.phase != TEST:
            raise click.UsageError("--phase is for --to deploy and --to onnx")
        return
    if chosen == "stock" and (request.net or request.strip or request.inputs):
        raise click.UsageError("--to stock takes INPUT alone: a net, or weights with definitions")
    if request.strip and chosen in {"prototxt", *_MEANS}:
        raise click.UsageError("--strip is for weights, --to deploy and --to onnx")
    if request.net is not None and (chosen in _MEANS or holds_text(request.source)):
        raise click.UsageError("--net goes with weights as INPUT")
    _require_choice(request, chosen)


def _require_choice(request: Request, chosen: str | None) -> None:
    if request.state.phase != TEST and chosen not in _OF_ONE_STATE:
        raise click.UsageError("--phase is for --to deploy and --to onnx")
    from_file = chosen in _OF_ONE_STATE and holds_text(request.source)
    if request.state and (chosen in {"prototxt", *_MEANS} or not (from_file or request.net)):
        raise click.UsageError(
            "--stage and --level choose layers of a prototxt: for --to deploy, or of the --net"
        )


def _conversion(
    request: Request, target: str | None, classifiers: Sequence[Classifier]
) -> Conversion:
    try:
        if classifiers:
            return new_classifiers(request, classifiers)
        return FORMATS[target or _format_of(request.out)](request)
    except SurgeryError as error:  # it knows layers and shapes, but no files
        files = " with ".join(str(path) for path in (request.source, request.net) if path)
        raise SurgeryError(f"{files}: {error}") from error


def _format_of(out: Path) -> str:
    for ending, name in ENDINGS.items():
        if out.name.endswith(ending):
            return name
    raise click.UsageError(f"the ending of {out} tells no format; give --to")


def _finish(conversion: Conversion, read: tuple[Path | None, ...], *, dry_run: bool) -> None:
    """Write the files of a conversion, unless one of them was read for it."""
    originals = [path.resolve() for path in read if path is not None]
    for output in conversion.outputs:
        if output.path.resolve() in originals:
            raise PruneError(
                f"{output.path}: is an input and is not overwritten; choose another --out"
            )
    for remark in conversion.remarks:
        echo(remark, err=True)
    for output in conversion.outputs:
        if dry_run:
            echo(f"would write {output.path}")
            continue
        output.write(output.path)
        echo(f"written: {output.path}, {output.path.stat().st_size:,} bytes")
    if read and read[0] is not None:
        echo(f"from:    {read[0]}, {read[0].stat().st_size:,} bytes")
