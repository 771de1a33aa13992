"""``caffe-prune prune connections``: zero small weights and write their mask."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from pycaffe_prune.cli.options import path_type, state_options
from pycaffe_prune.cli.prune.layer_values import layer_values
from pycaffe_prune.cli.prune.output import (
    naming_inputs,
    read_model,
    show_left_out,
    show_reductions,
    write_model,
)
from pycaffe_prune.formats.caffemodel import BlobKey, Caffemodel
from pycaffe_prune.formats.files import sha256_of
from pycaffe_prune.formats.mask import Mask, MaskFile, read_mask, write_mask
from pycaffe_prune.formats.weights import read_weights
from pycaffe_prune.net.state_wish import StateWish, of_chosen_state
from pycaffe_prune.pruning.connections import (
    DEFAULT_SIGMA_RULE,
    SigmaRule,
    apply_masks,
    global_thresholds,
    layer_thresholds,
    prune_connections,
    prune_to_global_ratio,
    prune_to_ratios,
    resulting_thresholds,
)
from pycaffe_prune.pruning.counts import masked_reduction, require_finite
from pycaffe_prune.pruning.selection import chooses_all, connection_layers, select_layers
from pycaffe_prune.pruning.sharing import (
    first_of_each,
    masks_for_all,
    require_equal_blobs,
    shared_blobs,
)
from pycaffe_prune.pruning.weight_blobs import left_out_of_connections, weights_of
from pycaffe_prune.screen import echo

__all__ = ["connections"]

_LAYER, _GLOBAL = "layer", "global"


@click.command()
@click.option("--net", type=path_type, required=True, help="Net prototxt of the weights.")
@click.option("--weights", type=path_type, required=True, help="Caffemodel to prune.")
@click.option(
    "--alpha",
    "alphas",
    multiple=True,
    metavar="A | LAYER=A",
    help="Prune where |w| < A * sigma: in all chosen layers, or in one (that one wins).",
)
@click.option(
    "--ratio",
    "ratios",
    multiple=True,
    metavar="R | LAYER=R",
    help="Instead: prune this share of the weights, 0 to 1, lowest |w| first.",
)
@click.option(
    "--mask-zeros", is_flag=True, help="Instead: the mask of the weights that are zero already."
)
@click.option("--out", type=path_type, required=True, help="Folder for the pruned model.")
@click.option(
    "--layers",
    default="InnerProduct",
    show_default=True,
    help="Comma-separated names, patterns (conv*), types (Convolution), or all.",
)
@click.option(
    "--scope",
    type=click.Choice([_LAYER, _GLOBAL]),
    default=_LAYER,
    show_default=True,
    help="One threshold for each layer, or one for all chosen layers together.",
)
@click.option(
    "--sigma",
    type=click.Choice([rule.value for rule in SigmaRule]),  # from members click takes the names
    help="Sigma of: the original (the default), all weights now, survivors now.",
)
@click.option("--mask", type=path_type, help="Mask of the round before; pruned stays pruned.")
@click.option(
    "--original",
    type=path_type,
    help="Trained, unpruned caffemodel for --sigma initial (default: --weights).",
)
@click.option("--dry-run", is_flag=True, help="Show the reductions and write nothing.")
@state_options
@naming_inputs
def connections(
    net: Path,
    weights: Path,
    alphas: tuple[str, ...],
    ratios: tuple[str, ...],
    mask_zeros: bool,
    out: Path,
    layers: str,
    scope: str,
    sigma: str | None,
    mask: Path | None,
    original: Path | None,
    dry_run: bool,
    state: StateWish,
) -> None:
    """Zero small weights; write net.prototxt, pruned.caffemodel and kept.mask.h5.

    Sigma is the standard deviation of each layer's weights in the trained, unpruned network; in
    later rounds give that network as --original and the last mask as --mask. With --ratio, what the
    last mask pruned counts. --mask-zeros changes no weight: with its mask, `train --mask` keeps the
    zeros of a sparse model that came without one.

    \b
    Examples:
      caffe-prune prune connections --net train_val.prototxt --weights final.caffemodel \\
          --alpha 1.5 --out pruned
      caffe-prune prune connections --net train_val.prototxt --weights retrained.caffemodel \\
          --alpha 1.5 --original final.caffemodel --mask pruned/kept.mask.h5 --out round2
      caffe-prune prune connections --net train_val.prototxt --weights final.caffemodel \\
          --layers all --ratio 0.9 --ratio 'conv*=0.5' --out pruned
      caffe-prune prune connections --net train_val.prototxt --weights final.caffemodel \\
          --layers all --ratio 0.9 --scope global --out pruned
      caffe-prune prune connections --net train_val.prototxt --weights sparse.caffemodel \\
          --layers all --mask-zeros --out masked
    """
    if mask_zeros:
        _require_zeros_alone(alphas or ratios, scope, sigma, original)
    else:
        _require_consistent(alphas, ratios, scope, sigma, mask, original)
    definition, model = read_model(net, weights, state)
    candidates = of_chosen_state(connection_layers(definition, model), definition, state)
    left_out = left_out_of_connections(definition, model)
    if mask_zeros:
        values = dict.fromkeys(select_layers(candidates, layers, left_out), 0.0)
    else:
        values = layer_values(alphas or ratios, candidates, layers, left_out)
    shared = shared_blobs(definition)
    keys = first_of_each(shared, weights_of(values, dict(candidates), model))
    require_equal_blobs(shared, model, keys)
    most = sum(blob.size for _, blob in model.blobs())
    earlier = masks_for_all(shared, model, read_mask(mask, most).masks) if mask else {}
    chosen = {key: values[key[0]] for key in keys}
    if mask_zeros:
        pruned = _zeros(model, keys, earlier)
    elif alphas:
        first = read_weights(original) if original else model
        rule = SigmaRule(sigma) if sigma else DEFAULT_SIGMA_RULE
        pruned = _by_alpha(first, model, chosen, scope, rule, earlier)
    else:
        pruned = _by_ratio(model, chosen, scope, earlier)
    masks = masks_for_all(shared, model, pruned.masks)
    counted = first_of_each(shared, masks)
    show_reductions(masked_reduction({key: masks[key] for key in counted}))
    if chooses_all(layers):
        show_left_out(of_chosen_state(list(left_out.items()), definition, state), definition)
    if ratios:
        _warn_of_zeros(model, {key: masks[key] for key in keys})
    if dry_run:
        return
    parameters = {
        **pruned.parameters,
        "scope": scope,
        "thresholds": {f"{name}/{index}": limit for (name, index), limit in pruned.limits.items()},
    }
    # The checksum first: --weights may be the very file that is replaced.
    mask_file = MaskFile(masks, sha256_of(weights), pruned.criterion, parameters)
    write_model(out, net, definition, apply_masks(model, masks))
    write_mask(out / "kept.mask.h5", mask_file)
    echo(f"written to {out}")


def _require_zeros_alone(
    values: Sequence[str], scope: str, sigma: str | None, original: Path | None
) -> None:
    if values or sigma or original or scope == _GLOBAL:
        raise click.UsageError(
            "--mask-zeros takes no --alpha, --ratio, --scope, --sigma, --original"
        )


def _warn_of_zeros(model: Caffemodel, masks: Mapping[BlobKey, Mask]) -> None:
    """Say where a ratio prunes fewer places than are zero already: the others may grow again."""
    sparse = []
    for (name, index), mask in masks.items():
        blob = model.layer(name).blobs[index]
        zeros, pruned = blob.size - int(np.count_nonzero(blob)), mask.size - int(mask.sum())
        if zeros > pruned:
            sparse.append(f"{name} ({zeros:,} of {blob.size:,} are zero, {pruned:,} are masked)")
    if sparse:
        echo(
            f"warning: more weights are zero already than the ratio prunes in {', '.join(sparse)}; "
            "those that no mask keeps at zero grow again in training: --mask-zeros masks them all",
            err=True,
        )


def _require_consistent(
    alphas: Sequence[str],
    ratios: Sequence[str],
    scope: str,
    sigma: str | None,
    mask: Path | None,
    original: Path | None,
) -> None:
    if bool(alphas) == bool(ratios):
        raise click.UsageError("give either --alpha or --ratio, or --mask-zeros")
    if ratios and (sigma or original):
        raise click.UsageError("--sigma and --original go with --alpha; a ratio needs no sigma")
    if scope == _GLOBAL and (len(alphas or ratios) > 1 or "=" in (alphas or ratios)[0]):
        raise click.UsageError("--scope global takes one value for all layers together")
    initial = (sigma or DEFAULT_SIGMA_RULE) == SigmaRule.INITIAL
    if alphas and mask is not None and original is None and initial:
        raise click.UsageError("with --mask and --sigma initial, name the unpruned --original")


@dataclass(frozen=True)
class _Pruned:
    """The masks, and what the mask file says about them."""

    masks: Mapping[BlobKey, Mask]
    criterion: str
    limits: Mapping[BlobKey, float]
    parameters: Mapping[str, Any]


def _by_alpha(
    original: Caffemodel,
    model: Caffemodel,
    alphas: Mapping[BlobKey, float],
    scope: str,
    rule: SigmaRule,
    earlier: Mapping[BlobKey, Mask],
) -> _Pruned:
    if scope == _GLOBAL:
        (alpha,) = set(alphas.values())
        limits = global_thresholds(original, model, alpha, alphas, masks=earlier, rule=rule)
    else:
        limits = layer_thresholds(original, model, alphas, masks=earlier, rule=rule)
    _, masks = prune_connections(model, limits, earlier)
    parameters = {"alpha": _one_or_each(alphas), "sigma": rule.value}
    return _Pruned(masks, "threshold", limits, parameters)


def _by_ratio(
    model: Caffemodel,
    ratios: Mapping[BlobKey, float],
    scope: str,
    earlier: Mapping[BlobKey, Mask],
) -> _Pruned:
    if scope == _GLOBAL:
        (ratio,) = set(ratios.values())
        _, masks = prune_to_global_ratio(model, ratio, ratios, earlier)
    else:
        _, masks = prune_to_ratios(model, ratios, earlier)
    limits = resulting_thresholds(model, {key: masks[key] for key in ratios})
    if scope == _GLOBAL:
        limits = dict.fromkeys(limits, min(limits.values()))
    return _Pruned(masks, "ratio", limits, {"ratio": _one_or_each(ratios)})


def _zeros(model: Caffemodel, keys: Sequence[BlobKey], earlier: Mapping[BlobKey, Mask]) -> _Pruned:
    require_finite(model, dict.fromkeys(name for name, _ in keys))
    masks = dict(earlier)
    for key in keys:
        kept = model.layer(key[0]).blobs[key[1]] != 0
        masks[key] = kept & masks.get(key, kept)
    return _Pruned(masks, "zeros", {}, {})


def _one_or_each(values: Mapping[BlobKey, float]) -> float | dict[str, float]:
    """The value, where all layers have the same, else each layer's."""
    of_layers = {name: value for (name, _), value in values.items()}
    different = set(of_layers.values())
    return different.pop() if len(different) == 1 else of_layers
