"""Snapshots that the real Caffe resumes, and those that it leaves."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pycaffe_prune.errors import FormatError, SurgeryError
from pycaffe_prune.formats.axes import Shape, extents
from pycaffe_prune.formats.blobs import Blob
from pycaffe_prune.formats.caffemodel import Caffemodel, write_caffemodel
from pycaffe_prune.formats.hdf5 import read_hdf5_solverstate
from pycaffe_prune.formats.solverstate import Solverstate, read_solverstate, write_solverstate

__all__ = ["Snapshot", "read_snapshot", "write_snapshot"]


@dataclass(frozen=True)
class Snapshot:
    """A solver between two updates."""

    iteration: int
    """Updates done so far."""
    weights: Path
    """The file with the net's weights."""
    history: tuple[Blob, ...]
    """float32: per learnable blob in the net's order; where an update rule keeps two values for
    each, all the second ones after all the first ones."""
    current_step: int
    """Steps taken so far by the learning rate's policy."""


def write_snapshot(
    prefix: Path,
    weights: Caffemodel,
    iteration: int,
    history: Sequence[Blob],
    current_step: int = 0,
) -> None:
    """Write ``prefix``.caffemodel, then ``prefix``.solverstate; each whole or not at all.

    The solverstate names its caffemodel by the bare file name, as in the snapshots of the Caffe
    engine: the real Caffe restores it with its folder as working directory.

    Args:
        prefix: Path without the endings.
        weights: The net's weights.
        iteration: As in `Snapshot`.
        history: As in `Snapshot`.
        current_step: As in `Snapshot`.

    Raises:
        PruneError: The folder cannot be written to or the disk is full.
    """
    model = _with_ending(prefix, ".caffemodel")
    write_caffemodel(model, weights)
    state = Solverstate(iteration, model.name, tuple(history), current_step)
    write_solverstate(_with_ending(prefix, ".solverstate"), state)


def _with_ending(prefix: Path, ending: str) -> Path:
    return prefix.with_name(prefix.name + ending)  # with_suffix would cut "lenet_0.5"


def read_snapshot(path: Path, shapes: Sequence[Shape]) -> Snapshot:
    """Read a solverstate, ours or the real Caffe's (binary, or HDF5 where it ends in ``.h5``).

    Args:
        path: The solverstate. A relative path of its weights counts from its folder.
        shapes: Of the history that the solver needs, in the order of `Snapshot.history`.

    Raises:
        FormatError: The file is missing or damaged, or its weights are not there.
        SurgeryError: The history belongs to another net or to another type of solver.
    """
    read = read_hdf5_solverstate if path.suffix == ".h5" else read_solverstate
    state = read(path)
    if len(state.history) != len(shapes):
        raise SurgeryError(
            f"{path}: holds a history of {len(state.history)} blobs, the solver needs "
            f"{len(shapes)}; resume with the net and the type of solver that it was made with"
        )
    for index, (blob, shape) in enumerate(zip(state.history, shapes, strict=True)):
        if blob.shape != tuple(shape):
            raise SurgeryError(
                f"{path}: history blob {index} is {extents(blob.shape)}, the net says "
                f"{extents(shape)}; resume with the net that it was made with"
            )
    return Snapshot(state.iteration, _weights(path, state), state.history, state.current_step)


def _weights(path: Path, state: Solverstate) -> Path:
    """Where the weights lie; Caffe counts their path from where it ran, which nobody knows now."""
    named = path.parent / state.learned_net
    for candidate in (named, path.parent / named.name):
        if candidate.is_file():
            return candidate
    raise FormatError(
        f"{path}: its weights '{state.learned_net}' are not there; put them beside it"
    )
