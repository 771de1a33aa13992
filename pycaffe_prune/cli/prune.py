"""``caffe-prune prune``: connections or units of a model, files to files."""

from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from pycaffe_prune.cli.options import path_type
from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, read_caffemodel, write_caffemodel
from pycaffe_prune.formats.files import sha256_of
from pycaffe_prune.formats.mask import MaskFile, read_mask, write_mask
from pycaffe_prune.formats.prototxt import read_net, write_prototxt
from pycaffe_prune.pruning.connections import (
    DEFAULT_SIGMA_RULE,
    SigmaRule,
    prune_connections,
    thresholds,
)
from pycaffe_prune.pruning.counts import (
    LayerReduction,
    deleted_reduction,
    masked_reduction,
    overall,
    weight_layers,
)
from pycaffe_prune.pruning.criteria.units import UNIT_CRITERIA
from pycaffe_prune.pruning.units import (
    choose_units,
    delete_units,
    prunable_layers,
    unit_weights,
)


@click.group()
def prune() -> None:
    """Prune connections (zeros and a mask) or units (a smaller net)."""


@prune.command()
@click.option("--net", type=path_type, required=True, help="Net prototxt of the weights.")
@click.option("--weights", type=path_type, required=True, help="Caffemodel to prune.")
@click.option("--alpha", type=float, required=True, help="Prune where |w| < alpha * sigma.")
@click.option("--out", type=path_type, required=True, help="Folder for the pruned model.")
@click.option("--layers", help="Comma-separated; default: all InnerProduct layers.")
@click.option(
    "--sigma",
    type=click.Choice([rule.value for rule in SigmaRule]),  # from members click takes the names
    default=DEFAULT_SIGMA_RULE.value,
    show_default=True,
    help="Sigma of: the original, all weights now, survivors now.",
)
@click.option("--mask", type=path_type, help="Mask of the round before; pruned stays pruned.")
@click.option(
    "--original",
    type=path_type,
    help="Trained, unpruned caffemodel for --sigma initial (default: --weights).",
)
@click.option("--dry-run", is_flag=True, help="Show the reductions and write nothing.")
def connections(
    net: Path,
    weights: Path,
    alpha: float,
    out: Path,
    layers: str | None,
    sigma: str,
    mask: Path | None,
    original: Path | None,
    dry_run: bool,
) -> None:
    """Zero small weights; write net.prototxt, pruned.caffemodel and kept.mask.h5.

    Sigma is the standard deviation of each layer's weights in the trained, unpruned network; in
    later rounds give that network as --original and the last mask as --mask.

    \b
    Examples:
      caffe-prune prune connections --net train_val.prototxt --weights final.caffemodel \\
          --alpha 1.5 --out pruned
      caffe-prune prune connections --net train_val.prototxt --weights retrained.caffemodel \\
          --alpha 1.5 --original final.caffemodel --mask pruned/kept.mask.h5 --out round2
    """
    if mask is not None and original is None and sigma == SigmaRule.INITIAL:
        raise click.UsageError("with --mask and --sigma initial, name the unpruned --original")
    definition, model = read_net(net), read_caffemodel(weights)
    names = _chosen(layers, weight_layers(model))
    _require_fit(definition, model, names)
    earlier = read_mask(mask).masks if mask else None
    first = read_caffemodel(original) if original else model
    rule = SigmaRule(sigma)
    limits = thresholds(first, model, alpha, names, masks=earlier, rule=rule)
    pruned, masks = prune_connections(model, limits, earlier)
    _show(masked_reduction(masks))
    if dry_run:
        return
    parameters = {
        "alpha": alpha,
        "sigma": rule.value,
        "thresholds": {f"{name}/{index}": limit for (name, index), limit in limits.items()},
    }
    # The checksum first: --weights may be the very file that is replaced.
    mask_file = MaskFile(masks, sha256_of(weights), "threshold", parameters)
    _write(out, definition, pruned)
    write_mask(out / "kept.mask.h5", mask_file)
    click.echo(f"written to {out}")


@prune.command()
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
    names = _chosen(layers, prunable_layers(definition))
    kept = choose_units(
        definition, model, _parse_ratios(ratios, names), criterion=criterion, seed=seed
    )
    small_net, small = delete_units(definition, model, kept)
    _show(deleted_reduction(model, small, weight_layers(model)))
    for name, keep in kept.items():
        click.echo(f"{name}: {int(keep.sum())} of {keep.size} units kept")
    if not dry_run:
        _write(out, small_net, small)
        click.echo(f"written to {out}")


def _chosen(layers: str | None, default: Sequence[str]) -> list[str]:
    if layers is None:
        if not default:
            raise SurgeryError("the net has no layer that can be pruned so")
        return list(default)
    return [name.strip() for name in layers.split(",")]


def _require_fit(net: NetParameter, model: Caffemodel, names: Sequence[str]) -> None:
    types = {layer.name: layer.type for layer in net.layer}
    for name in names:
        if name not in types:
            raise SurgeryError(f"the net has no layer '{name}'; it has {', '.join(sorted(types))}")
        if types[name] == "InnerProduct":
            unit_weights(net, model, name)


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


def _show(rows: Sequence[LayerReduction]) -> None:
    table = Table()
    table.add_column("layer")
    for column in ("weights", "kept", "reduction %"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(row.layer, f"{row.weights:,}", f"{row.kept:,}", f"{100 * row.reduction:.2f}")
    table.add_section()
    weights, kept = sum(row.weights for row in rows), sum(row.kept for row in rows)
    table.add_row("all", f"{weights:,}", f"{kept:,}", f"{100 * overall(rows):.2f}")
    Console(markup=False, emoji=False).print(table)  # a layer may be called [anything]


def _write(out: Path, net: NetParameter, model: Caffemodel) -> None:
    write_prototxt(out / "net.prototxt", net)
    write_caffemodel(out / "pruned.caffemodel", model)
