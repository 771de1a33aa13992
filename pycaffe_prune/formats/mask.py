"""Mask files (``*.mask.h5``): which weights of a pruned model are kept, and why."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.errors import FormatError, SurgeryError
from pycaffe_prune.formats.caffemodel import BlobKey, Caffemodel
from pycaffe_prune.formats.files import atomic_write
from pycaffe_prune.formats.hdf5_files import Hdf5File, members, read_hdf5
from pycaffe_prune.formats.named_model import blob_index

__all__ = ["Mask", "MaskFile", "read_mask", "require_fitting_masks", "write_mask"]

Mask = NDArray[np.bool_]
"""Shape of the weight blob; True = kept."""

_WHAT = "a mask file (.mask.h5)"
_ATTRIBUTES = ("source_sha256", "criterion", "parameters")
_MOST_SLASHES = 32  # in a layer's name


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
            # Where a dataset lies follows from when it is closed, and h5py may do that late.
            file.flush()
        file.attrs["source_sha256"] = mask_file.source_sha256
        file.attrs["criterion"] = mask_file.criterion
        file.attrs["parameters"] = json.dumps(dict(mask_file.parameters), sort_keys=True)


def read_mask(path: Path, most: int | None = None) -> MaskFile:
    """Read a mask file.

    Args:
        path: The file.
        most: How many values the weights have that it masks: it may not unpack to more.

    Raises:
        FormatError: The file is missing, damaged, or holds anything but boolean masks, or masks of
            more values.
    """
    parsed = read_hdf5(path, _WHAT, partial(_masks, most=most))
    keys, source_sha256, criterion, parameters = parsed.notes
    masks = {
        (layer, index): cast(Mask, parsed.arrays[number])
        for number, (layer, index) in enumerate(keys)
    }
    try:
        return MaskFile(masks, source_sha256, criterion, _parameters(parameters))
    except FormatError as error:
        raise FormatError(f"{path}: {error}; {_WHAT} is needed") from error


def _masks(file: Hdf5File, most: int | None) -> tuple[list[BlobKey], str, str, str]:
    """The masks' keys in the order in which they are kept, and the attributes."""
    keys: list[BlobKey] = []
    count = 0
    for name, dataset in _datasets(file.root, "", 0):
        layer, _, text = name.rpartition("/")
        index = blob_index(text)
        if not layer or index is None or dataset.dtype != np.bool_:
            raise FormatError(
                f"dataset '/{name}' ({dataset.dtype}) is not a mask '/<layer>/<index>'"
            )
        count += int(dataset.size or 0)
        if most is not None and count > most:
            raise FormatError(f"masks {count} values or more, but the weights have {most}")
        if file.keep(dataset, f"dataset '/{name}'", np.bool_) != len(keys):
            raise FormatError(f"dataset '/{name}' is another one under a second name")
        keys.append((layer, index))
    attributes = file.root.attrs
    lacking = [name for name in _ATTRIBUTES if name not in attributes]
    if lacking:
        raise FormatError(f"lacks the attribute '{lacking[0]}'")
    source_sha256, criterion, parameters = (str(attributes[name]) for name in _ATTRIBUTES)
    return keys, source_sha256, criterion, parameters


def _datasets(group: h5py.Group, place: str, depth: int) -> Iterator[tuple[str, h5py.Dataset]]:
    """All datasets below a group with their paths; a layer's name may have slashes."""
    if depth > _MOST_SLASHES:
        raise FormatError(f"'{place[:80]}' is nested too deep, or in itself")
    for name, item in members(group, place):
        path = f"{place}/{name}" if place else name
        if isinstance(item, h5py.Group):
            yield from _datasets(item, path, depth + 1)
        elif isinstance(item, h5py.Dataset):
            yield path, item


def _parameters(text: str) -> dict[str, Any]:
    try:
        parameters = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"its attribute 'parameters' is no JSON ({error})") from error
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
