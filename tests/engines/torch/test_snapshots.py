from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pycaffe_prune.engines.torch.snapshots import read_snapshot, write_snapshot
from pycaffe_prune.errors import FormatError, SurgeryError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer, read_caffemodel
from pycaffe_prune.formats.solverstate import Solverstate, read_solverstate, write_solverstate

BLOB = np.arange(6, dtype=np.float32).reshape(2, 3)
WEIGHTS = Caffemodel((Layer(LayerParameter(name="ip", type="InnerProduct"), (BLOB,)),))

histories = st.lists(hnp.arrays(np.float32, hnp.array_shapes(max_dims=4, max_side=4)), max_size=4)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    history=histories,
    iteration=st.integers(0, 2**31 - 1),
    step=st.integers(0, 9),
    name=st.sampled_from(["lenet_iter_5", "alpha_0.5", "a.caffemodel"]),
)
def test_what_is_written_is_read_back(
    history: list[np.ndarray], iteration: int, step: int, name: str, tmp_path: Path
) -> None:
    write_snapshot(tmp_path / name, WEIGHTS, iteration, history, step)
    found = read_snapshot(tmp_path / f"{name}.solverstate", [blob.shape for blob in history])
    assert (found.iteration, found.current_step) == (iteration, step)
    assert [blob.tobytes() for blob in found.history] == [blob.tobytes() for blob in history]
    assert found.weights == tmp_path / f"{name}.caffemodel"
    assert read_caffemodel(found.weights).layer("ip").blobs[0].tobytes() == BLOB.tobytes()
    # Restored with its folder as working directory: a path would lead elsewhere.
    assert read_solverstate(tmp_path / f"{name}.solverstate").learned_net == found.weights.name


def test_a_history_of_another_net_or_solver_is_refused(tmp_path: Path) -> None:
    write_snapshot(tmp_path / "a", WEIGHTS, 1, [BLOB, BLOB[0]])
    state = tmp_path / "a.solverstate"
    with pytest.raises(SurgeryError, match=r"a history of 2 blobs, the solver needs 4; resume"):
        read_snapshot(state, [(2, 3), (3,)] * 2)
    with pytest.raises(SurgeryError, match=r"history blob 1 is 3, the net says 4; resume"):
        read_snapshot(state, [(2, 3), (4,)])


def test_weights_are_looked_for_where_they_are_named_then_beside(tmp_path: Path) -> None:
    state = tmp_path / "a.solverstate"
    write_solverstate(state, Solverstate(1, "runs/a.caffemodel", ()))
    with pytest.raises(FormatError, match=r"its weights 'runs/a\.caffemodel' are not"):
        read_snapshot(state, [])
    (tmp_path / "a.caffemodel").touch()
    assert read_snapshot(state, []).weights == tmp_path / "a.caffemodel"
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "a.caffemodel").touch()
    assert read_snapshot(state, []).weights == tmp_path / "runs" / "a.caffemodel"


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ("iter", "no dataset '/iter' of one value"),
        ("current_step", "no dataset '/current_step' of one value"),
        ("learned_net", "no dataset '/learned_net' of one value"),
        ("history", "'/history' is no group"),
        ("history/0", "no dataset '/history/0' of 1"),
    ],
)
def test_an_incomplete_hdf5_state_is_refused(missing: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "a.solverstate.h5"
    with h5py.File(path, "w") as file:
        file["iter"], file["current_step"], file["learned_net"] = 3, 1, np.bytes_("a.caffemodel")
        file["history/0"] = file["history/1"] = BLOB
        del file[missing]
    with pytest.raises(FormatError, match=f"^{path}: .*{sentence}; an HDF5 solverstate"):
        read_snapshot(path, [])
