"""Solverstates: how far a solver got, its history, and where its weights lie."""

from dataclasses import dataclass
from pathlib import Path

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats import wire
from pycaffe_prune.formats.blobs import (
    Blob,
    mapped_file,
    naming_file,
    read_blob,
    write_blob,
)
from pycaffe_prune.formats.caffe_pb2 import SolverState
from pycaffe_prune.formats.files import atomic_write

__all__ = ["Solverstate", "read_solverstate", "write_solverstate"]

_WHAT = "a binary .solverstate"
_HISTORY = SolverState.HISTORY_FIELD_NUMBER


@dataclass(frozen=True)
class Solverstate:
    """What Caffe's SGDSolver keeps between runs (`src/caffe/solvers/sgd_solver.cpp`)."""

    iteration: int
    """Updates done so far."""
    learned_net: str
    """Path of the caffemodel, as text: relative to the directory in which Caffe runs."""
    history: tuple[Blob, ...]
    """Momentum (and more, by solver type) in the order of the learnable parameters."""
    current_step: int = 0
    """Place in the step values of the multistep policy."""


def read_solverstate(path: Path) -> Solverstate:
    """Read a binary solverstate; the history blobs are read-only views of the mapped file.

    Raises:
        FormatError: The file is missing, truncated, damaged, or no solverstate.
    """
    buffer = mapped_file(path, _WHAT)
    with naming_file(path, _WHAT):
        header = bytearray()
        history = []
        for part in wire.fields(buffer, 0, len(buffer)):
            if part.number == _HISTORY and part.wire_type == wire.LENGTH:
                history.append(read_blob(buffer, part.start, part.end)[0])
            else:
                header += buffer[part.tag : part.end]
        state = SolverState.FromString(bytes(header))
        if not state.HasField("iter") or not state.HasField("learned_net"):
            raise FormatError("holds no iteration or names no weights")
        if not isinstance(state.learned_net, str):  # protobuf's answer to text that is not UTF-8
            raise FormatError("names its weights in another encoding than UTF-8")
    return Solverstate(state.iter, state.learned_net, tuple(history), state.current_step)


def write_solverstate(path: Path, state: Solverstate) -> None:
    """Write ``state`` so that Caffe's ``Restore`` takes it, atomically.

    Raises:
        PruneError: The folder cannot be written to or the disk is full.
    """
    head = SolverState(iter=state.iteration, learned_net=state.learned_net)
    tail = SolverState(current_step=state.current_step)
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        file.write(head.SerializeToString())
        for blob in state.history:
            write_blob(file, blob, _HISTORY)
        file.write(tail.SerializeToString())
