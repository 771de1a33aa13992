"""Blobs that several layers share: pruned once, and in every one of them alike."""

from collections.abc import Iterable, Mapping

import numpy as np

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.blobs import Blob
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import BlobKey, Caffemodel
from pycaffe_prune.formats.mask import Mask, require_fitting_masks
from pycaffe_prune.formats.sharing import blob_owners
from pycaffe_prune.pruning.weight_blobs import as_key

__all__ = [
    "SharedBlobs",
    "first_of_each",
    "masks_for_all",
    "one_of_each",
    "require_equal_blobs",
    "shared_blobs",
]

SharedBlobs = Mapping[BlobKey, tuple[BlobKey, ...]]
"""Each shared blob, with all the blobs that are the same memory in Caffe (itself included)."""


def shared_blobs(net: NetParameter) -> dict[BlobKey, tuple[BlobKey, ...]]:
    """Find the blobs that layers share by ``param { name }`` (`Net::AppendParam`, net.cpp).

    Layers of the same name, one for each phase, say, are one layer here.
    """
    groups: dict[BlobKey, list[BlobKey]] = {}
    for key, owner in blob_owners(net.layer).items():
        groups.setdefault(owner, []).append(key)
    return {key: tuple(group) for group in groups.values() if len(group) > 1 for key in group}


def one_of_each(shared: SharedBlobs, layers: Iterable[str]) -> list[str]:
    """Return ``layers`` without those whose weights (blob 0) are an earlier one's."""
    return [name for name, _ in first_of_each(shared, ((name, 0) for name in layers))]


def first_of_each(shared: SharedBlobs, keys: Iterable[BlobKey]) -> list[BlobKey]:
    """Return ``keys`` without the blobs that are the same memory as an earlier one."""
    chosen: dict[BlobKey, None] = {}
    for key in keys:
        if not chosen.keys() & set(shared.get(key, ())):
            chosen[key] = None
    return list(chosen)


def require_equal_blobs(
    shared: SharedBlobs, model: Caffemodel, places: Iterable[str] | Iterable[BlobKey]
) -> None:
    """See that weights that layers share are the same in the caffemodel.

    Args:
        shared: What is shared.
        model: The weights.
        places: The blobs to look at; a layer's name stands for its blob 0.

    Raises:
        SurgeryError: They differ: Caffe would load the last one for all.
        FormatError: A layer is not in the model.
    """
    for name, place in map(as_key, places):
        weights = model.layer(name).blobs[place]
        for other, index in shared.get((name, place), ()):
            theirs = _held(model, other, index)
            if theirs is not None and not np.array_equal(theirs.reshape(-1), weights.reshape(-1)):
                raise SurgeryError(
                    f"layers '{name}' and '{other}' share their weights by param name, but the "
                    "caffemodel holds different ones; save it again with Caffe, which loads the "
                    "last one for both"
                )


def masks_for_all(
    shared: SharedBlobs, model: Caffemodel, masks: Mapping[BlobKey, Mask]
) -> dict[BlobKey, Mask]:
    """Give each masked blob's mask to all blobs that are the same memory in Caffe.

    Where several of them come with a mask, a weight is kept that all of them keep. A sharer of
    another shape (``share_mode: PERMISSIVE``) gets the mask in its shape; one that the model holds
    no blob of (HDF5 files have them at the owner only) gets none.

    Raises:
        SurgeryError: A mask has another shape than its blob, or there is no such blob.
        FormatError: A masked layer is not in the model.
    """
    require_fitting_masks(model, masks)
    spread: dict[BlobKey, Mask] = {}
    for key, mask in masks.items():
        for name, index in shared.get(key, (key,)):
            blob = _held(model, name, index)
            if blob is not None:
                fitting = mask.reshape(blob.shape)
                spread[name, index] = fitting & spread.get((name, index), fitting)
    return spread


def _held(model: Caffemodel, name: str, index: int) -> Blob | None:
    blobs = [blob for layer in model.layers if layer.name == name for blob in layer.blobs]
    return blobs[index] if index < len(blobs) else None
