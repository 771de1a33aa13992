"""Masks that change while a net trains, as they lie beside a snapshot: NumPy's format, packed."""

import numpy as np

from .snapshots import MASKS, durable_move


def write_mask_state(snapshot, masks, limits=()):
    """Write the masks of a snapshot, whole or not at all; to be done before its state is there.

    The snapshot is named by its path without endings. Masks are boolean arrays; limits the pairs
    that they are made by, where there are such.
    """
    arrays = {"limits": np.array(limits, np.float32)}
    for place, mask in enumerate(masks):
        arrays["m%d" % place] = np.packbits(mask)
        arrays["shape%d" % place] = np.array(mask.shape, np.int64)
    partial = snapshot + MASKS + ".partial"
    with open(partial, "wb") as file:
        np.savez(file, **arrays)
    durable_move(partial, snapshot + MASKS)


def read_mask_state(snapshot):
    """Return the masks of a snapshot, and their limits."""
    with np.load(snapshot + MASKS, allow_pickle=False) as file:
        masks = []
        for place in range(sum(name.startswith("shape") for name in file.files)):
            shape = file["shape%d" % place]
            bits = np.unpackbits(file["m%d" % place])[: int(np.prod(shape))]
            masks.append(bits.astype(np.bool_).reshape(shape))
        return masks, [tuple(pair) for pair in file["limits"]]
