"""What solvers read and write: their own prototxts, and snapshots."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pycaffe_prune.engines.torch.snapshots import read_snapshot
from pycaffe_prune.formats.caffe_pb2 import SolverParameter
from pycaffe_prune.formats.caffemodel import write_caffemodel
from pycaffe_prune.formats.hdf5 import write_hdf5_solverstate, write_hdf5_weights
from pycaffe_prune.formats.prototxt import read_solver, refuse_carried
from pycaffe_prune.formats.solverstate import Solverstate, write_solverstate
from pycaffe_prune.pycaffe.glog import log
from pycaffe_prune.pycaffe.net import Net
from pycaffe_prune.pycaffe.weights import weights_of

__all__ = ["read_param", "restore", "write_snapshot"]


def read_param(path: str | os.PathLike[str]) -> SolverParameter:
    """Read a solver prototxt, with the ``snapshot_prefix`` that Caffe makes of its name.

    Raises:
        FormatError: The file is missing or damaged, or has a field that Caffe does not know.
    """
    file = Path(path)
    param = read_solver(file)
    refuse_carried(param, file, "a solver")
    if not param.HasField("snapshot_prefix"):
        param.snapshot_prefix = str(file.with_suffix(""))
    elif Path(param.snapshot_prefix).is_dir():
        param.snapshot_prefix = str(Path(param.snapshot_prefix) / file.stem)
    return param


def write_snapshot(
    param: SolverParameter, net: Net, iteration: int, history: Sequence[Tensor], current_step: int
) -> None:
    """Write the weights, then what else the solver keeps, which the real Caffe resumes.

    Args:
        param: Says by which name, in which format, and whether with gradients (``snapshot_diff``).
        net: The training net.
        iteration: Updates done so far.
        history: Per learnable blob; see `engines.torch.snapshots.Snapshot.history`.
        current_step: Steps taken by the learning rate's policy.

    Raises:
        PruneError: The folder cannot be written to or the disk is full.
    """
    stem = f"{param.snapshot_prefix}_iter_{iteration}"
    is_hdf5 = param.snapshot_format == SolverParameter.HDF5
    ending, kind = (".h5", "HDF5") if is_hdf5 else ("", "binary proto")
    weights, path = f"{stem}.caffemodel{ending}", f"{stem}.solverstate{ending}"
    log(f"Snapshotting to {kind} file {weights}")
    model = weights_of(net._name, net._steps, diffs=param.snapshot_diff)
    (write_hdf5_weights if is_hdf5 else write_caffemodel)(Path(weights), model)
    log(f"Snapshotting solver state to {kind} file {path}")
    blobs = tuple(view.cpu().numpy() for view in history)
    state = Solverstate(iteration, weights, blobs, current_step)
    (write_hdf5_solverstate if is_hdf5 else write_solverstate)(Path(path), state)


def restore(path: Path, net: Net, history: Sequence[Tensor]) -> tuple[int, int]:
    """Read a snapshot, ours or the real Caffe's: weights and history. The data stay where they are.

    Returns:
        The updates done so far, and the steps taken by the learning rate's policy.

    Raises:
        FormatError: It is damaged, or its weights are not there.
        SurgeryError: It belongs to another net or another type of solver.
    """
    found = read_snapshot(path, [tuple(view.shape) for view in history])
    net.copy_from(found.weights)
    log("SGDSolver: restoring history")
    for view, blob in zip(history, found.history, strict=True):
        view.copy_(torch.from_numpy(np.array(blob, np.float32)))
    return found.iteration, found.current_step
