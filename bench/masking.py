"""Exact masking against the unmasked run, side by side: LeNet-300-100 on MNIST, the real Caffe.

Both solvers live in one process and take turns, a block of iterations each, so that whatever else
the machine does meets both. Run with: .venv/bin/python bench/masking.py [--data DIR]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from data_prep.mnist import build_mnist
from pycaffe_prune.engines.caffe import caffe_worker
from pycaffe_prune.engines.caffe.python import find_caffe_python
from pycaffe_prune.engines.job import TrainRequest
from pycaffe_prune.engines.prepare import prepare
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.formats.mask import MaskFile, write_mask
from pycaffe_prune.share import share_root

SHAPES = {("ip1", 0): (300, 784), ("ip2", 0): (100, 300), ("ip3", 0): (10, 100)}

RACE = """
import json, os, sys, time
import caffe
sys.path[0] = sys.argv[1]
from caffe_worker.masks import Masks
os.chdir(sys.argv[2])
job = json.load(open("job.json"))
caffe.set_mode_cpu()
plain, masked = caffe.get_solver("solver.prototxt"), caffe.get_solver("solver.prototxt")
masks = Masks(masked.net, job)
masks.zero_weights()
masked.add_callback(lambda: None, masks.zero_gradients)
times = {"plain": [], "masked": []}
for turn in range(int(sys.argv[3])):
    for name, solver in (("plain", plain), ("masked", masked))[:: 1 if turn % 2 else -1]:
        start = time.perf_counter()
        solver.step(200)
        times[name].append((time.perf_counter() - start) / 200)
assert masks.revived() == 0
print(json.dumps(times))
"""


def main() -> None:
    """Print milliseconds an iteration of both, and the median of the ratios of neighbours."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="MNIST's LMDBs (default: built for this run)")
    parser.add_argument("--turns", type=int, default=40, help="blocks of 200 iterations each")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        data = options.data or Path(name) / "mnist"
        if options.data is None:
            build_mnist(data)
        mask = Path(name) / "kept.mask.h5"
        random = np.random.default_rng(0)
        write_mask(
            mask,
            MaskFile({key: random.random(shape) < 0.1 for key, shape in SHAPES.items()}, "", ""),
        )
        folder = RunFolder(Path(name) / "run")
        solver = share_root() / "solvers" / "lenet_300_100.prototxt"
        prepare(TrainRequest(solver=solver, data=data, mask=mask), folder)
        script = Path(name) / "race.py"
        script.write_text(RACE)
        done = subprocess.run(
            [
                find_caffe_python().executable,
                *(
                    script,
                    str(Path(caffe_worker.__file__).parent.parent),
                    folder.path,
                    str(options.turns),
                ),
            ],
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "GLOG_minloglevel": "2"},
            stdout=subprocess.PIPE,
            check=True,
        )
        times = {key: np.array(value) for key, value in json.loads(done.stdout).items()}
    for key, values in times.items():
        print(f"{key:7} {1000 * np.median(values):.3f} ms an iteration (median of {len(values)})")
    ratio = float(np.median(times["masked"] / times["plain"]))
    print(f"masked / plain {ratio:.3f} (target: at most 1.10)")
    sys.exit(ratio > 1.10)


if __name__ == "__main__":
    main()
