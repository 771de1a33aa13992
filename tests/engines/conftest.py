"""Small real runs: nets and solvers on scikit-learn's digits."""

from collections.abc import Callable
from pathlib import Path

import pytest

from data_prep.digits import build_digits
from pycaffe_prune.engines.caffe_engine import CaffeEngine

# Everything that a resume must bring back: random mirrors and crops in the data layer's own thread,
# dropout from the main thread's generator, momentum, a rate that changes at every iteration.
NET = """
name: "small"
layer {{ name: "data" type: "Data" top: "data" top: "label" include {{ phase: TRAIN }}
  transform_param {{ scale: 0.00390625 {transform} }}
  data_param {{ source: "mnist_train_lmdb" batch_size: {batch} backend: LMDB }} }}
layer {{ name: "data" type: "Data" top: "data" top: "label" include {{ phase: TEST }}
  transform_param {{ scale: 0.00390625 {test_transform} }}
  data_param {{ source: "mnist_test_lmdb" batch_size: 100 backend: LMDB }} }}
layer {{ name: "ip1" type: "InnerProduct" bottom: "data" top: "ip1"
  param {{ lr_mult: 1 }} param {{ lr_mult: 2 }}
  inner_product_param {{ num_output: 20 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "relu1" type: "ReLU" bottom: "ip1" top: "ip1" }}
{dropout}
layer {{ name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
  inner_product_param {{ num_output: 10 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "accuracy" type: "Accuracy" bottom: "ip2" bottom: "label" top: "accuracy"
  include {{ phase: TEST }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }}
"""

SOLVER = """
net: "net.prototxt"
lr_policy: "inv" gamma: 0.001 power: 0.75 weight_decay: 0.0005
max_iter: 200 display: 20 snapshot: 50 test_iter: 3 test_interval: 100
"""


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LMDBs of 1,500 and 297 real digits."""
    folder = tmp_path_factory.mktemp("digits")
    build_digits(folder)
    return folder


@pytest.fixture(scope="session")
def engine(caffe_python: Path) -> CaffeEngine:
    """The real Caffe."""
    return CaffeEngine(caffe_python)


@pytest.fixture
def make_solver(tmp_path: Path) -> Callable[..., Path]:
    """Write a net and its solver; return the solver's path."""

    def make(
        *,
        settings: str = "base_lr: 0.01 momentum: 0.9",
        random: bool = False,
        batch: int = 64,
    ) -> Path:
        folder = tmp_path / "net"
        folder.mkdir(exist_ok=True)
        net = NET.format(
            batch=batch,
            transform="mirror: true crop_size: 24" if random else "",
            test_transform="crop_size: 24" if random else "",
            dropout='layer { name: "drop1" type: "Dropout" bottom: "ip1" top: "ip1" }'
            if random
            else "",
        )
        (folder / "net.prototxt").write_text(net)
        (folder / "solver.prototxt").write_text(SOLVER + settings)
        return folder / "solver.prototxt"

    return make
