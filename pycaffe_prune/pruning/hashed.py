"""HashedNets (Chen et al. 2015): the weights of a layer are few values with signs, by a hash.

Which value a weight has is not stored: it follows from its place (`formats.hashed`). A training
ties the weights of a bucket, and leaves signs as they are.
"""

from collections.abc import Mapping

import numpy as np

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.blobs import Blob
from pycaffe_prune.formats.caffemodel import BlobKey, Caffemodel
from pycaffe_prune.formats.compressed.blobs import Hash
from pycaffe_prune.formats.hashed import MAX_SEED, buckets_and_signs, hashed_blob

__all__ = ["bucket_count", "hash_weights", "layer_seed"]


def bucket_count(weights: int, compression: float) -> int:
    """Return how many buckets a layer has: the nearest whole number to weights * compression.

    Args:
        weights: The layer's, 1 or more.
        compression: Above 0, at most 1.
    """
    return max(1, round(weights * compression))


def layer_seed(seed: int, place: int) -> int:
    """Return the hash's seed for the layer in a place, so that no two layers are hashed alike."""
    return ((seed << 16) + place) & MAX_SEED


def hash_weights(model: Caffemodel, hashes: Mapping[BlobKey, Hash]) -> Caffemodel:
    """Give each bucket the value of its first weight, and each weight its bucket's value and sign.

    What is drawn by a filler keeps its distribution so. Values that are equal in magnitude are
    moved apart to the next float32: by their magnitudes a training knows buckets apart.

    Args:
        model: The weights.
        hashes: Of the blobs that are hashed.

    Raises:
        FormatError: A layer is not in the model.
        SurgeryError: All weights of a blob are of one magnitude.
    """
    moved = {}
    for key, (count, seed) in hashes.items():
        blob = model.layer(key[0]).blobs[key[1]]
        places, signs = buckets_and_signs(blob.size, count, seed)
        values = np.zeros(count, np.float32)
        values[places[::-1]] = (blob.reshape(-1) * signs)[::-1]  # of equal places the last counts
        filled = np.unique(places)
        values[filled] = _apart(values[filled], key)
        moved[key] = hashed_blob(values, blob.shape, seed)
    return model.with_blobs(moved)


def _apart(values: Blob, key: BlobKey) -> Blob:
    """The values with magnitudes that differ and are not 0, moved as little as can be."""
    order = np.argsort(np.abs(values), kind="stable")
    bits = np.abs(values[order]).view(np.int32).astype(np.int64)
    rising = np.arange(bits.size)
    # The least sequence above these that rises by 1 or more; bits of magnitudes rise as they do.
    apart = np.maximum.accumulate(np.maximum(bits, 1) - rising) + rising
    if bits.size > 1 and bits[0] == bits[-1]:
        raise SurgeryError(
            f"layer '{key[0]}', blob {key[1]}: all weights are of one magnitude, and buckets have "
            "nothing to differ by; give the layer a filler that draws at random"
        )
    found = np.empty_like(values)
    found[order] = apart.astype(np.int32).view(np.float32)
    return np.copysign(found, values)
