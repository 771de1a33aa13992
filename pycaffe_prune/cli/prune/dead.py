"""``caffe-prune prune dead``: delete the units that connection pruning left without effect."""

from collections.abc import Mapping
from pathlib import Path

import click
import numpy as np

from pycaffe_prune.cli.options import path_type, state_options
from pycaffe_prune.cli.prune.options import model_options
from pycaffe_prune.cli.prune.output import (
    naming_inputs,
    of_all_states,
    read_model,
    show_reductions,
    write_model,
)
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import BlobKey, Caffemodel
from pycaffe_prune.formats.files import sha256_of
from pycaffe_prune.formats.mask import Mask, MaskFile, read_mask, write_mask
from pycaffe_prune.net.state_wish import StateWish
from pycaffe_prune.pruning.connections import apply_masks
from pycaffe_prune.pruning.counts import deleted_reduction
from pycaffe_prune.pruning.dead import Alive, delete_dead, unread_inputs
from pycaffe_prune.pruning.sharing import masks_for_all, one_of_each, shared_blobs
from pycaffe_prune.pruning.units import delete_units
from pycaffe_prune.screen import echo

__all__ = ["dead"]


@click.command()
@model_options("Weights with zeros, in any form.", "Folder for the smaller model.")
@click.option("--mask", type=path_type, help="Their mask: it is applied, and shrinks with them.")
@click.option("--dry-run", is_flag=True, help="Show what would go and write nothing.")
@state_options
@naming_inputs
def dead(
    net: Path, weights: Path, mask: Path | None, out: Path, dry_run: bool, state: StateWish
) -> None:
    """Delete units without a connection in or out; write a smaller net.prototxt and its weights.

    The smaller model is a stock dense one and puts out what the given one does in the phase TEST: a
    unit whose incoming weights are all zero is a constant, which goes into the biases of the layers
    that read it. With --mask, kept.mask.h5 for the smaller model is written too.

    \b
    Examples:
      caffe-prune prune dead --net train_val.prototxt --weights pruned/pruned.caffemodel \\
          --mask pruned/kept.mask.h5 --out smaller
      caffe-prune prune dead --net deploy.prototxt --weights sparse.caffemodel --out small \\
          --dry-run
    """
    definition, model = read_model(net, weights, state)
    whole = of_all_states(net, definition, model)
    masks = _masks(whole, model, mask)
    sparse = apply_masks(model, masks)
    alive = delete_dead(whole, sparse)
    _show(whole, sparse, alive)
    if dry_run:
        return
    source = sha256_of(weights)  # before --weights, which may be the very file that is replaced
    write_model(out, net, alive.net, alive.model)
    if mask is not None:
        parameters = {"criterion": read_mask(mask).criterion}
        small = _smaller_masks(alive, masks)
        write_mask(out / "kept.mask.h5", MaskFile(small, source, "dead", parameters))
    echo(f"written to {out}")


def _masks(net: NetParameter, model: Caffemodel, mask: Path | None) -> dict[BlobKey, Mask]:
    return masks_for_all(shared_blobs(net), model, read_mask(mask).masks) if mask else {}


def _smaller_masks(alive: Alive, masks: Mapping[BlobKey, Mask]) -> dict[BlobKey, Mask]:
    """The masks without the rows and columns of dead units: deleted as the weights' own are."""
    as_weights = alive.whole.with_blobs(
        {key: mask.astype(np.float32) for key, mask in masks.items()}
    )
    _, small = delete_units(alive.whole_net, as_weights, alive.kept)
    return {(name, index): small.layer(name).blobs[index] != 0 for name, index in masks}


def _show(net: NetParameter, model: Caffemodel, alive: Alive) -> None:
    types = {layer.name: layer.type for layer in net.layer}
    held = {layer.name for layer in model.layers if layer.blobs}
    names = one_of_each(shared_blobs(net), dict.fromkeys(n for n in alive.kept if n in held))
    rows = deleted_reduction(model, alive.model, names)
    left = {name: f"{int(kept.sum())} of {kept.size}" for name, kept in alive.kept.items()}
    show_reductions(rows, left)
    zeros = sum(int((alive.model.layer(name).blobs[0] == 0).sum()) for name in names)
    size = sum(row.kept for row in rows)
    echo(f"{zeros:,} of the {size:,} weights left are zero")
    for name, (unread, inputs) in unread_inputs(alive.net, alive.model).items():
        if unread:
            echo(
                f"{name} ({types[name]}): {unread} of its {inputs} inputs are never read; they "
                "stay, as the net's input has them"
            )
