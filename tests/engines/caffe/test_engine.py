"""The engine against the real Caffe: same bits, its errors in words."""

import os
import resource
import signal
import subprocess
import time
from pathlib import Path

import pytest

from pycaffe_prune.engines.base import read_result
from pycaffe_prune.engines.caffe import caffe_worker
from pycaffe_prune.engines.caffe.engine import CaffeEngine
from pycaffe_prune.engines.run import train
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.errors import EngineError, InterruptedRunError

pytestmark = pytest.mark.real_caffe


def ignore(event):
    """An observer that looks away."""


_PLAIN = """
import os, sys, caffe
os.chdir(sys.argv[1])
caffe.set_mode_cpu()
solver = caffe.get_solver(sys.argv[2])
if len(sys.argv) > 4:
    solver.net.copy_from(sys.argv[4])
solver.step(solver.param.max_iter)
solver.net.save(sys.argv[3])
"""


def test_an_unmasked_run_is_what_caffes_solver_does_bit_for_bit(
    tmp_path, request_for, caffe_engine, caffe_python
):
    train(request_for(), tmp_path / "ours", caffe_engine, ignore)
    script = tmp_path / "plain.py"
    script.write_text(_PLAIN)
    solver = tmp_path / "ours" / "solver.prototxt"
    subprocess.run(
        [caffe_python, script, tmp_path, solver, "plain.caffemodel"],
        check=True,
        capture_output=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    assert (tmp_path / "plain.caffemodel").read_bytes() == (
        tmp_path / "ours" / "final.caffemodel"
    ).read_bytes()


def test_a_failed_check_becomes_an_error_with_caffes_own_sentence(
    tmp_path, request_for, make_solver, caffe_engine
):
    solver = make_solver()
    net = solver.parent / "net.prototxt"
    crop = net.read_text().replace("scale: 0.00390625", "scale: 0.00390625 crop_size: 40")
    net.write_text(crop)
    with pytest.raises(EngineError, match=r"Caffe refused to train: .*\(28 vs. 40\)"):
        train(request_for(solver), tmp_path / "run", caffe_engine, ignore)
    assert read_result(RunFolder(tmp_path / "run")) is None


def test_an_unknown_layer_type_is_caffes_error_not_a_crash(
    tmp_path, request_for, make_solver, caffe_engine
):
    solver = make_solver()
    net = solver.parent / "net.prototxt"
    net.write_text(net.read_text().replace('"ReLU"', '"Rectifier"'))
    with pytest.raises(EngineError, match="Unknown layer type: Rectifier"):
        train(request_for(solver, trust=True), tmp_path / "run", caffe_engine, ignore)


def test_what_a_python_layer_raised_is_the_error(tmp_path, request_for, make_solver, caffe_engine):
    solver = make_solver()
    (solver.parent / "failing.py").write_text(
        "import caffe\n"
        "class Failing(caffe.Layer):\n"
        "    def setup(self, bottom, top):\n"
        "        raise ValueError('no labels for this image')\n"
    )
    net = solver.parent / "net.prototxt"
    net.write_text(
        net.read_text() + 'layer { name: "f" type: "Python" bottom: "ip2" top: "f" '
        'python_param { module: "failing" layer: "Failing" } }'
    )
    with pytest.raises(EngineError, match="failed: ValueError: no labels for this image"):
        train(request_for(solver, trust=True), tmp_path / "run", caffe_engine, ignore)


def test_a_gpu_that_this_caffe_cannot_use_is_an_error_in_its_words(
    tmp_path, request_for, caffe_engine
):
    with pytest.raises(EngineError, match="Cannot use GPU in CPU-only Caffe"):
        train(request_for(device="cuda:0"), tmp_path / "run", caffe_engine, ignore)


def test_caffes_words_for_a_gpu_that_is_not_there_come_with_what_to_do(tmp_path, request_for):
    """What a build with CUDA says without a driver; docker/verify --cuda from a real one."""
    aborts = tmp_path / "aborts"
    aborts.write_text(
        "#!/bin/sh\necho 'F1125 16:26:09.348732 20028 internal_thread.cpp:26] Check failed: "
        "error == cudaSuccess (35 vs. 0)  CUDA driver version is insufficient' >&2\nkill -ABRT $$\n"
    )
    aborts.chmod(0o755)
    with pytest.raises(EngineError, match=r"driver version is insufficient: .*--gpus all"):
        train(request_for(), tmp_path / "run", CaffeEngine(aborts), ignore)


def test_a_python_that_is_none_is_named(tmp_path, request_for):
    with pytest.raises(EngineError, match="no-such-python"):
        train(request_for(), tmp_path / "run", CaffeEngine(Path("/no-such-python")), ignore)


def test_a_worker_stopped_before_it_listens_is_an_interrupted_run(tmp_path, request_for):
    stopped = tmp_path / "stopped-at-once"
    stopped.write_text("#!/bin/sh\nkill -INT $$\nsleep 5\n")
    stopped.chmod(0o755)
    with pytest.raises(InterruptedRunError, match="stopped before it began"):
        train(request_for(), tmp_path / "run", CaffeEngine(stopped), ignore)


@pytest.fixture
def small_files():
    """Files cannot grow over 20 kB, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("small_files")
def test_a_snapshot_that_caffe_cannot_write_is_named_with_the_space_there(
    tmp_path, request_for, caffe_engine
):
    told = r"run: Caffe could not write snapshot_iter_4\.\w+, with [\d,.]+ MB of space left there;"
    with pytest.raises(EngineError, match=told):
        train(request_for(max_iter=4), tmp_path / "run", caffe_engine, ignore)


def _workers_of(pid: int) -> list[int]:
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _is_at_work(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


@pytest.mark.parametrize("later", [0, 0.05])
def test_a_worker_that_has_just_begun_does_not_outlive_its_engine(
    tmp_path, request_for, caffe_engine, later
):
    request = request_for(max_iter=100_000)
    engine = os.fork()
    if engine == 0:
        try:
            train(request, tmp_path / "run", caffe_engine, ignore)
        finally:
            os._exit(1)
    while not (workers := _workers_of(engine)):
        assert os.waitpid(engine, os.WNOHANG)[0] == 0
    time.sleep(later)
    os.kill(engine, signal.SIGKILL)
    os.waitpid(engine, 0)
    end = time.monotonic() + 10
    while any(map(_is_at_work, workers)):
        assert time.monotonic() < end
        time.sleep(0.02)
    # Nor did it find out at its first word, when Caffe was there.
    assert "BrokenPipe" not in (tmp_path / "run/engine.log").read_text()


def test_a_worker_that_was_orphaned_before_its_first_instruction_ends(caffe_python, tmp_path):
    orphan = subprocess.Popen(
        [caffe_python, Path(caffe_worker.__file__).parent, "train", tmp_path / "no job.json"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert orphan.communicate()[1] == b"the engine is gone\n"
    assert orphan.returncode == 1
