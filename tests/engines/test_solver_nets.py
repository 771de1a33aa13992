"""Nets that are named apart or chosen by states, trained whole: the cases that went wrong."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from pycaffe_prune.engines.base import Event
from pycaffe_prune.engines.job import TrainRequest
from pycaffe_prune.engines.run import train
from pycaffe_prune.formats.caffemodel import Caffemodel, read_caffemodel
from pycaffe_prune.net.state_wish import StateWish

CASES = Path(__file__).parents[1] / "cases"


def ignore(event: Event) -> None:
    """An observer that looks away."""


def trained(solver: Path, out: Path, engine, **wishes) -> Caffemodel:
    train(TrainRequest(solver=solver, **wishes), out, engine, ignore)
    return read_caffemodel(out / "final.caffemodel")


@pytest.mark.parametrize("case", ["train_state", "net_state"])
def test_a_state_chooses_the_layers_that_are_trained(case: str, tmp_path: Path, engine) -> None:
    model = trained(CASES / f"{case}_solver.prototxt", tmp_path / "run", engine)
    assert [layer.name for layer in model.layers if layer.blobs] == ["a"]


def test_a_stage_of_one_s_own_is_added(tmp_path: Path, engine) -> None:
    shutil.copy(CASES / "train_state_net.prototxt", tmp_path)
    solver = tmp_path / "solver.prototxt"
    solver.write_text('net: "train_state_net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 2')
    for stages, wanted in (((), "b"), (("deep",), "a")):
        model = trained(solver, tmp_path / wanted, engine, state=StateWish(stages=stages))
        assert [layer.name for layer in model.layers if layer.blobs] == [wanted]


@pytest.mark.parametrize("solver", ["solver_weights_solver", "solver_weights_rel_solver"])
def test_the_solver_s_weights_are_loaded_wherever_the_command_is_typed(
    solver: str, tmp_path: Path, engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = trained(CASES / f"{solver}.prototxt", tmp_path / "run", engine)
    told = read_caffemodel(CASES / "fork_type.caffemodel").layer("ip1").blobs
    held = model.layer("ip1").blobs  # lr_mult: 0
    assert all(np.array_equal(one, other) for one, other in zip(told, held, strict=True))


STAGED = """
layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TRAIN stage: "few" }
  transform_param { scale: 0.004 }
  data_param { source: "mnist_train_lmdb" batch_size: 7 backend: LMDB } }
layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TEST stage: "all" }
  transform_param { scale: 0.004 }
  data_param { source: "mnist_test_lmdb" batch_size: 99 backend: LMDB } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy"
  include { phase: TEST } }
"""


def test_data_layers_that_a_stage_chooses_are_tested_and_go_on_after_a_stop(
    tmp_path: Path, digits: Path, engine
) -> None:
    (tmp_path / "net.prototxt").write_text(STAGED)
    solver = tmp_path / "solver.prototxt"
    solver.write_text(
        'net: "net.prototxt" train_state { stage: "few" } test_state { stage: "all" } test_iter: 3 '
        'test_interval: 10 test_initialization: false base_lr: 0.1 lr_policy: "fixed" max_iter: 20 '
        "random_seed: 1 snapshot: 10"
    )
    request = TrainRequest(solver=solver, data=digits)
    whole = train(request, tmp_path / "whole", engine, ignore)
    assert [test.iteration for test in whole.tests] == [10, 20]
    assert whole.final_test.images == 297
    parts = tmp_path / "parts"
    train(TrainRequest(solver=solver, data=digits, max_iter=10), parts, engine, ignore)
    again = train(request, parts, engine, ignore)
    assert again.weights_sha256 == whole.weights_sha256
