"""A LeNet-300-100 sweep with one stage at a time against two, and against two Dask workers.

Eight stages of 2,500 iterations on MNIST, two of them baselines that the others wait for. The ways
take turns, so that whatever else the machine does meets all. The workers of the Dask cluster are on
this machine and are started before the clock; on a machine with other work the ratio says how much
of two cores could be had. Run with: .venv/bin/python bench/sweep.py [--data DIR] [--engine NAME]
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from distributed import LocalCluster

from data_prep.manifest import load_manifest
from data_prep.mnist import build_mnist
from pycaffe_prune.cli.reproduce.experiment_data import data_set_of
from pycaffe_prune.engines.choice import EngineWish, choose_engine
from pycaffe_prune.experiments.cluster.dask_crew import connected, run_stages_on_cluster
from pycaffe_prune.experiments.plan import make_plan
from pycaffe_prune.experiments.scheduler import run_stages
from pycaffe_prune.experiments.spec import ExperimentSpec
from pycaffe_prune.experiments.stages import Stage
from pycaffe_prune.share import share_root

TARGET = 0.6
ITERATIONS = 2500
SPEC = {
    "name": "sweep",
    "preset": "bench",
    "title": "LeNet-300-100",
    "solver": "solvers/lenet_300_100.prototxt",
    "data": "mnist",
    "layers": ["ip1", "ip2", "ip3"],
    "baseline": {"seeds": [1, 2], "iterations": ITERATIONS},
    "connections": {"alphas": [0.6, 1.2, 1.8], "rounds": 1, "iterations": ITERATIONS},
    "units": {"layer": "ip1", "ratios": [0.9], "iterations": ITERATIONS},
    "small": {"seeds": [1, 2], "iterations": ITERATIONS},
}


def main() -> None:
    """Print the seconds of each way in each turn, and the medians of their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="MNIST's LMDBs (default: built for this run)")
    parser.add_argument("--engine", default="auto", choices=["auto", "caffe", "torch"])
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = options.data or folder / "mnist"
        if options.data is None:
            build_mnist(data)
        times = race(EngineWish(options.engine), folder, data, options.turns)
    for way, seconds in times.items():
        print(f"{way:14} {' '.join(f'{second:.1f}' for second in seconds)} s")
    ratios = {
        way: statistics.median(
            mine / alone for mine, alone in zip(seconds, times["--jobs 1"], strict=True)
        )
        for way, seconds in times.items()
    }
    print(f"two Dask workers / --jobs 1: {ratios['two workers']:.2f}")
    print(f"--jobs 2 / --jobs 1: {ratios['--jobs 2']:.2f} (target: at most {TARGET})")
    print(f"load of the machine at the end: {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
    sys.exit(ratios["--jobs 2"] > TARGET)


def race(wish: EngineWish, folder: Path, data: Path, turns: int) -> dict[str, list[float]]:
    """Return the seconds of each way, turn by turn."""
    choice = choose_engine(wish)
    print(f"engine {choice.engine.name}: {choice.reason}")
    with (
        closing(choice.engine) as engine,
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, local_directory=str(folder)
        ) as workers,
        connected(workers.scheduler_address) as cluster,
    ):
        settled = cluster.settle(EngineWish(engine.name))
        ways: dict[str, Callable[[Sequence[Stage]], None]] = {
            "--jobs 1": lambda stages: run_stages(stages, engine, 1, lambda *_: None),
            "--jobs 2": lambda stages: run_stages(stages, engine, 2, lambda *_: None),
            "two workers": lambda stages: run_stages_on_cluster(
                stages, cluster, settled, lambda *_: None
            ),
        }
        times: dict[str, list[float]] = {way: [] for way in ways}
        for turn in range(turns):
            for place, (way, run) in enumerate(ways.items()):
                stages = stages_in(folder / f"run-{turn}-{place}", data, engine.name)
                start = time.perf_counter()
                run(stages)
                times[way].append(time.perf_counter() - start)
    return times


def stages_in(folder: Path, data: Path, engine_name: str) -> list[Stage]:
    """Plan the sweep anew in an empty folder."""
    data_set = data_set_of(load_manifest(data))
    spec = ExperimentSpec.model_validate(SPEC)
    solver = share_root() / spec.solver
    return make_plan(spec, solver, folder, data, data_set, engine_name).stages


if __name__ == "__main__":
    main()
