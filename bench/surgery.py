"""Deleting half of fc6 and fc7 of a CaffeNet-sized model (233 MiB), side by side with pycaffe.

Ours is the command `caffe-prune prune units`. Against it: net surgery by hand in pycaffe, which
loads the model, scores the units in the same way (onorm), builds the smaller net from a prototxt
that is there already, copies rows and columns, and saves. Each repetition is a whole process, start
and imports included, turn by turn, the file in the page cache. Ours makes its files durable
(fsync), pycaffe's does not. Run with:
.venv/bin/python bench/surgery.py [--repeats N] [--folder DIR]
"""

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

from measured import Measured, measure
from model_io import MAKE, MIB, different_values, run

from pycaffe_prune.engines.caffe.python import find_caffe_python
from pycaffe_prune.share import share_root

SECONDS_TARGET = 3.0

THEIRS = """
import sys
import numpy as np
import caffe
net_path, weights, small_path, out = sys.argv[1:]
caffe.set_mode_cpu()
net = caffe.Net(net_path, weights, caffe.TEST)
small = caffe.Net(small_path, caffe.TEST)
keep = {}
for name, following in (("fc6", "fc7"), ("fc7", "fc8")):
    scores = np.abs(net.params[following][0].data).mean(axis=0, dtype=np.float64)
    keep[name] = np.sort(np.argsort(scores, kind="stable")[len(scores) // 2:])
for name, blobs in net.params.items():
    rows = keep.get(name, slice(None))
    columns = keep.get({"fc7": "fc6", "fc8": "fc7"}.get(name), slice(None))
    for index, blob in enumerate(blobs):
        kept = blob.data[rows]
        if index == 0 and name in ("fc7", "fc8"):
            kept = kept[:, columns]
        small.params[name][index].data[...] = kept
small.save(out)
"""


def once(command: list[str | Path]) -> Measured:
    """Run a command with one BLAS thread, output hidden."""
    return measure(command, {**os.environ, "GLOG_minloglevel": "2", "OPENBLAS_NUM_THREADS": "1"})


def summary(name: str, runs: list[Measured]) -> tuple[float, float]:
    """Print and return the medians over the repetitions: seconds, and the peak in bytes."""
    seconds = [run.wall for run in runs]
    median, peak = statistics.median(seconds), statistics.median(run.peak for run in runs)
    print(
        f"{name:8} {median:.2f} s ({min(seconds):.2f} to {max(seconds):.2f}), "
        f"peak {peak / MIB:.0f} MiB"
    )
    return median, peak


def compare(cache: Path, folder: Path, repeats: int) -> bool:
    """Race both, print the medians, and tell whether ours meets its target.

    The weights stay in ``cache``; ``folder`` is this run's own, for what the two write.
    """
    net, weights = share_root() / "prototxt/caffenet/deploy.prototxt", cache / "caffenet.caffemodel"
    caffe = find_caffe_python().executable
    if not weights.exists():
        run(caffe, "-c", MAKE, net, folder / "new.caffemodel")
        (folder / "new.caffemodel").rename(weights)
    ours, theirs = folder / "pruned.caffemodel", folder / "pycaffe.caffemodel"
    commands: dict[str, list[str | Path]] = {
        "ours": [
            *(sys.executable, "-m", "pycaffe_prune", "prune", "units", "--net", net),
            *("--weights", weights, "--ratio", "fc6=0.5", "--ratio", "fc7=0.5", "--out", folder),
        ],
        "pycaffe": [caffe, "-c", THEIRS, net, weights, folder / "net.prototxt", theirs],
    }
    runs: dict[str, list[Measured]] = {name: [] for name in commands}
    for repeat in range(repeats + 1):
        for name, command in commands.items():
            found = once(command)
            if repeat:  # the first fills the page cache
                runs[name].append(found)
    sizes = " to ".join(f"{path.stat().st_size / MIB:.0f} MiB" for path in (weights, ours))
    print(f"{weights.name}, {sizes}; medians of {repeats} whole processes")
    (own, own_peak), (hand, hand_peak) = (summary(name, runs[name]) for name in commands)
    print(f"values that differ between the two files: {different_values(ours, theirs)}")
    print(f"pycaffe / ours: time {hand / own:.1f}", end=", ")
    print(f"peak memory {hand_peak / own_peak:.1f}")
    print(f"ours: {own:.2f} s (target: at most {SECONDS_TARGET:g} s)")
    return own <= SECONDS_TARGET and not different_values(ours, theirs)


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    default = Path(tempfile.gettempdir()) / "pycaffe-prune-bench"
    parser.add_argument("--folder", type=Path, default=default, help="0.6 GiB; weights stay there")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        met = compare(options.folder, Path(folder), options.repeats)
    sys.exit(not met)


if __name__ == "__main__":
    main()
