"""Masks of every kind and tied weights against the plain run: LeNet-300-100 on MNIST, engine torch.

All solvers live in one process, with one thread, and take turns, a block of iterations each, so
that whatever else the machine does meets all. Dynamic Network Surgery is measured where its chance
to make a mask anew is the mean of the authors' 14,000 iterations, and at its dearest, at the first
ones. Masks that stay are measured as a training computes under them, and with dense products. Tied
are the weights of a net of which a tenth is left, in 6 bits.
Run with: .venv/bin/python bench/masking_torch.py [--data DIR]
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from data_prep.mnist import build_mnist
from pycaffe_prune.engines.job import TrainRequest
from pycaffe_prune.engines.masking import DynamicSurgery, GradualMagnitude
from pycaffe_prune.engines.prepare import prepare
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.engines.torch.solver import Solver
from pycaffe_prune.engines.torch.worker import prepare_process
from pycaffe_prune.engines.tying import Tying
from pycaffe_prune.formats.caffemodel import BlobKey
from pycaffe_prune.formats.mask import Mask
from pycaffe_prune.formats.prototxt import read_net, read_solver
from pycaffe_prune.pruning.shared_weights import share, with_shared
from pycaffe_prune.share import share_root

SHAPES = {("ip1", 0): (300, 784), ("ip2", 0): (100, 300), ("ip3", 0): (10, 100)}
LAYERS = tuple(layer for layer, _ in SHAPES)
BLOCK = 100
MEAN = 6000  # 1 / (1 + 1e-4 * 6000) is 0.625, and so is the mean over 14,000 iterations
TARGETS = {"masked": 1.05, "gradual": 1.05, "surgery": 1.25, "tied": 1.25}


def main() -> None:
    """Print milliseconds an iteration of each, and the median of the ratios to the plain run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="MNIST's LMDBs (default: built for this run)")
    parser.add_argument("--turns", type=int, default=60, help="blocks of 50 iterations each")
    options = parser.parse_args()
    prepare_process(threads=1)
    with tempfile.TemporaryDirectory() as name:
        data = options.data or Path(name) / "mnist"
        if options.data is None:
            build_mnist(data)
        times = _race(_solvers(Path(name) / "run", data), options.turns)
    for kind, values in times.items():
        print(f"{kind:16} {1000 * np.median(values):.3f} ms an iteration (median of {len(values)})")
    missed = False
    for kind in list(times)[1:]:
        ratio = float(np.median(times[kind] / times["plain"]))
        most = TARGETS.get(kind, np.inf)
        target = f" (target: at most {most:.2f})" if kind in TARGETS else ""
        print(f"{kind} / plain {ratio:.3f}{target}")
        missed |= ratio > most
    sys.exit(missed)


def _solvers(path: Path, data: Path) -> dict[str, Solver]:
    folder = RunFolder(path)
    definition = share_root() / "solvers" / "lenet_300_100.prototxt"
    prepare(TrainRequest(solver=definition, data=data), folder)
    made = {
        kind: Solver(read_solver(folder.solver), read_net(folder.net))
        for kind in ("plain", *TARGETS, "surgery at first", "masked densely")
    }
    random = np.random.default_rng(0)
    masks: Mapping[BlobKey, Mask] = {
        key: random.random(shape) < 0.1 for key, shape in SHAPES.items()
    }
    for kind in ("masked", "masked densely"):
        made[kind].mask(masks)
    made["masked"].compute_by(made["masked"].measured_products())
    gradual = GradualMagnitude.of(dict.fromkeys(LAYERS, 0.9), every=100, changes=100)
    surgery = DynamicSurgery.of(dict.fromkeys(LAYERS, 1.0), stop=10**9, gamma=1e-4)
    made["gradual"].follow(gradual, {})
    made["surgery"].follow(surgery, {})
    made["surgery at first"].follow(surgery, {})
    made["surgery"].stepping.iteration = MEAN
    _tie(made["tied"], masks)
    return made


def _tie(solver: Solver, masks: Mapping[BlobKey, Mask]) -> None:
    for (layer, index), mask in masks.items():
        weights = solver.net.params[layer][index].data
        pruned = weights * mask
        weights[...] = with_shared(pruned, share(pruned, bits=6))
    solver.tie(Tying(blobs=tuple(masks)), {})


def _race(solvers: Mapping[str, Solver], turns: int) -> dict[str, np.ndarray]:
    times: dict[str, list[float]] = {kind: [] for kind in solvers}
    for turn in range(turns + 1):
        for kind in list(solvers)[:: 1 if turn % 2 else -1]:
            start = time.thread_time()
            solvers[kind].step(BLOCK)
            times[kind].append((time.thread_time() - start) / BLOCK)
    return {kind: np.array(values[1:]) for kind, values in times.items()}  # the first one warms up


if __name__ == "__main__":
    main()
