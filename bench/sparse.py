"""What a masked training iteration costs beside a dense one as weights go: LeNet-300-100, MNIST.

Engine torch. A dense solver and one for each share of pruned weights (at random, in all three
layers) live in one process, with one thread, and take turns, a block of iterations each, so that
whatever else the machine does meets all. How layers are computed is measured at the start, as in a
training; printed are the ways that were chosen, the times, and the ratios to the dense iteration.
Run with: .venv/bin/python bench/sparse.py [--data DIR] [--network lenet] [--masks FILE]
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from engine_cases import BLOCKS, write_case

from data_prep.mnist import build_mnist
from pycaffe_prune.engines.torch.products import Product
from pycaffe_prune.engines.torch.solver import Solver
from pycaffe_prune.engines.torch.worker import prepare_process
from pycaffe_prune.formats.caffemodel import BlobKey
from pycaffe_prune.formats.mask import Mask
from pycaffe_prune.formats.prototxt import read_net, read_solver

SHARES = (0.5, 0.8, 0.9, 0.95, 0.97, 0.99)
TARGETS = {"lenet_300_100": {0.9: 1.0, 0.97: 0.6}, "lenet": {}}
"""Most of the dense iteration's time, by network and share of weights that are pruned."""
DENSE = "dense"


def main() -> None:
    """Print milliseconds an iteration and the medians of the ratios; the target's one last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="MNIST's LMDBs (default: built for this run)")
    parser.add_argument("--network", choices=list(TARGETS), default="lenet_300_100")
    parser.add_argument("--turns", type=int, default=30, help="blocks of each solver")
    parser.add_argument(
        "--all-dense", action="store_true", help="products stay dense: what the masks alone cost"
    )
    options = parser.parse_args()
    prepare_process(threads=1)
    with tempfile.TemporaryDirectory() as name:
        os.environ["PYCAFFE_PRUNE_CACHE"] = name  # what other runs measured does not count
        data = options.data or Path(name) / "mnist"
        if options.data is None:
            build_mnist(data)
        folder = Path(name) / "case"
        write_case(options.network, data.resolve(), folder)
        os.chdir(folder)
        solvers = {DENSE: _solver()}
        for share in SHARES:
            solvers[f"{share:.0%}"] = _masked(share, all_dense=options.all_dense)
        times = _race(solvers, options.turns, BLOCKS[options.network])
        os.chdir("/")
    _report(times, TARGETS[options.network])


def _solver() -> Solver:
    return Solver(read_solver(Path("solver.prototxt")), read_net(Path("net.prototxt")))


def _masked(share: float, *, all_dense: bool) -> Solver:
    solver = _solver()
    solver.mask(_masks(solver, share))
    products: Sequence[Product] = () if all_dense else solver.measured_products()
    for product in products:
        print(f"{share:.0%}: {product.told}")
    solver.compute_by(products)
    return solver


def _masks(solver: Solver, share: float) -> dict[BlobKey, Mask]:
    random = np.random.default_rng(0)
    return {
        (name, 0): random.random(blobs[0].shape) >= share
        for name, blobs in solver.net.params.items()
        if len(blobs[0].shape) == 2
    }


def _race(solvers: Mapping[str, Solver], turns: int, block: int) -> dict[str, np.ndarray]:
    times: dict[str, list[float]] = {name: [] for name in solvers}
    for turn in range(turns + 1):
        for name in list(solvers)[:: 1 if turn % 2 else -1]:
            start = time.thread_time()
            solvers[name].step(block)
            times[name].append((time.thread_time() - start) / block)
    return {name: np.array(values[1:]) for name, values in times.items()}  # the first one warms up


def _report(times: Mapping[str, np.ndarray], targets: Mapping[float, float]) -> None:
    for name, values in times.items():
        print(f"{name:6} {1000 * np.median(values):.3f} ms an iteration (median of {len(values)})")
    ratios = {share: np.median(times[f"{share:.0%}"] / times[DENSE]) for share in SHARES}
    for share, ratio in ratios.items():
        print(f"{share:.0%} pruned / dense {ratio:.3f}")
    for share, most in targets.items():
        print(f"{share:.0%} pruned / dense {ratios[share]:.3f} (target: at most {most:g})")
    sys.exit(any(ratios[share] > most for share, most in targets.items()))


if __name__ == "__main__":
    main()
