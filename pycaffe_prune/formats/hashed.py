"""Which bucket, and which sign, each weight of a hashed layer has (HashedNets, Chen et al. 2015).

A weight V[i, j] is a sign times one of K values, and both follow from its place. The paper takes
xxHash; here it is the output of SplitMix64 (Steele, Lea and Flood 2014) number p, from 0 on, begun
at the state ``seed``, p being the weight's place in C order:

    z = seed + (p + 1) * 0x9E3779B97F4A7C15
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB
    z = z ^ (z >> 31)

in whole numbers of 64 bits. The bucket is ((z >> 32) * K) >> 32, and the sign is minus where the
lowest bit of z is 1.
"""

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.formats.axes import Shape
from pycaffe_prune.formats.blobs import Blob

__all__ = ["MAX_BUCKETS", "MAX_SEED", "bucket_values", "buckets_and_signs", "hashed_blob"]

MAX_BUCKETS = 2**32 - 1
MAX_SEED = 2**64 - 1


def buckets_and_signs(
    size: int, buckets: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the bucket and the sign (1 or -1) of each of ``size`` weights in C order.

    Args:
        size: How many weights there are.
        buckets: K, 1 to `MAX_BUCKETS`.
        seed: 0 to `MAX_SEED`.
    """
    z = np.arange(1, size + 1, dtype=np.uint64)
    z *= np.uint64(0x9E3779B97F4A7C15)
    z += np.uint64(seed)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z ^= z >> np.uint64(shift)
        z *= np.uint64(factor)
    z ^= z >> np.uint64(31)
    signs = np.where(z & np.uint64(1), np.float32(-1), np.float32(1))
    places = ((z >> np.uint64(32)) * np.uint64(buckets)) >> np.uint64(32)
    return places.astype(np.int64), signs


def hashed_blob(values: Blob, shape: Shape, seed: int) -> Blob:
    """Return the weights that K values stand for.

    Args:
        values: Shape (K,), float32.
        shape: Of the weights.
        seed: Of the hash.
    """
    places, signs = buckets_and_signs(int(np.prod(shape)), values.size, seed)
    blob: Blob = (values[places] * signs).reshape(shape)
    return blob


def bucket_values(blob: Blob, buckets: int, seed: int) -> Blob | None:
    """Return the K values that `hashed_blob` makes these weights of, to the last bit.

    Args:
        blob: The weights, any shape, float32.
        buckets: K.
        seed: Of the hash.

    Returns:
        Shape (K,), 0 for buckets without a weight; None: the weights are not those of K values.
    """
    places, signs = buckets_and_signs(blob.size, buckets, seed)
    values = np.zeros(buckets, np.float32)
    values[places] = blob.reshape(-1) * signs
    again = values[places] * signs
    same = np.array_equal(again.view(np.uint32), np.ascontiguousarray(blob).reshape(-1).view("u4"))
    return values if same else None
