"""Engines compared: the real Caffe with itself, and with itself led astray."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pycaffe_prune.engines.base import Observer, TrainResult
from pycaffe_prune.engines.caffe_engine import CaffeEngine
from pycaffe_prune.engines.job import Job, TrainRequest
from pycaffe_prune.engines.parity import compare_engines, follow, store_runs
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.engines.trajectory import read_trajectory
from pycaffe_prune.errors import EngineError, FormatError
from pycaffe_prune.formats.caffemodel import read_caffemodel
from pycaffe_prune.formats.mask import MaskFile, write_mask
from pycaffe_prune.formats.prototxt import read_solver, write_prototxt

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
