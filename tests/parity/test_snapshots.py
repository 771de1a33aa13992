from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from pycaffe_prune.engines.torch.snapshots import read_snapshot, write_snapshot
from pycaffe_prune.engines.torch.solver import Solver
from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffemodel import BlobKey, read_diffs
from pycaffe_prune.formats.prototxt import read_net, read_solver
from pycaffe_prune.formats.weights import read_weights

pytestmark = pytest.mark.real_caffe

# Constant data: nothing but weights, history and iteration decides the next step. ip1 and ip3
# share their weights, which have one history.
NET = """
layer { name: "data" type: "DummyData" top: "data" top: "label"
        dummy_data_param { shape { dim: 4 dim: 3 } shape { dim: 4 dim: 3 }
                           data_filler { value: 0.5 } data_filler { value: 2 } } }
layer { name: "ip1" type: "InnerProduct" bottom: "data" top: "ip1" param { name: "shared" }
        inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
        inner_product_param { num_output: 3 weight_filler { type: "xavier" } bias_term: false } }
layer { name: "ip3" type: "InnerProduct" bottom: "ip2" top: "ip3" param { name: "shared" }
        inner_product_param { num_output: 3 weight_filler { type: "xavier" } bias_term: false } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip3" bottom: "label" }
"""
SOLVER = """
net: "net.prototxt" type: "%s" base_lr: 0.01 momentum: %g weight_decay: 0.001 random_seed: 3
lr_policy: "multistep" gamma: 0.5 stepvalue: 2 stepvalue: 2 max_iter: 100
snapshot_prefix: "theirs" snapshot_format: %s snapshot_diff: true
"""
SHAPES = [(3, 3), (3,), (3, 3)]
TYPES = {"SGD": 1, "Nesterov": 1, "AdaGrad": 1, "RMSProp": 1, "AdaDelta": 2, "Adam": 2}


@pytest.mark.parametrize("form", ["BINARYPROTO", "HDF5"])
@pytest.mark.parametrize("kind", TYPES)
def test_caffes_snapshot_is_read_and_caffe_goes_on_from_ours(
    kind: str, form: str, caffe_solver: Callable[..., dict[str, np.ndarray]], tmp_path: Path
) -> None:
    solver, ending = tmp_path / "solver.prototxt", ".h5" if form == "HDF5" else ""
    momentum = 0 if kind in ("AdaGrad", "RMSProp") else 0.9
    solver.write_text(SOLVER % (kind, momentum, form))
    (tmp_path / "net.prototxt").write_text(NET)
    straight = caffe_solver(solver, "train", state=None, steps=5)
    caffe_solver(solver, "train", state=None, steps=3)

    path = tmp_path / f"theirs_iter_3.solverstate{ending}"
    found = read_snapshot(path, SHAPES * TYPES[kind])
    assert (found.iteration, found.current_step) == (3, 1)
    assert found.weights == tmp_path / f"theirs_iter_3.caffemodel{ending}"
    assert all(np.isfinite(blob).all() and blob.any() for blob in found.history)
    with pytest.raises(SurgeryError, match="resume with the net and the type of solver"):
        read_snapshot(path, SHAPES * (3 - TYPES[kind]))

    ours = Solver(read_solver(solver), read_net(tmp_path / "net.prototxt"))
    ours.restore(path)
    ours.step(2)
    ours.snapshot(tmp_path / "mine")
    mine = read_diffs(tmp_path / "mine.caffemodel")
    theirs = gradients(tmp_path / f"theirs_iter_5.caffemodel{ending}")
    assert mine.keys() == theirs.keys()
    for key, diff in theirs.items():
        np.testing.assert_allclose(mine[key], diff, rtol=1e-4, atol=1e-7)
        assert diff.any()

    weights = read_weights(found.weights)
    write_snapshot(tmp_path / "ours", weights, 3, found.history, found.current_step)
    for left in tmp_path.glob("theirs*"):
        left.unlink()
    resumed = caffe_solver(solver, "train", state="ours.solverstate", steps=2)
    assert len(straight) > len(resumed)
    for index in range(len(SHAPES)):
        before, after = (resumed[key] for key in (f"start:{index}", f"data:2:{index}"))
        np.testing.assert_array_equal(before, straight[f"data:3:{index}"])
        np.testing.assert_array_equal(after, straight[f"data:5:{index}"])
        assert not np.array_equal(before, after)  # it did learn on


def gradients(path: Path) -> dict[BlobKey, np.ndarray]:
    """What Caffe has written beside the weights."""
    if path.suffix != ".h5":
        return read_diffs(path)
    with h5py.File(path) as file:
        return {
            (layer, int(index)): diff[()].flatten()
            for layer, diffs in file["diff"].items()
            for index, diff in diffs.items()
        }
