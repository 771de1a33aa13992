"""Mask files (``*.mask.h5``): which weights of a pruned model are kept, and why."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.caffemodel import BlobKey
from pycaffe_prune.formats.files import atomic_write, existing_file

__all__ = ["Mask", "MaskFile", "read_mask", "write_mask"]

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

    Raises:
        PruneError: The folder cannot be written to or the disk is full.
    """
    with atomic_write(path) as temporary, h5py.File(temporary, "w") as file:
        for (layer, index), mask in mask_file.masks.items():
            file.create_dataset(
                f"{layer}/{index}",
                data=np.asarray(mask, np.bool_),
                compression="gzip",
                shuffle=True,
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
        layer, _, index = name.rpartition("/")
        if not layer or not index.isdecimal() or item.dtype != np.bool_:
            raise FormatError(f"dataset '/{name}' ({item.dtype}) is not a mask '/<layer>/<index>'")
        masks[layer, int(index)] = item[()]

    try:
        with h5py.File(path, "r") as file:
            file.visititems(collect)
            return MaskFile(
                masks,
                str(file.attrs["source_sha256"]),
                str(file.attrs["criterion"]),
                json.loads(file.attrs["parameters"]),
            )
    except FormatError as error:
        raise FormatError(f"{path}: {error}; {_WHAT} is needed") from error
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else f"cannot be read ({error})"
        raise FormatError(f"{path}: {reason}; {_WHAT} is needed") from error
