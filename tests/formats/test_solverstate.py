import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.caffe_pb2 import SolverState
from pycaffe_prune.formats.caffemodel import read_caffemodel, write_caffemodel
from pycaffe_prune.formats.hdf5 import read_hdf5_solverstate, write_hdf5_solverstate
from pycaffe_prune.formats.solverstate import (
    Solverstate,
    read_solverstate,
    write_solverstate,
)

# The folder is the same for all examples: each one writes its file anew.
one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])

blobs = hnp.arrays(np.float32, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
states = st.builds(
    Solverstate,
    st.integers(0, 2**31 - 1),
    st.text(),
    st.lists(blobs, max_size=3).map(tuple),
    st.integers(0, 2**31 - 1),
)


@pytest.mark.usefixtures("no_fsync")
@one_folder
@given(state=states)
def test_what_is_written_is_read_back_and_protobuf_agrees(
    tmp_path: Path, state: Solverstate
) -> None:
    path = tmp_path / "a.solverstate"
    write_solverstate(path, state)
    found = read_solverstate(path)
    assert replace(found, history=()) == replace(state, history=())
    assert [blob.shape for blob in found.history] == [blob.shape for blob in state.history]
    assert [blob.tobytes() for blob in found.history] == [b.tobytes() for b in state.history]

    proto = SolverState(
        iter=state.iteration, learned_net=state.learned_net, current_step=state.current_step
    )
    for blob in state.history:
        proto.history.add(data=blob.reshape(-1).tolist()).shape.dim.extend(blob.shape)
    assert path.read_bytes() == proto.SerializeToString()


@pytest.mark.usefixtures("no_fsync")
@one_folder
@given(state=states.filter(lambda state: "\0" not in state.learned_net))
def test_what_is_written_as_hdf5_is_read_back(tmp_path: Path, state: Solverstate) -> None:
    path = tmp_path / "a.solverstate.h5"
    write_hdf5_solverstate(path, state)
    found = read_hdf5_solverstate(path)
    assert replace(found, history=()) == replace(state, history=())
    assert [blob.shape for blob in found.history] == [blob.shape for blob in state.history]
    assert [blob.tobytes() for blob in found.history] == [b.tobytes() for b in state.history]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (SolverState(learned_net="a").SerializeToString(), "holds no iteration"),
        (SolverState(iter=3).SerializeToString(), "names no weights"),
        (b"\x08\x03\x12\x02\xff\xfe", "(UTF|utf)-8"),
        (b"iter: 3 learned_net: 'text'", "at byte"),
    ],
)
def test_what_is_no_solverstate_is_refused(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "bad.solverstate"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=f"^{path}: .*{sentence}.*; a binary .solverstate is nee"):
        read_solverstate(path)


def read_or_refuse(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        state = read_solverstate(path)
    except FormatError:
        return
    assert isinstance(state.learned_net, str)
    assert all(blob.dtype == np.float32 for blob in state.history)
    write_solverstate(path.with_suffix(".again"), state)  # what is read can be written


@pytest.mark.usefixtures("no_fsync")
def test_damage_is_read_or_refused(tmp_path: Path) -> None:
    history = (np.ones((2, 3), np.float32), np.zeros((3,), np.float32))
    write_solverstate(tmp_path / "sound", Solverstate(7, "a.caffemodel", history, 1))
    content = (tmp_path / "sound").read_bytes()
    read_solverstate(tmp_path / "sound")
    for cut in range(1, len(content)):
        read_or_refuse(tmp_path / "cut", content[:cut])
    pick = random.Random(5)  # noqa: S311 -- no secret
    flips = [[bit] for bit in range(len(content) * 8)]
    flips += [pick.choices(range(len(content) * 8), k=pick.randint(2, 9)) for _ in range(300)]
    for bits in flips:
        damaged = bytearray(content)
        for bit in bits:
            damaged[bit // 8] ^= 1 << bit % 8
        read_or_refuse(tmp_path / "flipped", bytes(damaged))


@pytest.mark.usefixtures("no_fsync")
@one_folder
@given(content=st.binary(min_size=1, max_size=200))
def test_random_bytes_are_read_or_refused(tmp_path: Path, content: bytes) -> None:
    read_or_refuse(tmp_path / "random", content)


# Constant data: nothing but weights, history and iteration decides the next step.
NET = """
layer { name: "data" type: "DummyData" top: "data" top: "label"
        dummy_data_param { shape { dim: 4 dim: 3 } shape { dim: 4 dim: 2 }
                           data_filler { value: 0.5 } data_filler { value: 2 } } }
layer { name: "ip1" type: "InnerProduct" bottom: "data" top: "ip1" param { lr_mult: 1 }
        inner_product_param { num_output: 5 weight_filler { type: "gaussian" } } }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
        inner_product_param { num_output: 2 weight_filler { type: "gaussian" } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip2" bottom: "label" }
"""
SOLVER = """
net: "net.prototxt" base_lr: 0.01 momentum: 0.9 weight_decay: 0.001 random_seed: 3
lr_policy: "multistep" gamma: 0.5 stepvalue: 2 stepvalue: 4 max_iter: 100
snapshot_prefix: "theirs" snapshot_after_train: false
"""


@pytest.mark.real_caffe
def test_pycaffes_state_is_read_and_ours_is_restored(
    run_caffe: Callable[..., None], tmp_path: Path
) -> None:
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    run_caffe("train", "solver.prototxt", "3", "-", "snapshot", "three.npz", cwd=tmp_path)
    run_caffe("train", "solver.prototxt", "5", "-", "-", "five.npz", cwd=tmp_path)

    state = read_solverstate(tmp_path / "theirs_iter_3.solverstate")
    assert (state.iteration, state.current_step) == (3, 1)
    assert state.learned_net == "theirs_iter_3.caffemodel"
    assert [blob.shape for blob in state.history] == [(5, 3), (5,), (2, 5), (2,)]
    assert all(np.isfinite(blob).all() and blob.any() for blob in state.history)
    weights = read_caffemodel(tmp_path / state.learned_net)
    with np.load(tmp_path / "three.npz") as three:
        for (name, index), blob in weights.blobs():
            np.testing.assert_array_equal(blob, three[f"{name}:{index}"])

    write_solverstate(tmp_path / "same", state)
    original = (tmp_path / "theirs_iter_3.solverstate").read_bytes()
    assert (tmp_path / "same").read_bytes() == original

    write_caffemodel(tmp_path / "ours.caffemodel", weights)
    ours = replace(state, learned_net="ours.caffemodel")
    write_solverstate(tmp_path / "ours.solverstate", ours)
    for name in ("theirs_iter_3.caffemodel", "theirs_iter_3.solverstate"):
        (tmp_path / name).unlink()
    run_caffe("train", "solver.prototxt", "2", "ours.solverstate", "-", "on.npz", cwd=tmp_path)
    with np.load(tmp_path / "five.npz") as straight, np.load(tmp_path / "on.npz") as resumed:
        assert resumed["restored_iter"] == 3
        assert resumed["iter"] == straight["iter"] == 5
        for (name, index), blob in weights.blobs():
            key = f"{name}:{index}"
            np.testing.assert_array_equal(resumed[key], straight[key])
            assert not np.array_equal(resumed[key], blob)  # it did learn on
