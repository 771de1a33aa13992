"""Weights of a net, from and to files and other nets, layer by layer by name."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pycaffe_prune.formats.axes import extents
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer, read_diffs
from pycaffe_prune.formats.sharing import blob_owners
from pycaffe_prune.formats.weights import is_caffemodel, is_hdf5, read_weights
from pycaffe_prune.pycaffe.blobs import Blob
from pycaffe_prune.pycaffe.errors import CheckError
from pycaffe_prune.pycaffe.memory import Memory
from pycaffe_prune.pycaffe.steps import Step

__all__ = ["copy_blobs", "load_weights", "share_blobs", "weights_of"]


def weights_of(name: str, steps: Iterable[Step], *, diffs: bool = False) -> Caffemodel:
    """Return a net's layers with copies of their blobs (`Net::ToProto`).

    Args:
        name: The net's.
        steps: Its layers, Splits too, as in Caffe's files.
        diffs: Whether with copies of the gradients, too.
    """
    layers = tuple(
        Layer(
            step.param,
            tuple(_copied(blob._data, blob) for blob in step.blobs),
            tuple(_copied(blob._diff, blob) for blob in step.blobs if diffs),
        )
        for step in steps
    )
    return Caffemodel(layers, NetParameter(name=name))


def _copied(memory: Memory, blob: Blob) -> NDArray[np.float32]:
    return memory.read(blob._shape).cpu().numpy().copy()


def load_weights(path: Path, steps: Sequence[Step]) -> None:
    """Copy weights of a file into the layers of the same names (`Net::CopyTrainedLayersFrom`).

    Layers that only one of them has are passed over. Gradients that a binary caffemodel holds are
    copied, too, as in Caffe.

    Args:
        path: Any file that `formats.weights.read_weights` reads.
        steps: The net's.

    Raises:
        FormatError: The file is damaged.
        CheckError: A layer has other blobs in the file than in the net.
    """
    shared: set[tuple[str, int]] = set()
    if is_hdf5(path):  # which holds a shared blob at its owner
        owners = blob_owners(step.param for step in steps)
        shared = {key for key, owner in owners.items() if key != owner}
    targets = _by_name(steps)
    for layer in read_weights(path).layers:
        blobs = targets.get(layer.name)
        if blobs is None:
            continue
        missing = {(layer.name, index) for index in range(len(layer.blobs), len(blobs))}
        if len(layer.blobs) > len(blobs) or not missing <= shared:
            raise _miscounted(f"{path}: layer '{layer.name}'", len(layer.blobs), len(blobs))
        for index, (target, values) in enumerate(zip(blobs, layer.blobs, strict=False)):
            if values.shape != target._shape:
                raise CheckError(
                    f"{path}: cannot copy blob {index} of layer '{layer.name}': it is "
                    f"{extents(values.shape)} in the file and {extents(target._shape)} in the net; "
                    "rename the layer to let it learn from scratch"
                )
            _put(target._data, values)
    if is_caffemodel(path):
        _load_diffs(path, targets)


def _load_diffs(path: Path, targets: Mapping[str, Sequence[Blob]]) -> None:
    for (name, index), diff in read_diffs(path).items():
        for target in targets.get(name, ())[index : index + 1]:
            if diff.size != target.count:
                raise CheckError(
                    f"{path}: blob {index} of layer '{name}' has {diff.size} gradients in the file "
                    f"and {target.count} values in the net"
                )
            _put(target._diff, diff.reshape(target._shape))


def copy_blobs(source: Iterable[Step], steps: Sequence[Step]) -> None:
    """Copy the values of another net's layers of the same names.

    Raises:
        CheckError: A layer has other blobs there.
    """
    for own, other in _pairs(source, steps, "copy"):
        other_values = other._read()
        own._data.write(other_values.clone() if own is other else other_values)


def share_blobs(source: Iterable[Step], steps: Sequence[Step]) -> None:
    """Let layers use the values of another net's of the same names (`ShareTrainedLayersWith`).

    Gradients stay their own.

    Raises:
        CheckError: A layer has other blobs there, or the other net computes elsewhere.
    """
    pairs = _pairs(source, steps, "share")
    for own, other in pairs:
        if own._data.device != other._data.device:
            raise CheckError(
                f"cannot share weights: one net computes on {own._data.device}, the other on "
                f"{other._data.device}; make both in one mode, or copy them (copy_from)"
            )
    for own, other in pairs:
        own._data = other._data


def _pairs(source: Iterable[Step], steps: Sequence[Step], what: str) -> list[tuple[Blob, Blob]]:
    targets = _by_name(steps)
    found = []
    for step in source:
        name = step.param.name
        blobs = targets.get(name)
        if blobs is None:
            continue
        if len(blobs) != len(step.blobs):
            raise _miscounted(f"layer '{name}' of the other net", len(step.blobs), len(blobs))
        for index, (own, other) in enumerate(zip(blobs, step.blobs, strict=True)):
            if own._shape != other._shape:
                raise CheckError(
                    f"cannot {what} blob {index} of layer '{name}': it is {extents(other._shape)} "
                    f"in the other net and {extents(own._shape)} in this one"
                )
            found.append((own, other))
    return found


def _by_name(steps: Sequence[Step]) -> Mapping[str, Sequence[Blob]]:
    return {step.param.name: step.blobs for step in reversed(steps)}  # the first of a name


def _miscounted(origin: str, held: int, needed: int) -> CheckError:
    return CheckError(f"{origin} has {held} blobs, the net's layer of that name {needed}")


def _put(target: Memory, values: NDArray[np.float32]) -> None:
    target.write(torch.from_numpy(np.array(values, np.float32)).to(target.device))
