"""Hidden states from pass to pass, in training and at a restore: Caffe's and ours."""

from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from google.protobuf import text_format

from pycaffe_prune.engines.torch.solver import Solver
from pycaffe_prune.formats.caffe_pb2 import NetParameter, SolverParameter

pytestmark = pytest.mark.real_caffe

CaffeSolver = Callable[..., dict[str, np.ndarray]]

STEPS, STREAMS, BATCHES = 3, 2, 2
NET = """
layer { name: "data" type: "HDF5Data" top: "x" top: "cont" top: "seen" top: "label"
  hdf5_data_param { source: "files.txt" batch_size: 3 } }
layer { name: "first" type: "Slice" bottom: "seen" top: "now" top: "rest"
  slice_param { axis: 0 slice_point: 2 } }
layer { name: "rest" type: "Silence" bottom: "rest" }
layer { name: "lstm" type: "LSTM" bottom: "x" bottom: "cont" bottom: "now" top: "lstm"
  param { } param { lr_mult: 2 decay_mult: 0 } param { } param { lr_mult: 0.5 }
  recurrent_param { num_output: 5 weight_filler { type: "uniform" min: -1 max: 1 } } }
layer { name: "rnn" type: "RNN" bottom: "lstm" bottom: "cont" top: "rnn"
  recurrent_param { num_output: 4 weight_filler { type: "uniform" min: -1 max: 1 } } }
layer { name: "ip" type: "InnerProduct" bottom: "rnn" top: "ip"
  inner_product_param { num_output: 2 axis: 2 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
SOLVER = """net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" momentum: 0.9 weight_decay: 0.01
  iter_size: 2 random_seed: 4 snapshot_prefix: "theirs" """


@pytest.fixture
def solver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    random = np.random.default_rng(0)
    rows = STEPS * BATCHES
    marks = np.ones((rows, STREAMS), np.float32)
    marks[4, 1] = 0  # one sequence is never begun anew
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["x"] = random.normal(size=(rows, STREAMS, 3)).astype(np.float32)
        file["cont"] = marks
        file["seen"] = random.normal(size=(rows, 2)).astype(np.float32)
        file["label"] = random.normal(size=(rows, STREAMS, 2)).astype(np.float32)
    (tmp_path / "files.txt").write_text("data.h5\n")
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "solver.prototxt"


def ours(solver: Path, start: Sequence[np.ndarray]) -> Solver:
    made = Solver(
        text_format.Parse(solver.read_text(), SolverParameter()),
        text_format.Parse(NET, NetParameter()),
        torch.device("cpu"),
    )
    for blob, values in zip(blobs_of(made), start, strict=True):
        blob[...] = values
    return made


def blobs_of(solver: Solver) -> list[np.ndarray]:
    return [blob.data for blobs in solver.net.params.values() for blob in blobs]


def numbered(found: dict[str, np.ndarray], key: str) -> list[np.ndarray]:
    return [found[f"{key}:{index}"] for index in range(11)]


def largest_gap(mine: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> float:
    return max(
        float(np.abs(one - other).max() / np.abs(other).max())
        for one, other in zip(mine, theirs, strict=True)
    )


def test_states_go_from_pass_to_pass_and_not_into_snapshots(
    caffe_solver: CaffeSolver, solver: Path
) -> None:
    theirs = caffe_solver(solver, "train", state=None, steps=6)
    mine = ours(solver, numbered(theirs, "start"))
    for step in range(1, 7):
        mine.step(1)
        assert largest_gap(blobs_of(mine), numbered(theirs, f"data:{step}")) < 1e-5
    # A restored run begins with states of zeros, in Caffe too: it is not the run that goes on.
    state = solver.parent / "theirs_iter_6.solverstate"
    again = caffe_solver(solver, "train", state=str(state), steps=2)
    restored = ours(solver, numbered(theirs, "start"))
    restored.restore(state)
    restored.step(2)
    mine.step(2)
    assert largest_gap(blobs_of(restored), numbered(again, "data:2")) < 1e-5
    assert largest_gap(blobs_of(mine), numbered(again, "data:2")) > 1e-3
