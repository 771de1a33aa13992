"""The real Caffe built with CUDA: what it computes on a GPU, and that masks hold there.

Such a build is named by $PYCAFFE_PRUNE_TEST_CAFFE_CUDA (docs/containers.md); without it all of this
is skipped. Where there is no GPU, a stand-in takes the place of CUDA's libraries (cuda/stand_in.c):
then Caffe's own code for the GPU runs, host and device apart, but none of CUDA's.
"""

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pycaffe_prune.engines.base import Event
from pycaffe_prune.engines.caffe import caffe_worker
from pycaffe_prune.engines.caffe.engine import CaffeEngine
from pycaffe_prune.engines.caffe.python import probe
from pycaffe_prune.engines.comparison.parity import compare_engines
from pycaffe_prune.engines.gpus import driver_cuda_version
from pycaffe_prune.engines.job import TrainRequest
from pycaffe_prune.engines.run import train
from pycaffe_prune.formats.caffemodel import read_caffemodel, write_caffemodel
from pycaffe_prune.formats.mask import MaskFile, write_mask
from pycaffe_prune.formats.solverstate import read_solverstate
from pycaffe_prune.pruning.connections import nonzero_where_masked, prune_connections, thresholds
from pycaffe_prune.share import share_root

VARIABLE = "PYCAFFE_PRUNE_TEST_CAFFE_CUDA"
STAND_IN = Path(__file__).parent / "cuda/stand_in.c"
LIBRARIES = {
    "RUNTIME": "libcudart.so.11.0",
    "BLAS": "libcublas.so.11",
    "RANDOM": "libcurand.so.10",
}
HAS_GPU = driver_cuda_version() is not None

pytestmark = [
    pytest.mark.real_caffe,
    pytest.mark.skipif(
        VARIABLE not in os.environ, reason=f"${VARIABLE} names no Caffe built with CUDA"
    ),
]


def ignore(event: Event) -> None:
    """An observer that looks away."""


@pytest.fixture(scope="module")
def cuda_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The build's launcher; without a GPU, one that finds the stand-in's libraries first."""
    launcher = Path(os.environ[VARIABLE]).absolute()
    assert probe(launcher).gpu_build
    return launcher if HAS_GPU else _with_stand_in(launcher, tmp_path_factory.mktemp("cuda"))


def _with_stand_in(launcher: Path, folder: Path) -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here, and no GPU")
    for part, name in LIBRARIES.items():
        versions = folder / f"{part}.map"
        versions.write_text(f"{name} {{ global: *; }};\n")
        options = ["-shared", "-fPIC", "-O3", "-Wall", "-Wextra", "-Werror", f"-D{part}"]
        names = [f"-Wl,-soname,{name}", f"-Wl,--version-script={versions}", "-o", folder / name]
        subprocess.run([compiler, *options, *names, STAND_IN, "-lm"], check=True)
    text = launcher.read_text()
    changed = text.replace('self=$(readlink -f "$0")', f"self={launcher}").replace(
        "\npath=$prefix/", f"\npath={folder}:$prefix/"
    )
    assert changed.count(str(folder)) == 1
    assert changed.count(str(launcher)) == 1
    python = folder / "caffe-python"
    python.write_text(changed)
    python.chmod(0o755)
    return python


@pytest.fixture
def engine(cuda_python: Path) -> CaffeEngine:
    return CaffeEngine(cuda_python)


@pytest.fixture
def on_gpu(request_for) -> TrainRequest:
    return replace(request_for(), device="cuda")


@pytest.fixture
def pruned(tmp_path: Path, on_gpu: TrainRequest, engine: CaffeEngine):
    """A pruned model of the small net: weights, mask file, masks."""
    train(replace(on_gpu, max_iter=60), tmp_path / "base", engine, ignore)
    base = read_caffemodel(tmp_path / "base/final.caffemodel")
    model, masks = prune_connections(base, thresholds(base, base, 1.0, ["ip1", "ip2"]))
    write_caffemodel(tmp_path / "pruned.caffemodel", model)
    write_mask(tmp_path / "kept.mask.h5", MaskFile(masks, "0" * 64, "threshold"))
    return tmp_path / "pruned.caffemodel", tmp_path / "kept.mask.h5", masks


@pytest.mark.parametrize("network", ["lenet_300_100", "lenet"])
def test_caffe_trains_on_a_gpu_as_on_the_cpu(
    tmp_path: Path, digits: Path, caffe_engine: CaffeEngine, engine: CaffeEngine, network: str
) -> None:
    request = TrainRequest(solver=share_root() / f"solvers/{network}.prototxt", data=digits)
    found = compare_engines(request, [caffe_engine, engine], 10, tmp_path, devices=["cpu", "cuda"])
    assert found.engines == ("caffe", "caffe-cuda")
    assert found.is_same, found.difference
    assert [test.images for test in found.tests] == [297, 297]


@pytest.mark.parametrize(
    "settings",
    [
        "base_lr: 0.01 momentum: 0.9",
        'base_lr: 0.01 momentum: 0.9 regularization_type: "L2" clip_gradients: 1',
        "base_lr: 0.01 momentum: 0.9 iter_size: 2",
    ],
)
def test_pruned_weights_are_exactly_zero_in_weights_history_and_snapshots(
    tmp_path: Path, on_gpu, make_solver, engine: CaffeEngine, pruned, settings: str
) -> None:
    weights, mask, masks = pruned
    request = replace(
        on_gpu, solver=make_solver(settings=settings), weights=weights, mask=mask, max_iter=100
    )
    result = train(replace(request, keep_snapshots=True), tmp_path / "run", engine, ignore)
    assert result.revived == 0
    files = [*tmp_path.glob("run/snapshots/*.caffemodel"), tmp_path / "run/final.caffemodel"]
    assert len(files) == 3
    for file in files:
        assert not any(nonzero_where_masked(read_caffemodel(file), masks).values())
    for state in tmp_path.glob("run/snapshots/*.solverstate"):
        history = read_solverstate(state).history
        for place, kept in ((0, masks["ip1", 0]), (2, masks["ip2", 0])):
            assert not history[place][~kept].any()
            assert history[place][kept].any()


def test_masks_on_the_gpu_are_masks_on_the_host(
    tmp_path: Path, on_gpu: TrainRequest, cuda_python: Path, engine: CaffeEngine, pruned
) -> None:
    """The same bits; and the host's way is taken, with a warning, where Caffe has no other."""
    weights, mask, _ = pruned
    request = replace(on_gpu, weights=weights, mask=mask, max_iter=40)
    hosts = tmp_path / "hosts-way"
    runner = tmp_path / "runner.py"
    runner.write_text(
        f"import sys\nsys.path.insert(0, {str(Path(caffe_worker.__file__).parent.parent)!r})\n"
        "from caffe_worker import gpu_masks, tasks\n"
        "gpu_masks._MULTIPLY = 'no_such_function'\ntasks.main(*sys.argv[2:])\n"
    )
    hosts.write_text(f'#!/bin/sh\nexec "{cuda_python}" "{runner}" "$@"\n')
    hosts.chmod(0o755)
    events: dict[str, list[Event]] = {"gpu": [], "host": []}
    for name, one in (("gpu", engine), ("host", CaffeEngine(hosts))):
        train(request, tmp_path / name, one, events[name].append)
    warned = {
        name: [event.message for event in told if event.event == "warning"]
        for name, told in events.items()
    }
    assert warned["gpu"] == []
    (message,) = warned["host"]
    assert "does not export caffe_gpu_mul" in (message or "")
    ends = [read_caffemodel(tmp_path / name / "final.caffemodel") for name in events]
    for (key, one), (_, other) in zip(ends[0].blobs(), ends[1].blobs(), strict=True):
        np.testing.assert_array_equal(one, other, err_msg=str(key))


def test_training_in_two_parts_is_training_in_one(
    tmp_path: Path, on_gpu: TrainRequest, engine: CaffeEngine, pruned
) -> None:
    weights, mask, _ = pruned
    request = replace(on_gpu, weights=weights, mask=mask, max_iter=120)
    train(request, tmp_path / "whole", engine, ignore)
    train(replace(request, max_iter=73), tmp_path / "parts", engine, ignore)
    train(request, tmp_path / "parts", engine, ignore)
    whole, parts = (
        read_caffemodel(tmp_path / name / "final.caffemodel") for name in ("whole", "parts")
    )
    for (key, one), (_, other) in zip(whole.blobs(), parts.blobs(), strict=True):
        # A GPU adds up in whatever order; the stand-in, like a CPU, does not.
        tolerance = 1e-4 if HAS_GPU else 0
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance, err_msg=str(key))


@pytest.mark.skipif(HAS_GPU, reason="kernels are counted by the stand-in")
def test_each_masked_blob_costs_one_product_an_iteration_and_no_copy(
    tmp_path: Path,
    on_gpu: TrainRequest,
    engine: CaffeEngine,
    pruned,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weights, mask, masks = pruned
    counts = {}
    for name, request in {
        "plain": replace(on_gpu, max_iter=50),
        "masked": replace(on_gpu, weights=weights, mask=mask, max_iter=50),
    }.items():
        monkeypatch.setenv("CUDA_STAND_IN_COUNTS", str(tmp_path / name))
        train(request, tmp_path / f"run-{name}", engine, ignore)
        lines = (tmp_path / name).read_text().splitlines()
        counts[name] = {line.split()[0]: int(line.split()[1]) for line in lines}
    assert counts["masked"]["10mul_kernelIf"] == 50 * len(masks)
    assert counts["plain"]["10mul_kernelIf"] == 0
    # Each blob's mask goes to the device once, and each blob's weights once after they are zeroed.
    assert counts["masked"]["to-device"] - counts["plain"]["to-device"] <= 2 * len(masks)
    assert counts["masked"]["to-host"] - counts["plain"]["to-host"] <= 2 * len(masks)
