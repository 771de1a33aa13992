"""Sweeps on a Dask cluster: whatever is lost on the way, the results are those of a local run."""

import os
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("distributed")

import psutil

from pycaffe_prune.cli.reproduce.crew import crew_to_work_with
from pycaffe_prune.engines.choice import EngineWish
from pycaffe_prune.engines.torch.engine import TorchEngine
from pycaffe_prune.errors import EngineError, InterruptedRunError
from pycaffe_prune.experiments.cluster import dask_crew as cluster_module
from pycaffe_prune.experiments.cluster.dask_crew import Cluster, connected, run_stages_on_cluster
from pycaffe_prune.experiments.plan import Plan, make_plan
from pycaffe_prune.experiments.result import DataSet
from pycaffe_prune.experiments.scheduler import run_stages
from pycaffe_prune.experiments.spec import read_experiment
from pycaffe_prune.experiments.stages import Stage, StageOutput
from tests.experiments.dask_processes import DaskProcesses, dask_processes

WISH = EngineWish("torch")
DATA_SET = DataSet(
    name="digits",
    is_sample=True,
    train_images=1500,
    test_images=297,
    train_sha256="1" * 64,
    test_sha256="2" * 64,
)


TOML = """
name = "small"
preset = "test"
title = "Small"
solver = "solver.prototxt"
data = "mnist"
layers = ["ip1", "ip2", "ip3"]
[baseline]
seeds = [1, 2]
iterations = 700
[[methods]]
kind = "connections"
alphas = [1.2]
rounds = 1
iterations = 50
[[methods]]
kind = "units"
layer = "ip1"
ratios = [0.5]
iterations = 50
[[methods]]
kind = "small"
seeds = [1]
iterations = 50
"""

SOLVER = """
net: "net.prototxt" base_lr: 0.02 momentum: 0.9 weight_decay: 0.0005 lr_policy: "fixed"
max_iter: 100 test_iter: 3 test_interval: 100 snapshot: 200
"""


@pytest.fixture(scope="module")
def plan(tmp_path_factory, net_text, digits):
    """Make the plan of an experiment in a folder."""
    folder = tmp_path_factory.mktemp("experiment")
    (folder / "net.prototxt").write_text(net_text)
    (folder / "solver.prototxt").write_text(SOLVER)
    (folder / "small.toml").write_text(TOML)
    spec = read_experiment(folder / "small.toml")

    def make(out: Path) -> Plan:
        return make_plan(spec, folder / "solver.prototxt", out, digits, DATA_SET, "torch")

    return make


@pytest.fixture(scope="module")
def alone(plan, tmp_path_factory) -> list[dict]:
    """What a run on this machine finds, stage by stage."""
    stages = plan(tmp_path_factory.mktemp("alone")).stages
    engine = TorchEngine()
    run_stages(stages, engine, 1, lambda *_: None)
    engine.close()
    return _found(stages)


def _found(stages: list[Stage]) -> list[dict]:
    outputs = [stage.output() for stage in stages]
    assert all(isinstance(output, StageOutput) for output in outputs)
    # A caffemodel has the paths of its data in it: files are others at a store.
    untold = {"seconds", "elsewhere", "files"}
    found = [output.model_dump(exclude=untold) for output in outputs]
    for fields in found:
        for test in (fields["before"], fields["after"]):
            # After a resume the test images fall into other batches, and sums round otherwise.
            test["loss"] = round(test["loss"], 5)
    return found


def _worker_of(cluster: Cluster, stage: Stage) -> str:
    """The address of the worker that works at a stage."""
    return next(
        address
        for address, keys in cluster.client.processing().items()
        if any(f"{key}".startswith(stage.label) for key in keys)
    )


class FirstSnapshot:
    """Waits for the first snapshot that is not the last one of its stage."""

    def __init__(self) -> None:
        self.stage: Stage | None = None
        self._taken = threading.Event()

    def observe(self, stage, event):
        midway = event and event.event == "snapshot" and event.iteration < stage.iterations
        if midway and not self._taken.is_set():
            self.stage = stage
            self._taken.set()

    def then(self, act) -> threading.Thread:
        """Call ``act`` with the stage, in a thread."""

        def wait_and_act() -> None:
            assert self._taken.wait(60)
            act(self.stage)

        thread = threading.Thread(target=wait_and_act)
        thread.start()
        return thread


@pytest.fixture(scope="module")
def dask(tmp_path_factory):
    """Give a cluster with so many workers: the last one, unless too much of it was killed."""
    started: list[DaskProcesses] = []
    with ExitStack() as stack:

        def give(workers: int) -> DaskProcesses:
            if not started or not started[-1].alive(workers):
                folder = tmp_path_factory.mktemp("dask")
                started.append(stack.enter_context(dask_processes(folder, workers)))
            return started[-1]

        yield give


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(cluster_module, "_CONNECT_SECONDS", 2)


def test_of_three_workers_one_is_killed_and_the_results_are_the_same(plan, alone, dask, tmp_path):
    stages, first, orphans = plan(tmp_path / "run").stages, FirstSnapshot(), []
    with connected(str(dask(3).scheduler_file)) as cluster:
        cluster.client.wait_for_workers(3)
        processes = cluster.client.run(os.getpid)

        def kill(stage: Stage) -> None:
            worker = psutil.Process(processes[_worker_of(cluster, stage)])
            orphans.extend(worker.children())
            worker.kill()

        killer = first.then(kill)
        run_stages_on_cluster(stages, cluster, cluster.settle(WISH), first.observe)
        killer.join()
    assert _found(stages) == alone
    assert orphans
    assert psutil.wait_procs(orphans, timeout=30)[1] == []
    assert '"resumed"' in first.stage.folder.training.log.read_text()
    assert not list(tmp_path.glob("run/stages/*/train/snapshots"))


def test_a_sweep_that_is_stopped_leaves_snapshots_and_goes_on_in_a_store(
    plan, alone, dask, tmp_path
):
    store = (tmp_path / "store").as_uri()
    stopped, resumed = plan(tmp_path / "stopped").stages, plan(tmp_path / "resumed").stages
    first, address = FirstSnapshot(), str(dask(2).scheduler_file)
    with connected(address) as cluster:
        stopper = first.then(lambda _: cluster.stop())
        with pytest.raises(InterruptedRunError, match=r"stopped with \d of 5 stages done"):
            run_stages_on_cluster(stopped, cluster, WISH, first.observe, store)
        stopper.join()
    assert list(tmp_path.glob("store/stages/*/train/snapshots/*.solverstate"))
    again = plan(tmp_path / "again").stages
    with crew_to_work_with(WISH, 1, address, store) as crew:
        crew.fetch(resumed)
        crew.run(resumed, lambda *_: None)
        crew.fetch(again)
    assert _found(resumed) == _found(again) == alone
    assert not list(tmp_path.glob("store/stages/*/train/snapshots/*"))


@pytest.mark.parametrize("several", [False, True])
def test_what_is_done_on_this_machine_is_pruned_by_those_that_see_only_the_store(
    plan, alone, dask, tmp_path, several
):
    ours = plan(tmp_path / "run")
    best = max((0, 1), key=lambda place: alone[place]["after"]["correct"])
    engine = TorchEngine()
    done = ours.baselines if several else [ours.baselines[best]]
    run_stages(done, engine, 1, lambda *_: None)
    engine.close()
    with connected(str(dask(2).scheduler_file)) as cluster:
        store = (tmp_path / "store").as_uri()
        run_stages_on_cluster(ours.stages, cluster, WISH, lambda *_: None, store)
    assert _found(ours.stages) == alone


def test_what_a_cluster_lacks_is_said(dask):
    with (
        pytest.raises(EngineError, match="no Dask scheduler answers there"),
        connected("tcp://127.0.0.1:9"),
    ):
        pass
    with connected(str(dask(1).scheduler_file)) as cluster:
        cluster.client.wait_for_workers(1)
        with pytest.raises(EngineError, match=r'none of its \d workers .* --resources "GPU=1"'):
            cluster.settle(EngineWish("torch", device="cuda"))


def test_a_lost_scheduler_costs_nothing_that_is_done(plan, alone, dask, tmp_path):
    stages, first, processes = plan(tmp_path / "run").stages, FirstSnapshot(), dask(2)
    killer = first.then(lambda _: processes.scheduler.kill())
    with (
        pytest.raises(EngineError, match=r"the scheduler is gone, with \d of 5 stages done"),
        connected(str(processes.scheduler_file)) as cluster,
    ):
        run_stages_on_cluster(stages, cluster, WISH, first.observe)
    killer.join()
    # The workers that lost their scheduler may still be at their stages: the new one waits.
    with connected(str(dask(1).scheduler_file)) as cluster:
        run_stages_on_cluster(stages, cluster, WISH, lambda *_: None)
    assert _found(stages) == alone
