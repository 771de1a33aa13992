"""Going on from a solverstate that lies elsewhere: it becomes the first snapshot of a new run.

From there on it is an ordinary resume, in each engine: weights, history and iteration are the
file's, the data come to the place that they have after so many iterations from their start. (Caffe
itself begins its data anew when it restores.)
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path

import numpy as np

from pycaffe_prune.engines.base import Event
from pycaffe_prune.engines.caffe.caffe_worker.snapshots import snapshots_in, write_sums
from pycaffe_prune.engines.differences import settings_differences
from pycaffe_prune.engines.job import Job, RestoredState, TrainRequest
from pycaffe_prune.engines.readable import Readable
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.errors import FormatError, SurgeryError
from pycaffe_prune.formats.blobs import Blob
from pycaffe_prune.formats.caffe_pb2 import NetParameter, SolverParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, write_caffemodel
from pycaffe_prune.formats.files import existing_file, sha256_of
from pycaffe_prune.formats.hdf5 import read_hdf5_solverstate
from pycaffe_prune.formats.mask import MaskFile, require_fitting_masks
from pycaffe_prune.formats.prototxt import read_solver
from pycaffe_prune.formats.sharing import blob_owners
from pycaffe_prune.formats.solverstate import Solverstate, read_solverstate, write_solverstate
from pycaffe_prune.formats.weights import caffe_weights, is_hdf5
from pycaffe_prune.pruning.sharing import masks_for_all, shared_blobs

__all__ = ["Restored", "read_restored", "restored_events"]

_WHAT = "a .solverstate or .solverstate.h5 to go on from"


@dataclass(frozen=True)
class Restored:
    """A solverstate and its weights, read and seen to be usable."""

    told: RestoredState
    state: Solverstate
    model: Caffemodel

    def write(self, folder: RunFolder) -> None:
        """Make it the snapshot that a run goes on from, unless the run has one already."""
        folder.snapshots.mkdir(exist_ok=True)
        if snapshots_in(str(folder.snapshots)):
            return
        path = folder.state_at(self.state.iteration)
        weights = path.with_suffix(".caffemodel")
        # A binary solverstate's weights are read as binary, whatever is in the file
        # (`SGDSolver::RestoreSolverStateFromBinaryProto`).
        write_caffemodel(weights, self.model)
        state = Solverstate(
            self.state.iteration, weights.name, self.state.history, self.state.current_step
        )
        write_solverstate(path, state)  # last: it makes it complete
        write_sums(str(folder.snapshots), self.state.iteration)


def read_restored(
    request: TrainRequest, net: NetParameter, solver: SolverParameter, mask: MaskFile | None
) -> Restored | None:
    """Read the solverstate that a run is to go on from; None: from none.

    Args:
        request: The run. Its state is binary or HDF5, Caffe's or ours; the weights are looked up
            where it says, from its folder and from the working directory, then beside it.
        net: What it trains.
        solver: The run's solver, with all overrides in it.
        mask: The run's masks; the history is zero where they prune.

    Raises:
        FormatError: It is missing or damaged, its weights are not there or where it may have
            nothing read, the run would end before it, or is given weights too.
        SurgeryError: Masked weights are not zero in it.
    """
    if request.restore is None:
        return None
    path = existing_file(request.restore, _WHAT)
    if request.weights:
        raise FormatError(
            f"{path}: a state to go on from has its own weights; give --restore or --weights"
        )
    state = read_hdf5_solverstate(path) if is_hdf5(path) else read_solverstate(path)
    if state.iteration >= solver.max_iter:
        raise FormatError(
            f"{path}: is at iteration {state.iteration}, and max_iter is {solver.max_iter}; give a "
            "larger --max-iter"
        )
    readable = Readable.of(path, request.data, request.own, trust=request.trust)
    weights = _weights_of(path, state, readable)
    model = caffe_weights(weights)
    if mask:
        _require_zeros(weights, model, mask)
        state = replace(state, history=_masked_history(state.history, model, net, mask))
    told = RestoredState(
        file=str(path.resolve()),
        iteration=state.iteration,
        sha256=sha256_of(path),
        weights=str(weights.resolve()),
        weights_sha256=sha256_of(weights),
        changes=(*_changes(path, solver), *_steps(state, solver)),
    )
    return Restored(told, state, model)


def _require_zeros(weights: Path, model: Caffemodel, mask: MaskFile) -> None:
    require_fitting_masks(model, mask.masks)
    for (name, index), kept in mask.masks.items():
        if alive := int(np.count_nonzero(model.layer(name).blobs[index][~kept])):
            raise SurgeryError(
                f"{weights}: layer '{name}', blob {index}: {alive} weights are not zero that the "
                "mask prunes; go on from a run that had this mask, or begin with pruned --weights"
            )


def _masked_history(
    history: Sequence[Blob], model: Caffemodel, net: NetParameter, mask: MaskFile
) -> tuple[Blob, ...]:
    """Zero what would move pruned weights on: pycaffe has no way to a solver's history.

    It has one or more blobs for each learnable parameter, in their order, all of one kind together
    (`SGDSolver::PreSolve`); a history of another length is for the engine to refuse.
    """
    owners = blob_owners(net.layer)
    order = {
        name: place for place, name in enumerate(dict.fromkeys(layer.name for layer in net.layer))
    }
    held = [key for key, _ in model.blobs() if key[0] in order and owners.get(key, key) == key]
    keys = sorted(held, key=lambda key: (order[key[0]], key[1]))  # HDF5 has another order
    pruned = masks_for_all(shared_blobs(net), model, mask.masks)
    if not keys or len(history) % len(keys):
        return tuple(history)
    return tuple(
        np.where(pruned[key].reshape(blob.shape), blob, np.float32(0))
        if key in pruned and pruned[key].size == blob.size
        else blob
        for key, blob in zip(cycle(keys), history, strict=False)
    )


def _steps(state: Solverstate, solver: SolverParameter) -> Iterator[str]:
    """Caffe counts the steps that its rate took; another list of them does not change the count."""
    passed = sum(state.iteration > value for value in solver.stepvalue)
    if solver.lr_policy == "multistep" and state.current_step > passed:
        yield (
            f"{state.current_step} steps of the rate taken where stepvalue says {passed}: as Caffe "
            "does, it goes on from the former"
        )


def _weights_of(path: Path, state: Solverstate, readable: Readable) -> Path:
    named = Path(state.learned_net)
    candidates = (path.parent / named, named, path.parent / named.name)
    there = [candidate for candidate in candidates if candidate.is_file()]
    for candidate in there:
        if readable.allows(candidate):
            return candidate
    readable.require(there)
    raise FormatError(
        f"{path}: its weights '{state.learned_net}' are not there; put them beside it"
    )


def _changes(path: Path, solver: SolverParameter) -> Iterator[str]:
    """What the run that left a snapshot in its folder had otherwise, where it lies there yet."""
    earlier = RunFolder(path.resolve().parent.parent)
    if path.resolve().parent == earlier.snapshots and earlier.solver.is_file():
        yield from settings_differences(read_solver(earlier.solver), solver)


def restored_events(job: Job) -> Iterator[Event]:
    """Yield what a run goes on from, for its log."""
    if job.restored is None:
        return
    changes = f", with {', '.join(job.restored.changes)}" if job.restored.changes else ""
    yield Event(
        event="restored",
        message=f"goes on from {job.restored.file} at iteration {job.restored.iteration}{changes}",
        **job.restored.model_dump(exclude={"file"}) | {"file": job.restored.file},
    )
