"""A small real experiment on scikit-learn's digits."""

from pathlib import Path

import pytest

from pycaffe_prune.experiments.plan import Plan, make_plan, solver_path
from pycaffe_prune.experiments.result import DataSet
from pycaffe_prune.experiments.spec import read_experiment

TOML = """
name = "small"
preset = "test"
title = "Small"
solver = "solver.prototxt"
data = "mnist"
layers = ["ip1", "ip2", "ip3"]
[baseline]
seeds = [1, 2]
iterations = 150
[[methods]]
kind = "connections"
alphas = [0.8, 1.6]
rounds = 2
iterations = 60
[[methods]]
kind = "units"
layer = "ip1"
ratios = [0.5, 0.9]
fixed = { ip2 = 0.5 }
iterations = 60
[[methods]]
kind = "small"
seeds = [1, 2]
iterations = 60
"""

NET = """
layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  transform_param { scale: 0.00390625 }
  data_param { source: "mnist_train_lmdb" batch_size: 32 backend: LMDB } }
layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TEST }
  transform_param { scale: 0.00390625 }
  data_param { source: "mnist_test_lmdb" batch_size: 100 backend: LMDB } }
layer { name: "ip1" type: "InnerProduct" bottom: "data" top: "ip1"
  inner_product_param { num_output: 20 weight_filler { type: "xavier" } } }
layer { name: "r1" type: "ReLU" bottom: "ip1" top: "ip1" }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
  inner_product_param { num_output: 12 weight_filler { type: "xavier" } } }
layer { name: "r2" type: "ReLU" bottom: "ip2" top: "ip2" }
layer { name: "ip3" type: "InnerProduct" bottom: "ip2" top: "ip3"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip3" bottom: "label" top: "accuracy"
  include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip3" bottom: "label" top: "loss" }
"""

SOLVER = """
net: "net.prototxt" base_lr: 0.02 momentum: 0.9 weight_decay: 0.0005 lr_policy: "fixed"
max_iter: 100 test_iter: 3 test_interval: 100 snapshot: 40
"""


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    """The experiment's TOML file, with solver and net beside it."""
    folder = tmp_path / "experiment"
    folder.mkdir()
    (folder / "net.prototxt").write_text(NET)
    (folder / "solver.prototxt").write_text(SOLVER)
    (folder / "small.toml").write_text(TOML)
    return folder / "small.toml"


@pytest.fixture(scope="session")
def net_text() -> str:
    """The experiment's net."""
    return NET


@pytest.fixture
def data_set() -> DataSet:
    """What the digits are, for content keys."""
    return DataSet(
        name="digits",
        is_sample=True,
        train_images=1500,
        test_images=297,
        train_sha256="1" * 64,
        test_sha256="2" * 64,
    )


def plan_of(toml: Path, out: Path, data: Path, data_set: DataSet) -> Plan:
    """Plan an experiment for the real Caffe."""
    spec = read_experiment(toml)
    return make_plan(spec, solver_path(spec, toml), out, data, data_set, "caffe")
