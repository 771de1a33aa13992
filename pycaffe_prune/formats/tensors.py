"""Weights as named tensors for other programs: ``.npz`` of NumPy and ``.safetensors``.

A tensor is called ``<layer>/<index>``, as in Caffe's HDF5 files (index 0 is the weight, 1 the
bias). Neither form holds definitions.
"""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.blobs import Blob
from pycaffe_prune.formats.caffemodel import BlobKey, Caffemodel
from pycaffe_prune.formats.files import atomic_write
from pycaffe_prune.formats.named_model import blob_index, named_blobs, named_model
from pycaffe_prune.formats.npz import read_arrays, write_arrays
from pycaffe_prune.formats.safetensors_file import read_safetensors_file, write_safetensors_file

__all__ = ["read_npz", "read_safetensors", "write_npz", "write_safetensors"]

_NPZ = "an .npz of tensors '<layer>/<index>'"
_SAFETENSORS = "a .safetensors of tensors '<layer>/<index>'"
_MAX_NAME = 60_000  # of the 65,535 bytes that a zip archive can hold


def write_npz(path: Path, model: Caffemodel) -> None:
    """Write the blobs as an uncompressed ``.npz``, in the model's order, atomically.

    Raises:
        FormatError: Two layers have one name, or a name is none that an archive can hold.
        PruneError: The folder cannot be written to or the disk is full.
    """
    tensors = _tensors(model)
    for name in tensors:
        if "\0" in name or len(name.encode()) > _MAX_NAME:
            raise FormatError(f"'{name[:80]}' is no name that an .npz can hold; rename the layer")
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        write_arrays(file, tensors.items())


def read_npz(path: Path) -> Caffemodel:
    """Read an ``.npz`` of tensors; arrays of float64 and float16 become float32.

    Returns:
        A model whose definitions hold the layers' names only, in the archive's order.

    Raises:
        FormatError: The file is missing, damaged, or holds anything but such tensors.
    """
    return _named_model(path, _NPZ, read_arrays(path, _NPZ).items(), "")


def write_safetensors(path: Path, model: Caffemodel) -> None:
    """Write the blobs as ``.safetensors``, atomically.

    The header's metadata hold the net's name (``net``) and the layers' names in their order
    (``layers``, JSON), since the format itself keeps none.

    Raises:
        FormatError: Two layers have one name.
        PruneError: The folder cannot be written to or the disk is full.
    """
    tensors = _tensors(model)
    layers = [layer.name for layer in model.layers if layer.blobs]
    metadata = {"net": model.net.name, "layers": json.dumps(layers, ensure_ascii=False)}
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        write_safetensors_file(file, tensors, metadata)


def read_safetensors(path: Path) -> Caffemodel:
    """Read a ``.safetensors``; tensors of float64, float16, BF16 and FP8 become float32.

    Returns:
        A model whose definitions hold the layers' names only, in the order that the metadata tell,
        else by name.

    Raises:
        FormatError: The file is missing, damaged, or holds anything but such tensors.
    """
    found = read_safetensors_file(path, _SAFETENSORS)
    names = _layer_names(found.metadata.get("layers", ""))
    order = {name: place for place, name in enumerate(names)}
    in_order = sorted(
        found.tensors.items(), key=lambda item: order.get(item[0].rpartition("/")[0], len(order))
    )
    return _named_model(path, _SAFETENSORS, in_order, found.metadata.get("net", ""))


def _layer_names(text: str) -> list[str]:
    """The names in the metadata; other programs may hold anything there, or nothing."""
    try:
        names = json.loads(text)
    except (ValueError, RecursionError):
        return []
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _tensors(model: Caffemodel) -> dict[str, Blob]:
    return {
        f"{name}/{index}": np.asarray(blob, "<f4", order="C")
        for (name, index), blob in named_blobs(model).items()
    }


def _named_model(
    path: Path, what: str, tensors: Iterable[tuple[str, NDArray[np.generic]]], net_name: str
) -> Caffemodel:
    try:
        return named_model(dict(_blob(name, tensor) for name, tensor in tensors), net_name)
    except FormatError as error:
        raise FormatError(f"{path}: {error}; {what} is needed") from error


def _blob(name: str, tensor: NDArray[np.generic]) -> tuple[BlobKey, Blob]:
    layer, slash, text = name.rpartition("/")
    index = blob_index(text)
    if not slash or index is None or tensor.dtype.kind != "f":
        raise FormatError(f"'{name}' ({tensor.dtype}) is no tensor '<layer>/<index>' of float32")
    with np.errstate(over="ignore", invalid="ignore"):  # too large a double becomes inf, as in C++
        return (layer, index), tensor.astype(np.float32, copy=False)
