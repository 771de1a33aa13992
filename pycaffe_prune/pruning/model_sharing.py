"""Models whose layers share few values, each layer by itself: the step from files to fewer bytes.

Nothing is trained: what a layer loses is told by its weights alone. The error of a layer is the
root of the summed squares of what its weights lose, of that of the weights. To a layer whose inputs
do not know of the losses, these are noise, of which its outputs have the same share; so one error
for all layers gives each of them one ratio of signal to noise.
"""

from collections.abc import Callable, Mapping

import numpy as np

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.blobs import Blob
from pycaffe_prune.formats.caffemodel import BlobKey, Caffemodel
from pycaffe_prune.pruning.shared_weights import MOST_BITS, Sharing, share, with_shared
from pycaffe_prune.pruning.sharing import SharedBlobs, first_of_each, require_equal_blobs

__all__ = ["Share", "share_within", "shared_model", "sharing_error"]

Share = Callable[[Blob], Sharing]
"""Finds the values that a blob's weights share."""


def sharing_error(before: Blob, after: Blob) -> float:
    """Return the error of a blob: 0 is none, 1 that of weights that are all gone.

    Args:
        before: The weights, float32.
        after: Those that stand for them, of the same shape.
    """
    size = float(np.square(before, dtype=np.float64).sum())
    lost = float(np.square(before - after, dtype=np.float64).sum())
    return float(np.sqrt(lost / size)) if size else 0.0


def share_within(weights: Blob, error: float) -> Sharing:
    """Find the values of the fewest bits that cost no more than an error.

    Args:
        weights: float32, in any shape.
        error: As `sharing_error` tells it; where `MOST_BITS` cost more, they are taken.

    Raises:
        SurgeryError: A weight is NaN or infinite.
    """
    for bits in range(1, MOST_BITS):
        sharing = share(weights, bits)
        if sharing_error(weights, with_shared(weights, sharing)) <= error:
            return sharing
    return share(weights, MOST_BITS)


def shared_model(
    model: Caffemodel, wishes: Mapping[BlobKey, Share], shared: SharedBlobs
) -> Caffemodel:
    """Let blobs of a model share values, those that layers share in all of them.

    Args:
        model: The weights; those that are zero stay so.
        wishes: By blob. Of blobs that are the same memory in Caffe the first one's counts.
        shared: What the net's layers share.

    Raises:
        FormatError: A layer is not in the model.
        SurgeryError: A weight is not finite, or layers that share a blob have different ones.
    """
    keys = first_of_each(shared, wishes)
    require_equal_blobs(shared, model, keys)
    held = dict(model.blobs())
    moved = {}
    for key in keys:
        try:
            blob = with_shared(held[key], wishes[key](held[key]))
        except SurgeryError as error:
            raise SurgeryError(f"layer '{key[0]}', blob {key[1]}: {error}") from error
        for other in shared.get(key, (key,)):
            if other in held:
                moved[other] = blob.reshape(held[other].shape)
    return model.with_blobs(moved)
