"""Caffe's HDF5 files: weights, and what a solver keeps.

Weights are one dataset ``/data/<layer>/<index>`` a blob, without definitions. A solverstate is
``/iter``, ``/current_step``, ``/learned_net`` and one dataset ``/history/<index>`` a blob.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.blobs import MAX_COUNT, Blob
from pycaffe_prune.formats.caffemodel import BlobKey, Caffemodel, named_blobs, named_model
from pycaffe_prune.formats.files import atomic_write, existing_file
from pycaffe_prune.formats.sharing import blob_owners
from pycaffe_prune.formats.solverstate import Solverstate
from pycaffe_prune.formats.text_bytes import bytes_of

__all__ = ["read_hdf5_solverstate", "read_hdf5_weights", "write_hdf5_weights"]

_STATE = "an HDF5 solverstate of Caffe (.solverstate.h5)"
_WHAT = "an HDF5 weights file of Caffe (.caffemodel.h5)"
_MOST_PACKED = 1032  # deflate makes of one byte at most as many


def write_hdf5_weights(path: Path, model: Caffemodel) -> None:
    """Write the blobs as Caffe's ``Net::ToHDF5`` does (`src/caffe/net.cpp`), atomically.

    Caffe loads a file as HDF5 when its name ends in ``.h5``. A parameter that layers share by
    name is stored at its owner alone, as Caffe stores it, and linked from the other layers, so
    that `read_hdf5_weights` gives each layer all its blobs.

    Raises:
        FormatError: A layer's name is none that Caffe could give back from an HDF5 file (it
            aborts when it saves a name with a slash, and passes over one when it loads), two
            layers have the same, or a name is not UTF-8.
        PruneError: The folder cannot be written to or the disk is full.
    """
    blobs = named_blobs(model)
    for name, _ in blobs:
        if name in ("", ".") or {"/", "\0"} & set(name):
            raise FormatError(
                f"layer '{name}': Caffe can neither save nor load a layer of this name in HDF5; "
                "rename it, or write a .caffemodel, .npz or .safetensors"
            )
        if bytes_of(name) != name.encode():
            raise FormatError(
                f"layer '{name}': its name is not UTF-8, and such names are not written to HDF5; "
                "rename it, or write a .caffemodel"
            )
    owners = blob_owners(layer.param for layer in model.layers)
    with atomic_write(path) as temporary, h5py.File(temporary, "w", locking=False) as file:
        data = file.create_group("data", track_order=True)
        for key, blob in blobs.items():
            group = data.require_group(key[0])
            owner = owners.get(key, key)
            if owner != key and owner in blobs and _same(blobs[owner], blob):
                group[str(key[1])] = data[owner[0]][str(owner[1])]
            else:
                group.create_dataset(str(key[1]), data=np.asarray(blob, "<f4"))


def _same(one: Blob, other: Blob) -> bool:
    return one.shape == other.shape and one.tobytes() == other.tobytes()


def read_hdf5_weights(path: Path) -> Caffemodel:
    """Read the HDF5 weights that Caffe saves (``snapshot_format: HDF5``, ``net.save_hdf5``).

    Returns:
        A model whose definitions hold the layers' names only; layers without blobs are left out.
        Blobs are float32 (doubles and whole numbers are converted, as Caffe does on loading), in
        the order of their writing where the file tells it, else by name.

    Raises:
        FormatError: The file is missing, damaged, or holds anything else than such datasets, or
            a layer lacks a blob that another layer of the net owns.
    """
    with _opened(path, _WHAT) as file:
        return named_model(dict(_blobs(file.get("data"))))


def read_hdf5_solverstate(path: Path) -> Solverstate:
    """Read the HDF5 solverstate that Caffe saves (``snapshot_format: HDF5``).

    Raises:
        FormatError: The file is missing, damaged, or no solverstate.
    """
    with _opened(path, _STATE) as file:
        blobs = dict(_members(file.get("history"), "/history"))
        history = []
        for index in map(str, range(len(blobs))):
            dataset = blobs.get(index)
            if not isinstance(dataset, h5py.Dataset):
                raise FormatError(f"there is no dataset '/history/{index}' of {len(blobs)}")
            history.append(_values(dataset, f"dataset '/history/{index}'"))
        iteration, step = (int(_scalar(file, name)) for name in ("iter", "current_step"))
        learned_net = _scalar(file, "learned_net")
        if not isinstance(learned_net, bytes):
            raise FormatError("dataset '/learned_net' is no text")
        return Solverstate(iteration, learned_net.decode(), tuple(history), step)


def _scalar(file: h5py.File, name: str) -> Any:
    dataset = file.get(name)
    if not isinstance(dataset, h5py.Dataset) or dataset.size != 1:
        raise FormatError(f"there is no dataset '/{name}' of one value")
    return np.asarray(dataset[()]).reshape(-1)[0]


@contextmanager
def _opened(path: Path, what: str) -> Iterator[h5py.File]:
    """Open a file; what is wrong with it is told with its name and what it should be."""
    existing_file(path, what)
    try:
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except FormatError as error:
        raise FormatError(f"{path}: {error}; {what} is needed") from error
    except (OSError, KeyError, RuntimeError, TypeError, ValueError, MemoryError) as error:
        raise FormatError(f"{path}: cannot be read ({error}); {what} is needed") from error


def _blobs(data: object) -> Iterator[tuple[BlobKey, Blob]]:
    for layer, group in _members(data, "/data"):
        for index, dataset in _members(group, f"/data/{layer}"):
            place = f"dataset '/data/{layer}/{index}'"
            is_index = index.isdecimal() and index == str(int(index))
            if not isinstance(dataset, h5py.Dataset) or not is_index:
                raise FormatError(f"'/data/{layer}/{index}' is no dataset '/data/<layer>/<index>'")
            yield (layer, int(index)), _values(dataset, place)


def _members(group: object, place: str) -> Iterator[tuple[str, object]]:
    """The members of a group; links that lead elsewhere, to other files too, are refused."""
    if not isinstance(group, h5py.Group):
        raise FormatError(f"'{place}' is no group")
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise FormatError(f"'{place}/{name}' is a link to another place, which is not followed")
        yield name, group[name]


def _values(dataset: h5py.Dataset, place: str) -> Blob:
    if dataset.dtype.kind not in "fiu":
        raise FormatError(f"{place} holds {dataset.dtype} instead of float32")
    if dataset.external or dataset.is_virtual:
        raise FormatError(f"{place} has its values in another file, which is not read")
    held = dataset.id.get_storage_size() * _MOST_PACKED
    if dataset.size is None or dataset.size > MAX_COUNT or dataset.nbytes > held:
        raise FormatError(f"{place} has shape {dataset.shape}, but its values are not there")
    with np.errstate(over="ignore", invalid="ignore"):  # too large a double becomes inf, as in C++
        return cast(Blob, dataset[()].astype(np.float32, copy=False).reshape(dataset.shape))
