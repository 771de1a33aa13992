"""Workers that stay, packs whose runs fail and stop one by one."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pycaffe_prune.engines.base import TrainResult
from pycaffe_prune.engines.job import TrainRequest
from pycaffe_prune.engines.run import train
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.engines.torch import engine as engine_module
from pycaffe_prune.engines.torch import gathering
from pycaffe_prune.engines.torch.engine import TorchEngine
from pycaffe_prune.errors import EngineError, InterruptedRunError, PruneError
from pycaffe_prune.formats.caffemodel import read_caffemodel, write_caffemodel
from pycaffe_prune.formats.mask import MaskFile, write_mask
from tests.engines.conftest import NET, SOLVER

MakeRequest = Callable[..., TrainRequest]


def ignore(event: object) -> None:
    """An observer that looks away."""


@pytest.fixture
def own() -> Iterator[TorchEngine]:
    engine = TorchEngine()
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def pack() -> Iterator[TorchEngine]:
    engine = TorchEngine(pack=4)
    yield engine
    engine.close()


@pytest.fixture
def make(tmp_path: Path, digits: Path) -> MakeRequest:
    """A request for the small net, in a folder of its own."""

    def make(name: str, units: int = 20, base_lr: float = 0.01, **fields: object) -> TrainRequest:
        folder = tmp_path / f"{name}-net"
        folder.mkdir(exist_ok=True)
        net = NET.format(batch=64, transform="", test_transform="", dropout="")
        net = net.replace("num_output: 20", f"num_output: {units}")
        (folder / "net.prototxt").write_text(net)
        solver = folder / "solver.prototxt"
        solver.write_text(SOLVER + f"base_lr: {base_lr} momentum: 0.9")
        return TrainRequest(solver=solver, data=digits, **{"seed": 3, "max_iter": 60, **fields})

    return make


def spoil(request: TrainRequest, old: str, new: str) -> TrainRequest:
    net = request.solver.parent / "net.prototxt"
    assert old in net.read_text()
    net.write_text(net.read_text().replace(old, new))
    return request


def weights(folder: Path) -> dict:
    return dict(read_caffemodel(folder / "final.caffemodel").blobs())


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# Workers


def test_a_worker_stays_for_the_next_job_and_ends_with_the_engine(own, make, tmp_path) -> None:
    pids = set()

    def watch(event: object) -> None:
        pids.update(process.pid for process in own._running)

    first = train(make("a"), tmp_path / "a", own, watch)
    second = train(make("a"), tmp_path / "b", own, watch)
    assert first.weights_sha256 == second.weights_sha256
    assert first.tests == second.tests
    (pid,) = pids
    assert is_there(pid)
    own.close()
    assert not is_there(pid)  # not even as a zombie
    train(make("a"), tmp_path / "c", own, watch)
    (other,) = pids - {pid}
    own.close()
    assert not is_there(other)


def test_an_engine_that_goes_takes_its_workers_along(make, tmp_path) -> None:
    engine = TorchEngine()
    train(make("a"), tmp_path / "a", engine, ignore)
    (process,) = engine._idle
    del engine
    assert not is_there(process.pid)


def test_jobs_at_the_same_time_have_a_worker_each(own, make, tmp_path) -> None:
    meeting = threading.Barrier(2, timeout=60)
    met = threading.local()

    def wait_once(event: object) -> None:
        if not getattr(met, "done", False):
            met.done = True
            meeting.wait()  # both are under way

    requests = {name: make(name) for name in ("a", "b")}
    with ThreadPoolExecutor(2) as threads:
        runs = [
            threads.submit(train, request, tmp_path / name, own, wait_once)
            for name, request in requests.items()
        ]
    assert runs[0].result().weights_sha256 == runs[1].result().weights_sha256
    assert len(own._idle) == 2
    assert not own._running


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (
            'type: "ReLU" bottom: "ip1"',
            'type: "ReLU6" bottom: "ip1"',
            "layer 'relu1' is of type 'ReLU6', which .* have; it is a fork's: convert --to stock",
        ),
        (
            'bottom: "ip1" top: "ip2"',
            'bottom: "data" bottom: "ip1" top: "ip2"',
            r"layer 'ip2'",
        ),
    ],
)
def test_an_error_names_the_run_and_the_log_and_the_worker_stays(
    own, make, tmp_path, old, new, sentence
) -> None:
    train(make("a"), tmp_path / "a", own, ignore)
    (process,) = own._idle
    log = tmp_path / "b" / "engine.log"
    with pytest.raises(EngineError, match=rf"^{tmp_path}/b: .*{sentence}.* \({log}\)$"):
        train(spoil(make("b"), old, new), tmp_path / "b", own, ignore)
    assert own._idle == [process]
    again = train(make("a"), tmp_path / "c", own, ignore)
    assert own._idle == [process]
    assert again.weights_sha256 == train(make("a"), tmp_path / "a", own, ignore).weights_sha256


def test_a_stop_before_the_worker_listens_is_an_interruption(
    own, torch_engine, make, tmp_path
) -> None:
    def stop_early() -> None:
        while not own._running:
            time.sleep(0.001)
        own.stop()

    thread = threading.Thread(target=stop_early)
    thread.start()
    with pytest.raises(InterruptedRunError, match="same command"):
        train(make("a", max_iter=100_000), tmp_path / "a", own, ignore)
    thread.join()
    assert train(make("a"), tmp_path / "b", torch_engine, ignore).iterations == 60


def test_a_worker_that_dies_before_its_first_request_says_why(
    own, make, tmp_path, monkeypatch
) -> None:
    train(make("a", max_iter=2), tmp_path / "a", own, ignore)
    own.close()
    (tmp_path / "a" / "engine.log").write_text("an old reason\n")
    monkeypatch.setattr(engine_module, "_WORKER", "no_such_worker")
    with pytest.raises(EngineError, match="No module named no_such_worker"):
        train(make("a", max_iter=4), tmp_path / "a", own, ignore)


def test_forward_says_what_it_lacks(torch_engine, make, tmp_path) -> None:
    train(make("a"), tmp_path / "a", torch_engine, ignore)
    net = tmp_path / "deploy.prototxt"
    net.write_text("""
        layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1 dim: 700 } } }
        layer { name: "ip1" type: "InnerProduct" bottom: "x" top: "y"
          inner_product_param { num_output: 20 } }
    """)
    path = tmp_path / "a" / "final.caffemodel"
    x = {"x": np.zeros((1, 700), np.float32)}
    with pytest.raises(EngineError, match=rf"{path}: layer 'ip1' holds 20x784, 20.* says 20x700"):
        torch_engine.forward(net, path, x, ["y"])
    with pytest.raises(EngineError, match="no blob 'z'; its blobs: x, y"):
        torch_engine.forward(net, path, x, ["z"])
    with pytest.raises(EngineError, match=r"gone\.caffemodel"):
        torch_engine.forward(net, tmp_path / "gone.caffemodel", x, ["y"])


# Packs


def together(
    engine: TorchEngine, requests: dict[str, TrainRequest], out: Path, observe=ignore
) -> dict[str, TrainResult | PruneError]:
    def run(name: str) -> TrainResult | PruneError:
        try:
            return train(requests[name], out / name, engine, observe)
        except PruneError as error:
            return error

    with ThreadPoolExecutor(len(requests)) as threads:
        return dict(zip(requests, threads.map(run, requests), strict=True))


def require_same_run(one: TrainResult, other: TrainResult, one_folder: Path, other_folder: Path):
    assert [test.iteration for test in one.tests] == [test.iteration for test in other.tests]
    for mine, theirs in zip(one.tests, other.tests, strict=True):
        assert abs(mine.correct - theirs.correct) <= 1
        assert mine.loss == pytest.approx(theirs.loss, rel=1e-4)
    expected = weights(other_folder)
    for key, blob in weights(one_folder).items():
        largest = np.abs(expected[key]).max()
        np.testing.assert_allclose(blob, expected[key], rtol=0, atol=1e-4 * largest)


def masked(request: TrainRequest, path: Path) -> TrainRequest:
    kept = np.random.default_rng(0).random((20, 784)) < 0.5
    write_mask(path, MaskFile({("ip1", 0): kept}, "0" * 64, "random"))
    return TrainRequest(**{**vars(request), "mask": path})


def test_packed_runs_end_where_each_alone_ends(torch_engine, pack, make, tmp_path) -> None:
    requests = {
        "a": make("a"),
        "b": make("b", seed=4, units=7),
        "c": masked(make("c", seed=5, max_iter=37), tmp_path / "c.mask.h5"),
        "d": make("d", base_lr=0.02, test_interval=20),  # another solver: alone beside the others
    }
    packed = together(pack, requests, tmp_path / "packed")
    assert len(pack._idle) == 1  # one worker did it all
    for name, request in requests.items():
        alone = train(request, tmp_path / "alone" / name, torch_engine, ignore)
        folders = tmp_path / "packed" / name, tmp_path / "alone" / name
        assert isinstance(packed[name], TrainResult), packed[name]
        require_same_run(packed[name], alone, *folders)
    kept = np.random.default_rng(0).random((20, 784)) < 0.5
    assert not weights(tmp_path / "packed" / "c")["ip1", 0][~kept].any()


def test_a_run_that_fails_fails_alone(torch_engine, pack, make, tmp_path) -> None:
    requests = {
        "a": make("a"),
        "wild": make("wild"),
        "b": make("b", seed=4),
        "unknown": spoil(make("unknown"), 'type: "ReLU"', 'type: "ReLU6"'),
    }
    # Other weights, not another solver: so it is in the pack with the others.
    start = train(make("start", max_iter=1), tmp_path / "start", torch_engine, ignore)
    assert start.iterations == 1
    model = read_caffemodel(tmp_path / "start" / "final.caffemodel")
    nan = {("ip2", 0): np.full((10, 20), np.nan, np.float32)}
    write_caffemodel(tmp_path / "nan.caffemodel", model.with_blobs(nan))
    requests["wild"] = TrainRequest(
        **{**vars(requests["wild"]), "weights": tmp_path / "nan.caffemodel"}
    )
    found = together(pack, requests, tmp_path / "packed")
    log = rf"\({tmp_path}/packed/\w+/engine\.log\)"
    for name, sentence in (
        ("wild", r"the loss is no longer a number at iteration \d+; lower base_lr"),
        ("unknown", r"layer 'relu1' is of type 'ReLU6'.*; it is a fork's: .*"),
    ):
        assert isinstance(found[name], EngineError)
        with pytest.raises(EngineError, match=rf"^{tmp_path}/packed/{name}: {sentence} {log}$"):
            raise found[name]
        assert not RunFolder(tmp_path / "packed" / name).result.exists()
    for name in ("a", "b"):
        alone = train(requests[name], tmp_path / name, torch_engine, ignore)
        require_same_run(found[name], alone, tmp_path / "packed" / name, tmp_path / name)
    assert len(pack._idle) == 1


def test_packed_runs_that_are_stopped_leave_snapshots_and_go_on(
    torch_engine, pack, make, tmp_path
) -> None:
    requests = {name: make(name, seed=seed, max_iter=500, snapshot=0) for name, seed in
                (("a", 3), ("b", 4), ("c", 5))}  # fmt: skip
    asked, stoppable = threading.Event(), TorchEngine(pack=4)

    def stop_once(event: object) -> None:
        if event.event == "progress" and event.iteration > 20 and not asked.is_set():
            asked.set()
            stoppable.stop()

    stopped = together(stoppable, requests, tmp_path / "packed", stop_once)
    stoppable.close()
    for name in requests:
        assert isinstance(stopped[name], InterruptedRunError)
        assert "of 500" in str(stopped[name])
        snapshots = RunFolder(tmp_path / "packed" / name).snapshots
        assert len(list(snapshots.glob("*.solverstate"))) == 1
    done = together(pack, requests, tmp_path / "packed")
    for name, request in requests.items():
        alone = train(request, tmp_path / name, torch_engine, ignore)
        assert done[name].iterations == 500
        assert abs(done[name].final_test.correct - alone.final_test.correct) <= 3
        expected = weights(tmp_path / name)
        for key, blob in weights(tmp_path / "packed" / name).items():
            # 500 iterations of roundings, fed back through ReLUs.
            largest = np.abs(expected[key]).max()
            np.testing.assert_allclose(blob, expected[key], rtol=0, atol=1e-2 * largest)


def test_a_pack_whose_worker_is_killed_fails_whole_and_goes_on(pack, make, tmp_path) -> None:
    requests = {name: make(name, max_iter=400) for name in ("a", "b")}
    killed = threading.Event()

    def kill_once(event: object) -> None:
        if event.event == "snapshot" and not killed.is_set():
            killed.set()
            for process in list(pack._running):
                process.kill()

    failed = together(pack, requests, tmp_path / "packed", kill_once)
    for error in failed.values():
        assert isinstance(error, EngineError)
        assert "SIGKILL" in str(error)
    done = together(pack, requests, tmp_path / "packed")
    assert [result.iterations for result in done.values()] == [400, 400]


def test_a_run_packed_with_its_kind_has_the_same_bits_in_any_company(
    make, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(gathering, "_PATIENCE_SECONDS", 0.3)
    engine = TorchEngine(pack=3, at_once=1)
    requests = {
        "a": make("a"),
        "b": make("b", seed=4),
        "c": masked(make("c", seed=5), tmp_path / "c.mask.h5"),
        "small": make("small", units=7),
    }
    try:
        together(engine, requests, tmp_path / "packed")
        for name, request in requests.items():
            train(request, tmp_path / "alone" / name, engine, ignore)
        assert len(engine._idle) == 1
    finally:
        engine.close()
    for name in requests:
        alone = weights(tmp_path / "alone" / name)
        for key, blob in weights(tmp_path / "packed" / name).items():
            np.testing.assert_array_equal(blob, alone[key])


def _resident_kilobytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0])


def test_a_warm_worker_gives_back_what_a_job_held(tmp_path, digits, make_solver, monkeypatch):
    # Python's own collections would come at some time, and hide what is not given back.
    (tmp_path / "sitecustomize.py").write_text("import gc\ngc.disable()\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    solver = make_solver()
    net = solver.parent / "net.prototxt"
    # 6 MB of weights, 18 with gradients and history, and more for the passes.
    net.write_text(net.read_text().replace("num_output: 20", "num_output: 2000"))
    engine = TorchEngine()
    sizes = []
    try:
        for seed in range(1, 7):
            request = TrainRequest(solver=solver, data=digits, seed=seed, max_iter=2)
            train(request, tmp_path / f"run{seed}", engine, ignore)
            sizes.append(_resident_kilobytes(engine._idle[0].pid))
    finally:
        engine.close()
    assert sizes[-1] - sizes[1] < 30_000


def test_a_worker_whose_engine_was_killed_before_it_could_look_ends():
    gone = 2**22 + 1  # above every process id
    command = [sys.executable, "-m", "pycaffe_prune.engines.torch.worker", f"{gone}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.wait(60) == 1
