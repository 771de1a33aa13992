"""``caffe-prune prune units``: delete units, write a smaller net and its weights."""

from collections.abc import Sequence
from pathlib import Path

import click

from pycaffe_prune.cli.options import path_type
from pycaffe_prune.cli.prune_output import chosen_layers, show_reductions, write_model
from pycaffe_prune.formats.caffemodel import read_caffemodel
from pycaffe_prune.formats.prototxt import read_net
from pycaffe_prune.pruning.counts import deleted_reduction, weight_layers
from pycaffe_prune.pruning.criteria.units import UNIT_CRITERIA
from pycaffe_prune.pruning.units import choose_units, delete_units, prunable_layers

__all__ = ["units"]


@click.command()
@click.option("--net", type=path_type, required=True, help="Net prototxt of the weights.")
@click.option("--weights", type=path_type, required=True, help="Caffemodel to prune.")
@click.option(
    "--ratio",
    "ratios",
    multiple=True,
    required=True,
    metavar="R | LAYER=R",
    help="Share of units to delete: of all prunable layers, or of one (that one wins).",
)
@click.option("--out", type=path_type, required=True, help="Folder for the smaller model.")
@click.option(
    "--criterion", type=click.Choice(sorted(UNIT_CRITERIA)), default="onorm", show_default=True
)
@click.option("--layers", help="Comma-separated; restricts a plain R to these layers.")
@click.option("--seed", type=int, default=0, show_default=True, help="For --criterion random.")
@click.option("--dry-run", is_flag=True, help="Show the reductions and write nothing.")
def units(
    net: Path,
    weights: Path,
    ratios: tuple[str, ...],
    out: Path,
    criterion: str,
    layers: str | None,
    seed: int,
    dry_run: bool,
) -> None:
    """Delete the units with the lowest score; write a smaller net.prototxt and pruned.caffemodel.

    \b
    Examples:
      caffe-prune prune units --net train_val.prototxt --weights final.caffemodel \\
          --ratio 0.5 --out half
      caffe-prune prune units --net train_val.prototxt --weights final.caffemodel \\
          --ratio ip1=0.9 --ratio ip2=0.5 --out smaller
    """
    definition, model = read_net(net), read_caffemodel(weights)
    names = chosen_layers(layers, prunable_layers(definition))
    kept = choose_units(
        definition, model, _parse_ratios(ratios, names), criterion=criterion, seed=seed
    )
    small_net, small = delete_units(definition, model, kept)
    show_reductions(deleted_reduction(model, small, weight_layers(model)))
    for name, keep in kept.items():
        click.echo(f"{name}: {int(keep.sum())} of {keep.size} units kept")
    if not dry_run:
        write_model(out, small_net, small)
        click.echo(f"written to {out}")


def _parse_ratios(ratios: Sequence[str], names: Sequence[str]) -> dict[str, float]:
    plain: dict[str, float] = {}
    named: dict[str, float] = {}
    for text in ratios:
        layer, equals, value = text.rpartition("=")
        try:
            share = float(value)
        except ValueError:
            raise click.BadParameter(f"'{text}' is neither R nor LAYER=R") from None
        if equals:
            named[layer] = share
        else:
            plain = dict.fromkeys(names, share)
    return plain | named
