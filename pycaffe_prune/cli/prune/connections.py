"""``caffe-prune prune connections``: zero small weights and write their mask."""

from collections.abc import Mapping
from pathlib import Path

import click
import numpy as np

from pycaffe_prune.cli.options import device_option, path_type, state_options, text_path_type
from pycaffe_prune.cli.prune.connection_masks import GLOBAL, LAYER
from pycaffe_prune.cli.prune.connection_wish import METHODS, ConnectionWish
from pycaffe_prune.cli.prune.layer_values import layer_values
from pycaffe_prune.cli.prune.options import layers_option, model_options
from pycaffe_prune.cli.prune.output import (
    naming_inputs,
    read_model,
    show_left_out,
    show_reductions,
    write_model,
)
from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffemodel import BlobKey, Caffemodel
from pycaffe_prune.formats.files import sha256_of
from pycaffe_prune.formats.mask import Mask, MaskFile, read_mask, write_mask
from pycaffe_prune.net.state_wish import StateWish, of_chosen_state
from pycaffe_prune.pruning.connections import SigmaRule, apply_masks
from pycaffe_prune.pruning.counts import masked_reduction
from pycaffe_prune.pruning.rewinding import rewind
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


@click.command()
@model_options("Caffemodel to prune.", "Folder for the pruned model.")
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
    "--method",
    type=click.Choice(METHODS),
    help="How they are chosen.  [default: threshold with --alpha, magnitude with --ratio]",
)
@click.option("--seed", type=click.IntRange(0), help="For --method random (default: 0).")
@click.option(
    "--batches",
    type=click.IntRange(1),
    help="For obd and fisher: how many batches of the net's phase TRAIN (default: 100).",
)
@click.option("--data", type=text_path_type, help="For obd and fisher: folder of the net's LMDBs.")
@click.option(
    "--weight-decay",
    type=click.FloatRange(0),
    help="For obd and fisher: that of the solver, whose pull on each weight then counts, too.",
)
@device_option
@click.option(
    "--mask-zeros", is_flag=True, help="Instead: the mask of the weights that are zero already."
)
@layers_option("A or R")
@click.option(
    "--scope",
    type=click.Choice([LAYER, GLOBAL]),
    default=LAYER,
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
@click.option(
    "--rewind",
    "rewind_to",
    type=path_type,
    help="Earlier weights of the same run: what is kept goes back to its value in them.",
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
    method: str | None,
    seed: int | None,
    batches: int | None,
    data: Path | None,
    weight_decay: float | None,
    device: str,
    rewind_to: Path | None,
    dry_run: bool,
    state: StateWish,
) -> None:
    """Zero weights; write net.prototxt, pruned.caffemodel and kept.mask.h5.

    By --method: threshold, small ones; magnitude, a share of the smallest; random, a share drawn by
    lot; obd (Optimal Brain Damage) and fisher, a share by which the loss on training images rises
    least. Those two run the net's phase TRAIN with PyTorch. --rewind writes what is kept with its
    values of an earlier iteration.

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
      caffe-prune prune connections --net train_val.prototxt --weights final.caffemodel \\
          --method obd --weight-decay 0.0005 --ratio 0.9 --data data/mnist --out pruned
      caffe-prune prune connections --net train_val.prototxt --weights final.caffemodel \\
          --ratio 0.9 --rewind snapshots/snapshot_iter_500.caffemodel --out ticket
    """
    wish = ConnectionWish(
        net=net,
        weights=weights,
        alphas=alphas,
        ratios=ratios,
        mask_zeros=mask_zeros,
        method=method,
        scope=scope,
        sigma=sigma,
        mask=mask,
        original=original,
        seed=seed,
        batches=batches,
        data=data,
        weight_decay=weight_decay,
        device=device,
        state=state,
    )
    wish.require_consistent()
    definition, model = read_model(net, weights, state)
    candidates = of_chosen_state(connection_layers(definition, model), definition, state)
    left_out = left_out_of_connections(definition, model)
    if mask_zeros:
        values = dict.fromkeys(select_layers(candidates, layers, left_out), 0.0)
    else:
        values = layer_values(wish.values, candidates, layers, left_out)
    shared = shared_blobs(definition)
    keys = first_of_each(shared, weights_of(values, dict(candidates), model))
    require_equal_blobs(shared, model, keys)
    most = sum(blob.size for _, blob in model.blobs())
    earlier = masks_for_all(shared, model, read_mask(mask, most).masks) if mask else {}
    pruned = wish.choose(model, {key: values[key[0]] for key in keys}, earlier)
    masks = masks_for_all(shared, model, pruned.masks)
    sparse = _rewound(net, rewind_to, state, model, masks) if rewind_to else None
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
    write_model(out, net, definition, sparse or apply_masks(model, masks))
    write_mask(out / "kept.mask.h5", mask_file)
    echo(f"written to {out}")


def _rewound(
    net: Path, path: Path, state: StateWish, model: Caffemodel, masks: Mapping[BlobKey, Mask]
) -> Caffemodel:
    try:
        return rewind(model, read_model(net, path, state)[1], masks)
    except SurgeryError as error:
        raise SurgeryError(f"--rewind {path}: {error}") from error


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
