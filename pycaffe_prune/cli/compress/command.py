"""``caffe-prune compress``: a model in as few bytes as hold it, to the last bit or nearly."""

import re
from collections.abc import Iterator
from pathlib import Path

import click

from pycaffe_prune.cli.compress.bits import show_sharing, with_wished_bits
from pycaffe_prune.cli.compress.tables import LayerBytes, show_forms, show_layers
from pycaffe_prune.cli.compress.trained import (
    TrainingWish,
    compress_trained,
    show_plan,
    training_options,
)
from pycaffe_prune.cli.options import path_type
from pycaffe_prune.cli.prune.output import read_model
from pycaffe_prune.cli.tables import table_console
from pycaffe_prune.errors import FormatError, PruneError, SurgeryError
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import BlobKey, Caffemodel
from pycaffe_prune.formats.compressed.blobs import Hash
from pycaffe_prune.formats.compressed.file import compress as compressed_sections
from pycaffe_prune.formats.compressed.file import write_sections
from pycaffe_prune.formats.compressed.pieces import Piece, size_of
from pycaffe_prune.formats.npz import zipped_size
from pycaffe_prune.formats.sparse import sparse_size
from pycaffe_prune.formats.weights import read_weights
from pycaffe_prune.net.state_wish import StateWish
from pycaffe_prune.screen import echo

__all__ = ["compress"]

_HASHED = re.compile(r"(.+)=([0-9]{1,19}):([0-9]{1,20})", re.DOTALL)


@click.command()
@click.option("--weights", required=True, type=path_type, help="File of weights, of any form.")
@click.option("--out", required=True, type=path_type, help="File to write, by custom a .cpz.")
@click.option(
    "--net", type=path_type, help="Net prototxt of the weights, whose definitions the file gets."
)
@click.option(
    "--bits",
    multiple=True,
    metavar="N | E% | LAYER=...",
    help="Let weights share 2^N values, or as few as cost an error of at most E %; repeatable.",
)
@click.option(
    "--hashed",
    multiple=True,
    metavar="LAYER=BUCKETS:SEED",
    help="Store the layer's weights as a hash's buckets (docs/hashed.md); repeatable.",
)
@training_options
@click.option("--dry-run", is_flag=True, help="Say what it would take; write nothing.")
def compress(
    weights: Path,
    out: Path,
    net: Path | None,
    bits: tuple[str, ...],
    hashed: tuple[str, ...],
    training: TrainingWish | None,
    dry_run: bool,
) -> None:
    """Store a model in fewer bytes; `convert` brings it back, to the last bit.

    For each blob the smallest exact way is found by measurement: positions of what is not zero, a
    codebook where its values are few different ones (shared, k-bit, binary, ternary), the bytes
    of its floats where they are not. All of it is entropy coded. Every command that reads weights
    takes the file. docs/compressed.md has the format byte by byte.

    With --bits some of the weights' precision goes first: those of a layer that are not zero share
    few values (k-means), and nothing is trained. LAYER is a name, a pattern (conv*) or a type.

    With --solver and --data the net is trained smaller first: pruned at rates that follow from what
    each layer loses alone, retrained, its weights shared, and the values that they share trained,
    as far as --budget allows or --times asks. Trials are kept in --run, so that the same command
    goes on where it was stopped.

    \b
    Examples:
      caffe-prune compress --weights pruned.caffemodel --out small.cpz
      caffe-prune compress --weights pruned.caffemodel --bits 5 --bits 'conv*=8' --out small.cpz
      caffe-prune compress --weights pruned.caffemodel --bits 5% --out small.cpz
      caffe-prune convert small.cpz --out again.caffemodel
      caffe-prune inspect small.cpz --storage
      caffe-prune compress --weights lenet.caffemodel --out small.cpz \\
          --solver solvers/lenet.prototxt --data data/mnist --budget 0.1
      caffe-prune compress --weights lenet.caffemodel --out small.cpz \\
          --solver solvers/lenet.prototxt --data data/mnist --times 40
    """
    if out.resolve() in {path.resolve() for path in (weights, net) if path is not None}:
        raise PruneError(f"{out}: is an input and is not overwritten; choose another --out")
    console = table_console()
    if training is not None:
        if net or bits or hashed:
            raise click.UsageError(
                "--net, --bits and --hashed are for weights that are not trained"
            )
        if dry_run:
            show_plan(training, weights, out)
            return
        model = compress_trained(training, weights, out, console)
    else:
        definition, original = _read(weights, net)
        model = original
        if bits:
            try:
                model, keys = with_wished_bits(original, definition, bits)
            except SurgeryError as error:
                raise SurgeryError(f"{weights}: {error}") from error
            show_sharing(console, original, model, keys)
    sizes: list[int] = []
    sections = _noting(compressed_sections(model, _hashes(hashed)), sizes, weights)
    if dry_run:
        for _ in sections:
            pass
        echo(f"would write {out}, {sum(sizes):,} bytes")
    else:
        write_sections(out, sections)
        echo(f"written: {out}, {sum(sizes):,} bytes")
    show_layers(console, _by_layer(model, sizes[1:]), sizes[0])
    values = sum(blob.size for _, blob in model.blobs())
    forms = {
        "float32 values": 4 * values,
        weights.name: weights.stat().st_size,
        f"{weights.name}, zipped": zipped_size(weights),
        "sparse (.sparse.npz)": sparse_size(model),
    }
    show_forms(console, forms, sum(sizes))


def _hashes(texts: tuple[str, ...]) -> dict[BlobKey, Hash]:
    found = [_HASHED.fullmatch(text) for text in texts]
    for text, told in zip(texts, found, strict=True):
        if told is None:
            raise click.BadParameter(
                f"'{text}' is not LAYER=BUCKETS:SEED, ip1=29400:65536 say", param_hint="--hashed"
            )
    return {(told[1], 0): Hash(int(told[2]), int(told[3])) for told in found if told}


def _read(weights: Path, net: Path | None) -> tuple[NetParameter | None, Caffemodel]:
    """The net, if one is given, and the weights, which then have definitions."""
    if net is None:
        return None, read_weights(weights)
    try:
        return read_model(net, weights, StateWish())
    except SurgeryError as error:
        raise SurgeryError(f"{weights} with {net}: {error}") from error


def _noting(
    sections: Iterator[list[Piece]], sizes: list[int], weights: Path
) -> Iterator[list[Piece]]:
    """The sections as they come, whose sizes are noted; errors get the file's name."""
    try:
        for pieces in sections:
            sizes.append(size_of(pieces))
            yield pieces
    except FormatError as error:
        raise FormatError(f"{weights}: {error}") from error


def _by_layer(model: Caffemodel, sizes: list[int]) -> list[LayerBytes]:
    left = iter(sizes)
    return [
        LayerBytes(
            layer.name,
            sum(blob.size for blob in layer.blobs),
            sum(int((blob != 0).sum()) for blob in layer.blobs),
            sum(next(left) for _ in layer.blobs),
        )
        for layer in model.layers
        if layer.blobs
    ]
