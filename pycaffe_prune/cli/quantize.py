"""``caffe-prune quantize``: put the weights of a model on few levels, file to file."""

from collections.abc import Mapping
from pathlib import Path

import click
import numpy as np
from rich.table import Table

from pycaffe_prune.cli.options import state_options
from pycaffe_prune.cli.prune.layer_values import layer_wishes
from pycaffe_prune.cli.prune.options import layers_option, model_options
from pycaffe_prune.cli.prune.output import naming_inputs, read_model, show_left_out
from pycaffe_prune.cli.tables import table_console
from pycaffe_prune.formats.caffemodel import BlobKey, Caffemodel, write_caffemodel
from pycaffe_prune.formats.prototxt import read_net, write_prototxt
from pycaffe_prune.net.state_wish import StateWish, of_chosen_state, with_state_of
from pycaffe_prune.pruning.few_bits import LevelRule, level_rule, with_few_bits
from pycaffe_prune.pruning.selection import chooses_all, connection_layers
from pycaffe_prune.pruning.sharing import first_of_each, shared_blobs
from pycaffe_prune.pruning.weight_blobs import left_out_of_connections, weights_of
from pycaffe_prune.screen import echo

__all__ = ["quantize", "read_rule"]


def read_rule(text: str, whole: str) -> LevelRule:
    """Return the rule that ``text`` tells, a part of the value ``whole`` of an option.

    Raises:
        click.BadParameter: It tells none.
    """
    try:
        return level_rule(text)
    except ValueError as error:
        raise click.BadParameter(f"{whole}: {error}") from None


@click.command()
@model_options("Caffemodel to put on few levels.", "Folder for the model.")
@click.option(
    "--levels",
    multiple=True,
    required=True,
    metavar="RULE | LAYER=RULE",
    help="1bits to 8bits (least squared error), 3bits:min-max, binary or ternary.",
)
@layers_option("RULE")
@click.option(
    "--keep-zeros", is_flag=True, help="Zeros (of a pruned model) stay, and count for no level."
)
@click.option("--dry-run", is_flag=True, help="Show the levels and write nothing.")
@state_options
@naming_inputs
def quantize(
    net: Path,
    weights: Path,
    levels: tuple[str, ...],
    out: Path,
    layers: str,
    keep_zeros: bool,
    dry_run: bool,
    state: StateWish,
) -> None:
    """Put weights on few levels; write net.prototxt and quantized.caffemodel.

    Each layer's levels come from its own weights (docs/few-bits.md). Biases stay. The model is a
    stock one of as many bytes. What it loses is won back by `train --quantize`, which trains
    with the weights on their levels.

    \b
    Examples:
      caffe-prune quantize --net train_val.prototxt --weights final.caffemodel \\
          --levels 3bits --out few
      caffe-prune quantize --net train_val.prototxt --weights pruned.caffemodel --keep-zeros \\
          --layers all --levels 4bits --levels 'conv*=8bits' --levels ip2=ternary --out few
    """
    definition, model = read_model(net, weights, state)
    candidates = of_chosen_state(connection_layers(definition, model), definition, state)
    left_out = left_out_of_connections(definition, model)
    rules = layer_wishes(levels, candidates, layers, read_rule, left_out)
    shared = shared_blobs(definition)
    keys = first_of_each(shared, weights_of(rules, dict(candidates), model))
    wanted = {key: rules[key[0]] for key in keys}
    moved = with_few_bits(model, wanted, shared, keeps_zeros=keep_zeros)
    _show(wanted, model, moved)
    if chooses_all(layers):
        show_left_out(of_chosen_state(list(left_out.items()), definition, state), definition)
    if dry_run:
        return
    write_prototxt(out / "net.prototxt", with_state_of(definition, read_net(net)))
    write_caffemodel(out / "quantized.caffemodel", moved)
    echo(f"written to {out}")


def _show(rules: Mapping[BlobKey, LevelRule], before: Caffemodel, after: Caffemodel) -> None:
    table = Table()
    table.add_column("layer")
    table.add_column("rule")
    for column in ("weights", "zeros", "levels", "error %"):
        table.add_column(column, justify="right")
    for (layer, index), rule in rules.items():
        old, new = (model.layer(layer).blobs[index] for model in (before, after))
        size = float(np.square(old, dtype=np.float64).sum())
        lost = float(np.square(old - new, dtype=np.float64).sum())
        zeros = new.size - int(np.count_nonzero(new))
        error = 100 * np.sqrt(lost / size) if size else 0.0
        counts = (f"{new.size:,}", f"{zeros:,}", f"{len(np.unique(new))}", f"{error:.2f}")
        table.add_row(layer, rule.told, *counts)
    table_console().print(table)
    echo("levels: different values; error: root of the squared error, of that of the weights")
