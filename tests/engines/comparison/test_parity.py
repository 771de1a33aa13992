"""Engines compared: the real Caffe with itself, and with itself led astray."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pycaffe_prune.engines.base import Observer, TrainResult
from pycaffe_prune.engines.caffe.engine import CaffeEngine
from pycaffe_prune.engines.comparison.parity import compare_engines, follow, store_runs
from pycaffe_prune.engines.comparison.trajectory import read_trajectory
from pycaffe_prune.engines.job import Job, TrainRequest
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.engines.torch.engine import TorchEngine
from pycaffe_prune.errors import EngineError, FormatError
from pycaffe_prune.formats.caffemodel import read_caffemodel, write_caffemodel
from pycaffe_prune.formats.mask import MaskFile, write_mask
from pycaffe_prune.formats.prototxt import read_net, read_solver, write_prototxt

pytestmark = pytest.mark.real_caffe


class Again(CaffeEngine):
    """The real Caffe under another name."""

    name = "again"


class Astray(CaffeEngine):
    """The real Caffe, which takes steps that are a little too large."""

    name = "astray"

    def train(self, folder: RunFolder, job: Job, observe: Observer) -> TrainResult:
        solver = read_solver(folder.solver)
        solver.base_lr *= 1.001
        write_prototxt(folder.solver, solver)
        return super().train(folder, job, observe)


@pytest.fixture
def request_(make_solver, digits: Path) -> TrainRequest:
    return TrainRequest(solver=make_solver(), data=digits, seed=5)


def mask_of(tmp_path: Path) -> Path:
    kept = np.random.default_rng(0).random((20, 784)) < 0.3
    path = tmp_path / "kept.mask.h5"
    write_mask(path, MaskFile({("ip1", 0): kept}, "0" * 64, "threshold", {}))
    return path


@pytest.mark.parametrize("masked", [False, True])
def test_an_engine_trains_like_itself(
    request_: TrainRequest, caffe_python: Path, tmp_path: Path, masked: bool
) -> None:
    mask = mask_of(tmp_path) if masked else None
    engines = CaffeEngine(caffe_python), Again(caffe_python)
    found = compare_engines(replace(request_, mask=mask), engines, 12, tmp_path / "runs")
    assert found.is_same
    assert found.engines == ("caffe", "again")
    assert [point.iteration for point in found.checkpoints] == [1, 10, 12]
    assert {part.relative for point in found.checkpoints for part in point.differences} == {0}
    assert [(test.iteration, test.images) for test in found.tests] == [(0, 297), (12, 297)]
    way = read_trajectory(tmp_path / "runs" / "again", 12)
    assert list(way.losses) == list(range(1, 13))
    assert way.losses[12] < way.losses[1]
    pruned = [way.checkpoints[at].weights.layer("ip1").blobs[0] == 0 for at in (1, 12)]
    assert [0.6 < zeros.mean() < 0.8 for zeros in pruned] == [masked] * 2


def test_a_wrong_step_is_seen_after_one_iteration(
    request_: TrainRequest, caffe_python: Path, tmp_path: Path
) -> None:
    engines = CaffeEngine(caffe_python), Astray(caffe_python)
    found = compare_engines(request_, engines, 2, tmp_path)
    assert "differ at iteration 1:" in (found.difference or "")
    assert found.checkpoints[0].history.relative == pytest.approx(1e-3, rel=0.01)
    assert found.checkpoints[0].loss.relative == 0
    # The loss before the first update, and the weights that both began with, are the same.
    start = read_caffemodel(tmp_path / "initial" / "final.caffemodel")
    step = read_trajectory(tmp_path / "caffe", 2).checkpoints[1].weights.layer("ip2").blobs[0]
    assert 0 < np.abs(step - start.layer("ip2").blobs[0]).max() < 0.1


def test_beyond_the_tolerance_what_rounding_does_to_the_first_is_allowed(
    request_: TrainRequest, caffe_python: Path, tmp_path: Path
) -> None:
    caffe = CaffeEngine(caffe_python)
    engines = caffe, Again(caffe_python)
    assert compare_engines(request_, engines, 12, tmp_path, tolerance=1e-12).is_same
    assert not (tmp_path / "caffe-rounded").exists()
    engines = caffe, Astray(caffe_python)
    found = compare_engines(request_, engines, 12, tmp_path, tolerance=1e-12)
    assert not found.is_same
    assert (tmp_path / "caffe-rounded").is_dir()
    for point in found.checkpoints:
        assert 1e-8 < point.weights.allowed < 1e-4
        assert not point.weights.is_same


def test_what_is_stored_is_all_that_a_comparison_asks_of_its_first_engine(
    request_: TrainRequest, caffe_python: Path, tmp_path: Path
) -> None:
    store_runs(request_, CaffeEngine(caffe_python), 12, tmp_path)
    engines = CaffeEngine(Path("/nowhere")), Astray(caffe_python)
    found = compare_engines(request_, engines, 12, tmp_path, tolerance=1e-12)
    assert 1e-8 < found.checkpoints[-1].weights.allowed < 1e-4


def test_a_stored_run_may_be_longer_than_the_comparison(
    request_: TrainRequest, caffe_python: Path, tmp_path: Path
) -> None:
    store_runs(request_, CaffeEngine(caffe_python), 12, tmp_path)
    engines = CaffeEngine(Path("/nowhere")), Astray(caffe_python)
    found = compare_engines(request_, engines, 10, tmp_path, tolerance=1e-12)
    assert [point.iteration for point in found.checkpoints] == [1, 10]
    assert 1e-8 < found.checkpoints[-1].weights.allowed < 1e-4
    assert [test.iteration for test in found.tests] == [0]
    with pytest.raises(FormatError, match="no snapshot after 11; compare after one of 1, 10, 12"):
        compare_engines(request_, engines, 11, tmp_path)


def test_runs_of_a_gpu_lie_beside_those_of_the_cpu(
    request_: TrainRequest, caffe_python: Path, tmp_path: Path
) -> None:
    engines = CaffeEngine(caffe_python), Again(caffe_python)
    with pytest.raises(EngineError, match=r"again-cuda-1/engine\.log"):  # built for the CPU only
        compare_engines(request_, engines, 2, tmp_path, devices=["cpu", "cuda:1"])
    assert not (tmp_path / "again").exists()


def test_initial_weights_are_drawn_on_the_first_engines_device(
    request_: TrainRequest, caffe_python: Path, tmp_path: Path
) -> None:
    elsewhere = replace(request_, device="cuda")  # the other engine's; this Caffe has the CPU only
    caffe = CaffeEngine(caffe_python)
    store_runs(elsewhere, caffe, 2, tmp_path / "stored", device="cpu")
    assert (tmp_path / "stored" / "caffe-rounded" / "result.json").exists()
    engines = caffe, Again(caffe_python)
    assert compare_engines(elsewhere, engines, 2, tmp_path / "both", devices=["cpu"] * 2).is_same


def test_a_finished_way_is_read_and_not_gone_again(
    request_: TrainRequest, caffe_python: Path, tmp_path: Path
) -> None:
    first = follow(request_, CaffeEngine(caffe_python), 2, tmp_path)
    again = follow(request_, CaffeEngine(Path("/nowhere")), 2, tmp_path)
    assert again.losses == first.losses


def test_what_engines_draw_cannot_be_compared(
    make_solver, digits: Path, caffe_python: Path, tmp_path: Path
) -> None:
    request = TrainRequest(solver=make_solver(random=True), data=digits)
    with pytest.raises(EngineError, match=r"layer 'data' \(Data\) draws random numbers \(mirror\)"):
        compare_engines(request, [CaffeEngine(caffe_python), Again(caffe_python)], 2, tmp_path)
    net = tmp_path / "net" / "net.prototxt"
    net.write_text(net.read_text().replace("mirror: true crop_size: 24", "crop_size: 28"))
    with pytest.raises(EngineError, match="crop_size"):
        compare_engines(request, [CaffeEngine(caffe_python), Again(caffe_python)], 2, tmp_path)
    net.write_text(net.read_text().replace("crop_size: 28", ""))
    with pytest.raises(EngineError, match=r"'drop1' \(Dropout\)"):
        compare_engines(request, [CaffeEngine(caffe_python), Again(caffe_python)], 2, tmp_path)


BATCH_NORM = """
layer { name: "data" type: "Data" top: "data" top: "label"
  transform_param { scale: 0.00390625 }
  data_param { source: "mnist_train_lmdb" batch_size: 16 backend: LMDB } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 5 stride: 4 weight_filler { type: "xavier" } } }
layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "conv" }
layer { name: "scale" type: "Scale" bottom: "conv" top: "conv" scale_param { bias_term: true } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
  param { lr_mult: 1 } param { lr_mult: 2 }
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


CIFAR10_FULL = """
layer { name: "data" type: "Data" top: "data" top: "label"
  transform_param { mean_value: 33 }
  data_param { source: "mnist_train_lmdb" batch_size: 20 backend: LMDB } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  param { lr_mult: 1 } param { lr_mult: 2 }
  convolution_param { num_output: 8 pad: 2 kernel_size: 5
    weight_filler { type: "gaussian" std: 0.0001 } } }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1"
  pooling_param { pool: MAX kernel_size: 3 stride: 2 } }
layer { name: "relu1" type: "ReLU" bottom: "pool1" top: "pool1" }
layer { name: "norm1" type: "LRN" bottom: "pool1" top: "norm1"
  lrn_param { local_size: 3 alpha: 5e-05 beta: 0.75 norm_region: WITHIN_CHANNEL } }
layer { name: "conv2" type: "Convolution" bottom: "norm1" top: "conv2"
  param { lr_mult: 1 } param { lr_mult: 2 }
  convolution_param { num_output: 8 pad: 2 kernel_size: 5
    weight_filler { type: "gaussian" std: 0.01 } } }
layer { name: "relu2" type: "ReLU" bottom: "conv2" top: "conv2" }
layer { name: "pool2" type: "Pooling" bottom: "conv2" top: "pool2"
  pooling_param { pool: AVE kernel_size: 3 stride: 2 } }
layer { name: "norm2" type: "LRN" bottom: "pool2" top: "norm2"
  lrn_param { local_size: 3 alpha: 5e-05 beta: 0.75 norm_region: WITHIN_CHANNEL } }
layer { name: "conv3" type: "Convolution" bottom: "norm2" top: "conv3"
  param { lr_mult: 1 } param { lr_mult: 2 }
  convolution_param { num_output: 16 pad: 2 kernel_size: 5
    weight_filler { type: "gaussian" std: 0.01 } } }
layer { name: "relu3" type: "ReLU" bottom: "conv3" top: "conv3" }
layer { name: "pool3" type: "Pooling" bottom: "conv3" top: "pool3"
  pooling_param { pool: AVE kernel_size: 3 stride: 2 } }
layer { name: "ip1" type: "InnerProduct" bottom: "pool3" top: "ip1"
  param { lr_mult: 1 decay_mult: 250 } param { lr_mult: 2 decay_mult: 0 }
  inner_product_param { num_output: 10 weight_filler { type: "gaussian" std: 0.01 } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip1" bottom: "label" top: "loss" }
"""  # the form of BVLC's examples/cifar10, smaller


class Wrong(CaffeEngine):
    """The real Caffe with one fault: in a blob that it leaves, or in a rate that it follows."""

    name = "wrong"

    def __init__(self, python: Path, fault: str) -> None:
        super().__init__(python)
        self._fault = fault

    def train(self, folder: RunFolder, job: Job, observe: Observer) -> TrainResult:
        if self._fault == "rate":
            net = read_net(folder.net)
            next(layer for layer in net.layer if layer.name == "ip").param[1].lr_mult = 1
            write_prototxt(folder.net, net)
        result = super().train(folder, job, observe)
        for path in sorted(folder.snapshots.glob("*.caffemodel")):
            model = read_caffemodel(path)
            blob = model.layer("ip").blobs[0].copy()
            if self._fault == "negated":
                blob = -blob
            elif self._fault == "row":
                blob[[0, 1]] = blob[[1, 0]]
            write_caffemodel(path, model.with_blobs({("ip", 0): blob}))
        return result


@pytest.fixture(scope="module")
def with_batch_norm(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainRequest:
    """A net in which the gradient of the convolution's bias is nothing but rounding."""
    folder = tmp_path_factory.mktemp("batch_norm")
    (folder / "net.prototxt").write_text(BATCH_NORM)
    (folder / "solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 0.01 momentum: 0.9 lr_policy: "fixed" max_iter: 10'
    )
    return TrainRequest(solver=folder / "solver.prototxt", data=digits, seed=3)


@pytest.fixture(scope="module")
def caffes_runs(
    with_batch_norm: TrainRequest, caffe_python: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    store_runs(with_batch_norm, CaffeEngine(caffe_python), 10, folder)
    return folder


@pytest.mark.parametrize(
    ("fault", "named"),
    [("negated", "weights ip/0"), ("row", "weights ip/0"), ("rate", "weights ip/1")],
)
def test_noise_before_batch_norm_excuses_no_fault_elsewhere(
    with_batch_norm: TrainRequest,
    caffes_runs: Path,
    caffe_python: Path,
    tmp_path: Path,
    fault: str,
    named: str,
) -> None:
    shutil.copytree(caffes_runs, tmp_path, dirs_exist_ok=True)
    engines = CaffeEngine(Path("/nowhere")), Wrong(caffe_python, fault)
    found = compare_engines(with_batch_norm, engines, 10, tmp_path)
    assert re.search(f"differ at iteration 1: {named} by", found.difference or "")
    # The fault is found although the bias before BatchNorm may be anywhere.
    noise = found.checkpoints[0].history_blobs[1]
    assert noise.allowed > 0.01


@pytest.mark.parametrize(
    ("batch", "iterations"),
    [
        # 20: as many images of each class, so that the last bias's gradient is rounding alone.
        pytest.param(20, 1, id="cancelled"),
        # 100: within ten iterations a maximum of two places changes from one to the other.
        pytest.param(100, 10, id="corner"),
    ],
)
def test_torch_trains_as_caffe_where_rounding_alone_parts_them(
    digits: Path, caffe_python: Path, tmp_path: Path, batch: int, iterations: int
) -> None:
    net = CIFAR10_FULL.replace("batch_size: 20", f"batch_size: {batch}")
    (tmp_path / "net.prototxt").write_text(net)
    (tmp_path / "solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 0.001 momentum: 0.9 weight_decay: 0.004 '
        'lr_policy: "fixed" max_iter: 10'
    )
    request = TrainRequest(solver=tmp_path / "solver.prototxt", data=digits, seed=3)
    engines = CaffeEngine(caffe_python), TorchEngine()
    try:
        found = compare_engines(request, engines, iterations, tmp_path / "runs")
    finally:
        engines[1].close()
    assert (tmp_path / "runs" / "caffe-rounded").is_dir()
    assert found.difference is None
