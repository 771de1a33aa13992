"""``--bits`` of ``caffe-prune compress``: weights share few values first, which loses some."""

from collections.abc import Sequence
from functools import partial

import click
import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from pycaffe_prune.cli.prune.layer_values import layer_wishes
from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import BlobKey, Caffemodel
from pycaffe_prune.pruning.model_sharing import Share, share_within, shared_model, sharing_error
from pycaffe_prune.pruning.selection import connection_layers
from pycaffe_prune.pruning.shared_weights import MOST_BITS, share
from pycaffe_prune.pruning.sharing import first_of_each, shared_blobs
from pycaffe_prune.pruning.weight_blobs import left_out_of_connections, weights_of

__all__ = ["show_sharing", "with_wished_bits"]


def with_wished_bits(
    model: Caffemodel, net: NetParameter | None, texts: Sequence[str]
) -> tuple[Caffemodel, list[BlobKey]]:
    """Return the model whose weights share as few values as ``--bits`` says, and which blobs do.

    Args:
        model: The weights.
        net: Their net; None: what the file of weights says of it.
        texts: The option's values.

    Raises:
        SurgeryError: The file says no types of layers, a layer is none that has weights, a weight
            is not finite, or layers that share a blob have different ones.
        click.BadParameter: A text is no wish.
    """
    if net is None:
        net = NetParameter(layer=[layer.param for layer in model.layers])
        if not any(layer.type for layer in net.layer):
            raise SurgeryError(
                "the file of weights says no types of layers, and --bits is for weights, not for "
                "biases; give the prototxt with --net"
            )
    candidates = connection_layers(net, model)
    left_out = left_out_of_connections(net, model)
    wishes = layer_wishes(texts, candidates, None, _share, left_out)
    shared = shared_blobs(net)
    keys = first_of_each(shared, weights_of(wishes, dict(candidates), model))
    return shared_model(model, {key: wishes[key[0]] for key in keys}, shared), keys


def _share(text: str, whole: str) -> Share:
    if text.isascii() and text.isdecimal() and 1 <= int(text) <= MOST_BITS:
        return partial(share, bits=int(text))
    try:
        error = float(text.removesuffix("%")) / 100 if text.endswith("%") else np.nan
    except ValueError:
        error = np.nan
    if not 0 <= error <= 1:
        raise click.BadParameter(
            f"'{whole}' is none of 1 to {MOST_BITS} bits, an error of 0% to 100%, and LAYER= with "
            "one of these"
        )
    return partial(share_within, error=error)


def show_sharing(
    console: Console, before: Caffemodel, after: Caffemodel, keys: Sequence[BlobKey]
) -> None:
    """Print what the layers lose by sharing values."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("layer", overflow="fold")
    for column in ("weights", "non-zero", "values", "error %"):
        table.add_column(column, justify="right", no_wrap=True)
    old, new = dict(before.blobs()), dict(after.blobs())
    for key in keys:
        kept = new[key][new[key] != 0]
        counts = (f"{new[key].size:,}", f"{kept.size:,}", f"{np.unique(kept).size:,}")
        error = 100 * sharing_error(old[key], new[key])
        table.add_row(key[0] if not key[1] else f"{key[0]}/{key[1]}", *counts, f"{error:.2f}")
    console.print(table)
    console.print(
        "values: different ones that are not zero; error: root of the squared error, of that of "
        "the weights\n",
        soft_wrap=True,
    )
