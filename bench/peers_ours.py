"""Our side of `peers.py`: FOLDER ITERATIONS [MASKS].

Trains ``net.prototxt`` in the torch engine with one thread, from ``weights.caffemodel`` if it is
there, writes ``ours.caffemodel``, tests, and prints what that took and gave as JSON.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
from peers_tasks import TEST_BATCHES

from pycaffe_prune.engines.torch.net import Net
from pycaffe_prune.engines.torch.solver import Solver
from pycaffe_prune.engines.torch.worker import prepare_process
from pycaffe_prune.formats.caffe_pb2 import TEST
from pycaffe_prune.formats.caffemodel import read_caffemodel
from pycaffe_prune.formats.prototxt import read_net, read_solver
from pycaffe_prune.net.graph import NetState


def main(folder: Path, iterations: int, masks: Path | None) -> None:
    """Train and test."""
    prepare_process(threads=1)
    solver = Solver(read_solver(folder / "solver.prototxt"), read_net(folder / "net.prototxt"))
    if (folder / "weights.caffemodel").exists():
        solver.net.copy_from(folder / "weights.caffemodel")
    if masks:
        with np.load(masks) as held:
            solver.mask({(name, 0): held[name] for name in held.files})
    wall, processors = time.perf_counter(), time.process_time()
    solver.step(iterations)
    took = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - processors}
    solver.net.save(folder / "ours.caffemodel")
    kept = read_caffemodel(folder / "ours.caffemodel").layers
    weights = sum(int(np.count_nonzero(blob)) for layer in kept for blob in layer.blobs)
    print(json.dumps({**took, "accuracy": _accuracy(folder), "weights": weights}))


def _accuracy(folder: Path) -> float:
    net = Net(read_net(folder / "net.prototxt"), NetState(TEST))
    net.copy_from(folder / "ours.caffemodel")
    right = [float(net.forward()["accuracy"]) for _ in range(TEST_BATCHES)]
    net.close()
    return float(np.mean(right))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]) if len(sys.argv) > 3 else None)
