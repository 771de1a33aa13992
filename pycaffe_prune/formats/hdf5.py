"""Caffe's HDF5 files: weights, and what a solver keeps.

Weights are one dataset ``/data/<layer>/<index>`` a blob, without definitions, gradients beside them
(``snapshot_diff``) the same below ``/diff``. A solverstate is
``/iter``, ``/current_step``, ``/learned_net`` and one dataset ``/history/<index>`` a blob.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.blobs import MAX_COUNT, Blob
from pycaffe_prune.formats.caffemodel import Caffemodel
from pycaffe_prune.formats.files import atomic_write
from pycaffe_prune.formats.hdf5_files import Hdf5File, member, members, read_hdf5, require_plain
from pycaffe_prune.formats.named_model import blob_index, named_blobs, named_model
from pycaffe_prune.formats.sharing import blob_owners
from pycaffe_prune.formats.solverstate import Solverstate
from pycaffe_prune.formats.text_bytes import bytes_of

__all__ = [
    "read_hdf5_solverstate",
    "read_hdf5_weights",
    "write_hdf5_solverstate",
    "write_hdf5_weights",
]

_STATE = "an HDF5 solverstate of Caffe (.solverstate.h5)"
_WHAT = "an HDF5 weights file of Caffe (.caffemodel.h5)"


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
        _write_diffs(file, model)


def _write_diffs(file: h5py.File, model: Caffemodel) -> None:
    """Write gradients, where there are some, beside the values: those of shared parameters, too."""
    for layer in model.layers:
        for index, diff in enumerate(layer.diffs):
            place = f"/diff/{layer.name}/{index}"
            file.create_dataset(place, data=np.asarray(diff, "<f4"))


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
    parsed = read_hdf5(path, _WHAT, lambda file: list(_blobs(file)))
    try:
        blobs = {
            (layer, index): cast(Blob, parsed.arrays[number])
            for layer, index, number in parsed.notes
        }
        return named_model(blobs)
    except FormatError as error:
        raise FormatError(f"{path}: {error}; {_WHAT} is needed") from error


def read_hdf5_solverstate(path: Path) -> Solverstate:
    """Read the HDF5 solverstate that Caffe saves (``snapshot_format: HDF5``).

    Raises:
        FormatError: The file is missing, damaged, or no solverstate.
    """
    parsed = read_hdf5(path, _STATE, _state)
    iteration, step, learned_net, numbers = parsed.notes
    history = tuple(cast(Blob, parsed.arrays[number]) for number in numbers)
    return Solverstate(iteration, learned_net, history, step)


def write_hdf5_solverstate(path: Path, state: Solverstate) -> None:
    """Write ``state`` so that Caffe's ``RestoreSolverStateFromHDF5`` takes it, atomically.

    Raises:
        PruneError: The folder cannot be written to or the disk is full.
    """
    with atomic_write(path) as temporary, h5py.File(temporary, "w", locking=False) as file:
        for name, number in (("iter", state.iteration), ("current_step", state.current_step)):
            file.create_dataset(name, data=np.array([number], "<i4"))
        _write_text(file, "learned_net", bytes_of(state.learned_net))
        history = file.create_group("history")
        for number, blob in enumerate(state.history):
            history.create_dataset(str(number), data=np.asarray(blob, "<f4"))


def _write_text(file: h5py.File, name: str, text: bytes) -> None:
    """Write a text with its end in it (`H5LTmake_dataset_string`): Caffe reads up to that."""
    kind = h5py.h5t.C_S1.copy()
    kind.set_size(len(text) + 1)
    kind.set_strpad(h5py.h5t.STR_NULLTERM)
    dataset = h5py.h5d.create(file.id, name.encode(), kind, h5py.h5s.create(h5py.h5s.SCALAR))
    dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.array(text, f"S{len(text) + 1}"), kind)


def _state(file: Hdf5File) -> tuple[int, int, str, list[int]]:
    blobs = dict(members(member(file.root, "history", ""), "/history"))
    history = []
    for index in map(str, range(len(blobs))):
        place = f"dataset '/history/{index}'"
        if not isinstance(blobs.get(index), h5py.Dataset):
            raise FormatError(f"there is no {place} of {len(blobs)}")
        history.append(_kept(file, blobs[index], place))
    iteration, step = (_whole_number(file.root, name) for name in ("iter", "current_step"))
    learned_net = _scalar(file.root, "learned_net")
    if not isinstance(learned_net, bytes):
        raise FormatError("dataset '/learned_net' is no text")
    return iteration, step, learned_net.decode(), history


def _whole_number(file: h5py.File, name: str) -> int:
    value = _scalar(file, name)
    if not isinstance(value, np.integer) or not 0 <= value <= MAX_COUNT:
        raise FormatError(f"dataset '/{name}' holds {value!r}, which is no count")
    return int(value)


def _scalar(file: h5py.File, name: str) -> Any:
    dataset = member(file, name, "")
    if not isinstance(dataset, h5py.Dataset) or dataset.size != 1:
        raise FormatError(f"there is no dataset '/{name}' of one value")
    require_plain(dataset, f"dataset '/{name}'")
    return np.asarray(dataset[()]).reshape(-1)[0]


def _blobs(file: Hdf5File) -> Iterator[tuple[str, int, int]]:
    """Layer, index and number of each blob."""
    for layer, group in members(member(file.root, "data", ""), "/data"):
        for name, dataset in members(group, f"/data/{layer}"):
            index = blob_index(name)
            if not isinstance(dataset, h5py.Dataset) or index is None:
                raise FormatError(f"'/data/{layer}/{name}' is no dataset '/data/<layer>/<index>'")
            yield layer, index, _kept(file, dataset, f"dataset '/data/{layer}/{name}'")


def _kept(file: Hdf5File, dataset: h5py.Dataset, place: str) -> int:
    if dataset.dtype.kind not in "fiu":
        raise FormatError(f"{place} holds {dataset.dtype} instead of float32")
    return file.keep(dataset, place)
