"""``caffe-prune prune connections``: zero small weights and write their mask."""

from collections.abc import Sequence
from pathlib import Path

import click

from pycaffe_prune.cli.options import path_type
from pycaffe_prune.cli.prune_output import chosen_layers, show_reductions, write_model
from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, read_caffemodel
from pycaffe_prune.formats.files import sha256_of
from pycaffe_prune.formats.mask import MaskFile, read_mask, write_mask
from pycaffe_prune.formats.prototxt import read_net
from pycaffe_prune.pruning.connections import (
    DEFAULT_SIGMA_RULE,
    SigmaRule,
    prune_connections,
    thresholds,
)
from pycaffe_prune.pruning.counts import masked_reduction, weight_layers
from pycaffe_prune.pruning.units import unit_weights

__all__ = ["connections"]


@click.command()
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
    names = chosen_layers(layers, weight_layers(model))
    _require_fit(definition, model, names)
    earlier = read_mask(mask).masks if mask else None
    first = read_caffemodel(original) if original else model
    rule = SigmaRule(sigma)
    limits = thresholds(first, model, alpha, names, masks=earlier, rule=rule)
    pruned, masks = prune_connections(model, limits, earlier)
    show_reductions(masked_reduction(masks))
    if dry_run:
        return
    parameters = {
        "alpha": alpha,
        "sigma": rule.value,
        "thresholds": {f"{name}/{index}": limit for (name, index), limit in limits.items()},
    }
    # The checksum first: --weights may be the very file that is replaced.
    mask_file = MaskFile(masks, sha256_of(weights), "threshold", parameters)
    write_model(out, definition, pruned)
    write_mask(out / "kept.mask.h5", mask_file)
    click.echo(f"written to {out}")


def _require_fit(net: NetParameter, model: Caffemodel, names: Sequence[str]) -> None:
    types = {layer.name: layer.type for layer in net.layer}
    for name in names:
        if name not in types:
            raise SurgeryError(f"the net has no layer '{name}'; it has {', '.join(sorted(types))}")
        if types[name] == "InnerProduct":
            unit_weights(net, model, name)
