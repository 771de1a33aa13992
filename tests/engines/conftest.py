"""Small real runs: nets and solvers on scikit-learn's digits."""

from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from shutil import copy2

import numpy as np
import pytest

from pycaffe_prune.engines.base import Engine
from pycaffe_prune.engines.caffe.engine import CaffeEngine
from pycaffe_prune.engines.job import TrainRequest
from pycaffe_prune.engines.run import train
from pycaffe_prune.engines.torch.engine import TorchEngine
from pycaffe_prune.formats.caffemodel import read_caffemodel, write_caffemodel
from pycaffe_prune.formats.mask import MaskFile, write_mask
from pycaffe_prune.pruning.connections import prune_connections, thresholds

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
def caffe_engine(caffe_python: Path) -> CaffeEngine:
    """The real Caffe."""
    return CaffeEngine(caffe_python)


@pytest.fixture(scope="session")
def torch_engine() -> Iterator[TorchEngine]:
    """The torch engine."""
    engine = TorchEngine()
    yield engine
    engine.close()


@pytest.fixture(params=[pytest.param("caffe", marks=pytest.mark.real_caffe), "torch"])
def engine(request: pytest.FixtureRequest) -> Engine:
    """Each engine."""
    return request.getfixturevalue(f"{request.param}_engine")


@pytest.fixture
def stoppable(engine: Engine, request: pytest.FixtureRequest) -> Iterator[Engine]:
    """An engine like ``engine`` for one test: stop is for good."""
    is_caffe = engine.name == "caffe"
    made = CaffeEngine(request.getfixturevalue("caffe_python")) if is_caffe else TorchEngine()
    yield made
    made.close()


def _write_solver(
    folder: Path,
    *,
    settings: str = "base_lr: 0.01 momentum: 0.9",
    random: bool = False,
    batch: int = 64,
) -> Path:
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


@pytest.fixture
def make_solver(tmp_path: Path) -> Callable[..., Path]:
    """Write a net and its solver; return the solver's path."""
    return partial(_write_solver, tmp_path / "net")


@pytest.fixture
def request_for(digits, make_solver):
    """Make a TrainRequest for the small net."""

    def make(solver: Path | None = None, **fields) -> TrainRequest:
        return TrainRequest(solver=solver or make_solver(), data=digits, **{"seed": 3, **fields})

    return make


@pytest.fixture(scope="session")
def pruned_by(
    digits: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Engine], tuple[Path, dict]]:
    """Train the small net with an engine and prune it, once: folder of the files, and masks."""

    @cache
    def prune(engine: Engine) -> tuple[Path, dict]:
        folder = tmp_path_factory.mktemp("pruned")
        request = TrainRequest(solver=_write_solver(folder), data=digits, seed=3, max_iter=60)
        train(request, folder / "base", engine, _ignore)
        base = read_caffemodel(folder / "base" / "final.caffemodel")
        model, masks = prune_connections(base, thresholds(base, base, 1.0, ["ip1", "ip2"]))
        write_caffemodel(folder / "pruned.caffemodel", model)
        write_mask(folder / "kept.mask.h5", MaskFile(masks, "0" * 64, "threshold"))
        return folder, masks

    return prune


@pytest.fixture
def pruned(tmp_path, pruned_by, engine) -> tuple[Path, Path, dict]:
    """A trained and pruned model of the small net: weights, mask file, masks."""
    folder, masks = pruned_by(engine)
    weights, mask = (
        Path(copy2(folder / name, tmp_path)) for name in ("pruned.caffemodel", "kept.mask.h5")
    )
    return weights, mask, {key: kept.copy() for key, kept in masks.items()}


@pytest.fixture
def three(tmp_path, pruned) -> list[Path]:
    """Three caffemodels of the small net whose scores differ, the first two times."""
    weights, _, _ = pruned
    model = read_caffemodel(weights)
    paths = [weights]
    for scale in (-1, 0.5):
        paths.append(tmp_path / f"times{scale}.caffemodel")
        changed = model.layer("ip2").blobs[0] * np.float32(scale)
        write_caffemodel(paths[-1], model.with_blobs({("ip2", 0): changed}))
    return [*paths, weights]


def _ignore(event: object) -> None:
    pass
