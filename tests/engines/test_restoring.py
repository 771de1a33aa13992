"""A run that goes on from a solverstate elsewhere is the run that left it, gone on."""

import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from pycaffe_prune.engines.base import Event
from pycaffe_prune.engines.run import train
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.errors import FormatError, SurgeryError
from pycaffe_prune.formats.caffemodel import read_caffemodel, write_caffemodel
from pycaffe_prune.formats.hdf5 import write_hdf5_weights
from pycaffe_prune.formats.mask import MaskFile, write_mask
from pycaffe_prune.formats.solverstate import Solverstate, read_solverstate, write_solverstate


def ignore(event: Event) -> None:
    """An observer that looks away."""


def as_hdf5(state: Path) -> Path:
    """Write a snapshot as Caffe does with ``snapshot_format: HDF5``."""
    held: Solverstate = read_solverstate(state)
    weights, ordered = state.with_suffix(".caffemodel.h5"), state.with_name("ordered.h5")
    write_hdf5_weights(ordered, read_caffemodel(state.with_suffix(".caffemodel")))
    with h5py.File(ordered) as ours, h5py.File(weights, "w") as file:
        for name, layer in ours["data"].items():  # theirs come sorted by name
            ours.copy(layer, file.require_group("data"), name)
    target = state.with_name(f"{state.name}.h5")
    with h5py.File(target, "w") as file:
        file["iter"], file["current_step"] = np.int32(held.iteration), np.int32(held.current_step)
        file["learned_net"] = np.bytes_(weights.name)
        for index, blob in enumerate(held.history):
            file[f"history/{index}"] = blob
    return target


@pytest.mark.parametrize("form", ["binary", "hdf5"])
def test_training_and_going_on_elsewhere_is_training_at_once(
    tmp_path: Path, request_for, make_solver, engine, form: str
) -> None:
    request = request_for(make_solver(random=form == "binary"), max_iter=40)
    whole = train(request, tmp_path / "whole", engine, ignore)
    train(replace(request, max_iter=23), tmp_path / "part", engine, ignore)
    state = RunFolder(tmp_path / "part").snapshots / "snapshot_iter_23.solverstate"
    if form == "hdf5":
        state = as_hdf5(state)
    going_on = replace(request, restore=state, max_iter=31)
    events: list[Event] = []
    first = train(going_on, tmp_path / "on", engine, events.append)
    assert first.restored is not None
    assert first.restored.iteration == 23
    assert [event.iteration for event in events if event.event == "resumed"] == [23]
    on = train(replace(going_on, max_iter=40), tmp_path / "on", engine, ignore)
    assert on.weights_sha256 == whole.weights_sha256
    if form == "binary":
        with pytest.raises(FormatError, match="another run: other solverstate; choose"):
            train(request, tmp_path / "on", engine, ignore)


def test_another_rate_is_said_and_followed(
    tmp_path: Path, request_for, make_solver, engine
) -> None:
    request = request_for(max_iter=20)
    train(request, tmp_path / "part", engine, ignore)
    state = RunFolder(tmp_path / "part").snapshots / "snapshot_iter_20.solverstate"
    weights = read_caffemodel(tmp_path / "part" / "final.caffemodel")
    slow = make_solver(settings="base_lr: 0 momentum: 0")
    events: list[Event] = []
    going_on = replace(request, solver=slow, restore=state, max_iter=25)
    train(going_on, tmp_path / "on", engine, events.append)
    (told,) = [event.message for event in events if event.event == "restored"]
    assert "at iteration 20, with base_lr 0.01 -> 0.0, momentum 0.9 -> 0.0" in told
    assert told in (tmp_path / "on" / "log.jsonl").read_text()
    after = read_caffemodel(tmp_path / "on" / "final.caffemodel")
    for (key, blob), (_, moved) in zip(weights.blobs(), after.blobs(), strict=True):
        np.testing.assert_array_equal(blob, moved, str(key))


@pytest.fixture
def left(tmp_path: Path, request_for, torch_engine) -> Path:
    """A solverstate at iteration 5, alone with its weights."""
    train(request_for(max_iter=5), tmp_path / "part", torch_engine, ignore)
    shutil.move(RunFolder(tmp_path / "part").snapshots, tmp_path / "left")
    return tmp_path / "left" / "snapshot_iter_5.solverstate"


def test_weights_are_found_beside_a_state_that_names_them_from_elsewhere(
    tmp_path: Path, request_for, torch_engine, left: Path
) -> None:
    state = read_solverstate(left)
    named = replace(state, learned_net="examples/mnist/lenet_iter_5.caffemodel")
    renamed = left.with_name("lenet_iter_5.solverstate")
    write_solverstate(renamed, named)
    left.with_suffix(".caffemodel").rename(renamed.with_suffix(".caffemodel"))
    left.unlink()
    request = request_for(max_iter=9, restore=renamed)
    result = train(request, tmp_path / "run", torch_engine, ignore)
    whole = train(request_for(max_iter=9), tmp_path / "whole", torch_engine, ignore)
    assert result.weights_sha256 == whole.weights_sha256


def test_what_cannot_be_gone_on_from_is_refused(
    tmp_path: Path, request_for, torch_engine, left: Path
) -> None:
    def refused(error: type[Exception], match: str, **fields: object) -> None:
        request = request_for(**{"max_iter": 9, "restore": left, **fields})
        with pytest.raises(error, match=match):
            train(request, tmp_path / "run", torch_engine, ignore)
        assert not (tmp_path / "run" / "job.json").exists()

    refused(FormatError, r"is at iteration 5, and max_iter is 5; give a larger", max_iter=5)
    weights = left.with_suffix(".caffemodel")
    refused(FormatError, "--restore or --weights", weights=weights)
    mask = np.ones((20, 784), bool)
    mask[0, 400] = False
    write_mask(tmp_path / "kept.mask.h5", MaskFile({("ip1", 0): mask}, "", ""))
    told = "'ip1', blob 0: 1 weights are not zero that the mask prunes"
    refused(SurgeryError, told, mask=tmp_path / "kept.mask.h5")
    refused(FormatError, "no such file", restore=tmp_path / "none.solverstate")
    weights.unlink()
    refused(FormatError, r"'snapshot_iter_5\.caffemodel' are not there; put them beside it")


@pytest.mark.parametrize("form", ["binary", "hdf5"])
def test_what_was_trained_before_it_was_pruned_does_not_move_on(
    tmp_path: Path, request_for, engine, torch_engine, form: str
) -> None:
    request = request_for(max_iter=5)
    # HDF5 sorts layers by name: the first one by its place in the net comes last.
    net = request.solver.with_name("net.prototxt")
    net.write_text(net.read_text().replace('"ip1"', '"zip1"'))
    train(request, tmp_path / "part", torch_engine, ignore)
    state = RunFolder(tmp_path / "part").state_at(5)
    weights = state.with_suffix(".caffemodel")
    model = read_caffemodel(weights)
    mask = np.random.default_rng(0).random((20, 784)) < 0.5
    model = model.with_blobs({("zip1", 0): np.where(mask, model.layer("zip1").blobs[0], 0)})
    write_caffemodel(weights, model)
    assert np.count_nonzero(read_solverstate(state).history[0][~mask])
    if form == "hdf5":
        state = as_hdf5(state)
    kept = tmp_path / "kept.mask.h5"
    write_mask(kept, MaskFile({("zip1", 0): mask}, "", ""))
    going_on = replace(request, max_iter=12, restore=state, mask=kept)
    train(going_on, tmp_path / "run", engine, ignore)
    after = read_caffemodel(tmp_path / "run" / "final.caffemodel").layer("zip1").blobs[0]
    assert not np.count_nonzero(after[~mask])
    assert (after != model.layer("zip1").blobs[0])[mask].mean() > 0.5
    last = read_solverstate(RunFolder(tmp_path / "run").state_at(12))
    assert not np.count_nonzero(last.history[0][~mask])
