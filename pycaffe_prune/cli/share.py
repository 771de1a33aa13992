"""``caffe-prune share``: let the weights of each layer share few values, file to file."""

from collections.abc import Sequence
from pathlib import Path

import click
from rich.table import Table

from pycaffe_prune.cli.options import state_options
from pycaffe_prune.cli.prune.layer_values import layer_wishes
from pycaffe_prune.cli.prune.options import layers_option, model_options
from pycaffe_prune.cli.prune.output import naming_inputs, read_model, show_left_out
from pycaffe_prune.cli.tables import table_console
from pycaffe_prune.formats.caffemodel import write_caffemodel
from pycaffe_prune.formats.prototxt import read_net, write_prototxt
from pycaffe_prune.net.state_wish import StateWish, of_chosen_state, with_state_of
from pycaffe_prune.pruning.selection import chooses_all, connection_layers
from pycaffe_prune.pruning.shared_layers import SharedLayer, share_layers
from pycaffe_prune.pruning.shared_weights import INITS, MOST_BITS, Init
from pycaffe_prune.pruning.sharing import first_of_each, shared_blobs
from pycaffe_prune.pruning.weight_blobs import left_out_of_connections, weights_of
from pycaffe_prune.screen import echo

__all__ = ["share"]


def _bits(text: str, whole: str) -> int:
    if text.isascii() and text.isdigit() and 1 <= int(text) <= MOST_BITS:
        return int(text)
    raise click.BadParameter(f"'{whole}' tells no number of bits from 1 to {MOST_BITS}")


@click.command()
@model_options("Caffemodel, pruned or not.", "Folder for the model.")
@click.option(
    "--bits",
    multiple=True,
    required=True,
    metavar="B | LAYER=B",
    help="2^B values at most: in all chosen layers, or in one (that one wins).",
)
@layers_option("B")
@click.option(
    "--init",
    type=click.Choice(INITS),
    default="linear",
    show_default=True,
    help="Where values begin: at equal distances, with equally many weights each, or by lot.",
)
@click.option("--seed", type=click.IntRange(0), help="For --init random (default: 0).")
@click.option("--dry-run", is_flag=True, help="Show the table and write nothing.")
@state_options
@naming_inputs
def share(
    net: Path,
    weights: Path,
    bits: tuple[str, ...],
    out: Path,
    layers: str,
    init: Init,
    seed: int | None,
    dry_run: bool,
    state: StateWish,
) -> None:
    """Let weights share values, by k-means; write net.prototxt and shared.caffemodel.

    Weights that are zero (pruned) stay so and count for no value. Each layer has values of its own.
    Biases stay. The model is a stock one of as many bytes; `caffe-prune compress` stores it
    in few. What it loses is won back by `train --tie`, which trains the shared values.

    \b
    Examples:
      caffe-prune share --net train_val.prototxt --weights pruned.caffemodel --bits 5 --out shared
      caffe-prune share --net train_val.prototxt --weights pruned.caffemodel --layers all \\
          --bits 5 --bits 'conv*=8' --out shared
    """
    if seed is not None and init != "random":
        raise click.UsageError("--seed goes with --init random")
    definition, model = read_model(net, weights, state)
    candidates = of_chosen_state(connection_layers(definition, model), definition, state)
    left_out = left_out_of_connections(definition, model)
    wished = layer_wishes(bits, candidates, layers, _bits, left_out)
    same = shared_blobs(definition)
    keys = first_of_each(same, weights_of(wished, dict(candidates), model))
    moved, told = share_layers(model, {key: wished[key[0]] for key in keys}, same, init, seed or 0)
    _show(told)
    if chooses_all(layers):
        show_left_out(of_chosen_state(list(left_out.items()), definition, state), definition)
    if dry_run:
        return
    write_prototxt(out / "net.prototxt", with_state_of(definition, read_net(net)))
    write_caffemodel(out / "shared.caffemodel", moved)
    echo(f"written to {out}")


def _show(layers: Sequence[SharedLayer]) -> None:
    table = Table()
    table.add_column("layer")
    for column in ("weights", "not zero", "bits", "values", "mean squared error"):
        table.add_column(column, justify="right")
    for layer in layers:
        name, index = layer.key
        counts = (layer.weights, layer.survivors, layer.bits, layer.values)
        table.add_row(
            f"{name}/{index}" if index else name,
            *(f"{count:,}" for count in counts),
            f"{layer.mean_squared_error:.4g}",
        )
    table_console().print(table)
