"""Mask files (``*.mask.h5``): which weights of a pruned model are kept, and why."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.errors import FormatError, SurgeryError
from pycaffe_prune.formats.blobs import MAX_COUNT
from pycaffe_prune.formats.caffemodel import BlobKey, Caffemodel
from pycaffe_prune.formats.files import atomic_write, existing_file

__all__ = ["Mask", "MaskFile", "read_mask", "require_fitting_masks", "write_mask"]

Mask = NDArray[np.bool_]
"""Shape of the weight blob; True = kept."""

_WHAT = "a mask file (.mask.h5)"


@dataclass(frozen=True)
class MaskFile:
    """The masks of one model, with where they come from."""

    masks: Mapping[BlobKey, Mask]
    """One per masked blob; a blob without a mask is kept whole."""
    source_sha256: str
    """SHA-256 of the caffemodel that the criterion looked at."""
    criterion: str
    """Name of the criterion, e.g. ``threshold``."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """What the criterion was given (values that JSON holds)."""


def write_mask(path: Path, mask_file: MaskFile) -> None:
    """Write the masks, compressed, atomically: one boolean dataset ``/<layer>/<index>`` a blob.

    Equal content gives equal bytes, in whatever order the masks come.

    Raises:
        FormatError: A layer's name is none that HDF5 could give back.
        PruneError: The folder cannot be written to or the disk is full.
    """
    # No locks, here and where files are read: a file appears whole and never changes, while a child
    # process forked at the wrong moment would hold the lock on.
    with atomic_write(path) as temporary, h5py.File(temporary, "w", locking=False) as file:
        for (layer, index), mask in sorted(mask_file.masks.items()):
            if "\0" in layer or {"", "."} & set(layer.split("/")):
                raise FormatError(f"layer '{layer}' has a name that HDF5 cannot hold; rename it")
            file.create_dataset(
                f"{layer}/{index}",
                data=np.asarray(mask, np.bool_),
                compression="gzip" if mask.ndim else None,  # HDF5 packs no scalars
                shuffle=bool(mask.ndim),
            )
        file.attrs["source_sha256"] = mask_file.source_sha256
        file.attrs["criterion"] = mask_file.criterion
        file.attrs["parameters"] = json.dumps(dict(mask_file.parameters), sort_keys=True)


def read_mask(path: Path) -> MaskFile:
    """Read a mask file.

    Raises:
        FormatError: The file is missing, damaged, or holds anything but boolean masks.
    """
    existing_file(path, _WHAT)
    masks: dict[BlobKey, Mask] = {}

    def collect(name: str, item: object) -> None:
        if not isinstance(item, h5py.Dataset):
            return
        if item.size is None or item.size > MAX_COUNT:  # a damaged extent, not a mask to allocate
            raise FormatError(f"dataset '/{name}' has shape {item.shape}, which no blob has")
        layer, _, index = name.rpartition("/")
        if not layer or not index.isdecimal() or item.dtype != np.bool_:
            raise FormatError(f"dataset '/{name}' ({item.dtype}) is not a mask '/<layer>/<index>'")
        masks[layer, int(index)] = item[()]

    try:
        with h5py.File(path, "r", locking=False) as file:
            file.visititems(collect)
            return MaskFile(
                masks,
                str(file.attrs["source_sha256"]),
                str(file.attrs["criterion"]),
                _parameters(file.attrs["parameters"]),
            )
    except FormatError as error:
        raise FormatError(f"{path}: {error}; {_WHAT} is needed") from error
    except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else f"cannot be read ({error})"
        raise FormatError(f"{path}: {reason}; {_WHAT} is needed") from error


def _parameters(text: str) -> dict[str, Any]:
    parameters = json.loads(text)
    if not isinstance(parameters, dict):
        raise FormatError("its attribute 'parameters' is no JSON object")
    return parameters


def require_fitting_masks(model: Caffemodel, masks: Mapping[BlobKey, Mask]) -> None:
    """See that each mask has the shape of its blob.

    Raises:
        SurgeryError: A mask has another shape than its blob, or there is no such blob.
        FormatError: A masked layer is not in the model.
    """
    for (name, index), mask in masks.items():
        blobs = model.layer(name).blobs
        if index >= len(blobs):
            raise SurgeryError(
                f"layer '{name}' has {len(blobs)} blobs, the mask is for blob {index}"
            )
        if mask.shape != blobs[index].shape:
            shapes = ["x".join(map(str, array.shape)) for array in (mask, blobs[index])]
            raise SurgeryError(
                f"layer '{name}', blob {index}: the mask is {shapes[0]} but the weights are "
                f"{shapes[1]}; use the mask that was made for these weights"
            )
