"""The torch engine's side of the race in `engines.py`: FOLDER THREADS plain|masked.

Each line on standard input is a number of iterations; the seconds they took go to descriptor 3.
"""

import os
import sys
import time
from pathlib import Path

from engine_cases import sparse_masks

from pycaffe_prune.engines.torch.solver import Solver
from pycaffe_prune.engines.torch.worker import prepare_process
from pycaffe_prune.formats.prototxt import read_net, read_solver


def main(folder: str, threads: str, kind: str) -> None:
    """Run iterations until standard input ends."""
    os.chdir(folder)
    prepare_process(threads=int(threads))
    solver = Solver(read_solver(Path("solver.prototxt")), read_net(Path("net.prototxt")))
    if kind == "masked":
        solver.mask(sparse_masks(solver.net))
        solver.compute_by(solver.measured_products())  # as a training does
    for line in sys.stdin:
        start = time.perf_counter()
        solver.step(int(line))
        os.write(3, b"%.9f\n" % (time.perf_counter() - start))


if __name__ == "__main__":
    main(*sys.argv[1:])
