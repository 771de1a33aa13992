"""A whole model whose layers' weights share few values."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.blobs import Blob
from pycaffe_prune.formats.caffemodel import BlobKey, Caffemodel
from pycaffe_prune.pruning.shared_weights import Init, share, with_shared
from pycaffe_prune.pruning.sharing import SharedBlobs, require_equal_blobs

__all__ = ["SharedLayer", "share_layers"]


@dataclass(frozen=True)
class SharedLayer:
    """What became of one blob."""

    key: BlobKey
    weights: int
    survivors: int
    """Those that are not zero."""
    bits: int
    values: int
    """How many different ones the survivors have: at most 2^bits."""
    mean_squared_error: float
    """Of the survivors; 0 where there are none."""


def share_layers(
    model: Caffemodel,
    bits: Mapping[BlobKey, int],
    shared: SharedBlobs,
    init: Init = "linear",
    seed: int = 0,
) -> tuple[Caffemodel, list[SharedLayer]]:
    """Let the weights of some blobs share at most 2^bits values for each blob (`share`).

    Args:
        model: The weights; those that are zero stay so.
        bits: Of each blob; of blobs that are the same memory in Caffe it names one.
        shared: What the net's layers share: all get the values of the one.
        init: Where the centroids begin.
        seed: Of the lot, for ``init="random"``.

    Raises:
        SurgeryError: A weight is NaN or infinite, or blobs that layers share hold different ones.
        FormatError: A layer is not in the model.
    """
    require_equal_blobs(shared, model, bits)
    held = dict(model.blobs())
    blobs: dict[BlobKey, Blob] = {}
    told: list[SharedLayer] = []
    for key, count in bits.items():
        weights = model.layer(key[0]).blobs[key[1]]
        try:
            sharing = share(weights, count, init, seed)
        except SurgeryError as error:
            raise SurgeryError(f"layer '{key[0]}', blob {key[1]}: {error}") from error
        moved = with_shared(weights, sharing)
        same = (other for other in shared.get(key, (key,)) if other in held)
        blobs |= {other: moved.reshape(held[other].shape) for other in same}
        alive = weights[weights != 0].astype(np.float64)
        errors = np.square(alive - sharing.codebook[sharing.codes])
        mean = float(errors.mean()) if alive.size else 0.0
        told.append(SharedLayer(key, weights.size, alive.size, count, len(sharing.codebook), mean))
    return model.with_blobs(blobs), told
