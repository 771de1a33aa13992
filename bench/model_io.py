"""Reading, pruning and writing a CaffeNet-sized caffemodel (233 MiB), side by side with pycaffe.

Both read the same weights, zero those of fc6, fc7 and fc8 that are below their layer's standard
deviation (alpha 1.0), and write the result; each repetition in a fresh process, turn by turn, the
file in the page cache. Ours makes its file durable (fsync), pycaffe's does not. Run with:
.venv/bin/python bench/model_io.py [--repeats N] [--folder DIR]
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from pycaffe_prune.engines.caffe.python import find_caffe_python
from pycaffe_prune.formats.caffemodel import read_caffemodel, write_caffemodel
from pycaffe_prune.pruning.connections import prune_connections, thresholds

LAYERS = ("fc6", "fc7", "fc8")
ALPHA = 1.0
MIB = 2**20
SECONDS_TARGET = 2.0
MEMORY_TARGET = 3.0

THEIRS = """
import json, resource, sys, time
import numpy as np
import caffe
net_path, weights, out, layers, alpha = sys.argv[1:]
caffe.set_mode_cpu()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
net = caffe.Net(net_path, weights, caffe.TEST)
read = time.perf_counter()
for name in layers.split(","):
    weight = net.params[name][0].data
    weight[np.abs(weight) < np.float32(float(alpha) * weight.std(dtype=np.float64))] = 0
pruned = time.perf_counter()
net.save(out)
end = time.perf_counter()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"read": read - start, "prune": pruned - read, "write": end - pruned,
                  "total": end - start, "before": before * 1024, "peak": peak * 1024}))
"""

MAKE = """
import sys, caffe
caffe.set_random_seed(1)
caffe.Net(sys.argv[1], caffe.TEST).save(sys.argv[2])
"""


def convolution(name: str, bottom: str, outputs: int, kernel: int, extra: str) -> str:
    """Return a Convolution layer and its ReLU as text."""
    return f"""
layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}"
  convolution_param {{ num_output: {outputs} kernel_size: {kernel} {extra}
    weight_filler {{ type: "gaussian" std: 0.01 }} bias_filler {{ value: 0.1 }} }} }}
layer {{ name: "relu_{name}" type: "ReLU" bottom: "{name}" top: "{name}" }}"""


def pooling(name: str, bottom: str) -> str:
    """Return a 3x3 maximum pooling layer of stride 2 as text."""
    return f"""
layer {{ name: "{name}" type: "Pooling" bottom: "{bottom}" top: "{name}"
  pooling_param {{ pool: MAX kernel_size: 3 stride: 2 }} }}"""


def lrn(name: str, bottom: str) -> str:
    """Return a local response normalisation layer as text."""
    return f"""
layer {{ name: "{name}" type: "LRN" bottom: "{bottom}" top: "{name}"
  lrn_param {{ local_size: 5 alpha: 0.0001 beta: 0.75 }} }}"""


def inner_product(name: str, bottom: str, outputs: int) -> str:
    """Return an InnerProduct layer as text."""
    return f"""
layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}"
  inner_product_param {{ num_output: {outputs}
    weight_filler {{ type: "gaussian" std: 0.005 }} bias_filler {{ value: 0.1 }} }} }}"""


def caffenet() -> str:
    """Return CaffeNet with random weights and 1000 outputs as a net prototxt."""
    return "".join(
        (
            'name: "CaffeNet"\nlayer { name: "data" type: "Input" top: "data"',
            " input_param { shape { dim: 1 dim: 3 dim: 227 dim: 227 } } }",
            convolution("conv1", "data", 96, 11, "stride: 4"),
            pooling("pool1", "conv1"),
            lrn("norm1", "pool1"),
            convolution("conv2", "norm1", 256, 5, "pad: 2 group: 2"),
            pooling("pool2", "conv2"),
            lrn("norm2", "pool2"),
            convolution("conv3", "norm2", 384, 3, "pad: 1"),
            convolution("conv4", "conv3", 384, 3, "pad: 1 group: 2"),
            convolution("conv5", "conv4", 256, 3, "pad: 1 group: 2"),
            pooling("pool5", "conv5"),
            inner_product("fc6", "pool5", 4096),
            inner_product("fc7", "fc6", 4096),
            inner_product("fc8", "fc7", 1000),
            "\n",
        )
    )


def peak_memory() -> int:
    """Return the most bytes that this process has had resident so far, mapped files included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def ours(weights: Path, out: Path) -> dict[str, float]:
    """Prune with the package in this process; return seconds and bytes."""
    before = peak_memory()
    start = time.perf_counter()
    model = read_caffemodel(weights)
    read = time.perf_counter()
    limits = thresholds(model, model, ALPHA, LAYERS)
    pruned, _ = prune_connections(model, limits)
    done = time.perf_counter()
    write_caffemodel(out, pruned)
    end = time.perf_counter()
    return {
        "read": read - start,
        "prune": done - read,
        "write": end - done,
        "total": end - start,
        "before": before,
        "peak": peak_memory(),
    }


def run(*command: str | Path) -> str:
    """Run a command with one BLAS thread and return what it prints."""
    environment = {**os.environ, "GLOG_minloglevel": "2", "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, text=True, check=True
    ).stdout


def summary(name: str, runs: list[dict[str, float]]) -> dict[str, float]:
    """Print and return the medians over the repetitions."""
    found = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    totals = [run["total"] for run in runs]
    print(
        f"{name:8} read {found['read']:.2f} s, prune {found['prune']:.2f} s, "
        f"write {found['write']:.2f} s, in all {found['total']:.2f} s "
        f"({min(totals):.2f} to {max(totals):.2f}); "
        f"peak {found['peak'] / MIB:.0f} MiB, {found['before'] / MIB:.0f} MiB of it before"
    )
    return found


def different_values(one: Path, other: Path) -> int:
    """Count the blob values in which two caffemodels differ."""
    theirs = dict(read_caffemodel(other).blobs())
    return sum(
        int(np.count_nonzero(blob != theirs[key])) for key, blob in read_caffemodel(one).blobs()
    )


def compare(cache: Path, folder: Path, repeats: int) -> bool:
    """Race both, print the medians, and tell whether ours meets its targets.

    The weights stay in ``cache``; ``folder`` is this run's own, for what the two write.
    """
    net, weights = folder / "caffenet.prototxt", cache / "caffenet.caffemodel"
    caffe = find_caffe_python().executable
    net.write_text(caffenet())
    if not weights.exists():
        run(caffe, "-c", MAKE, net, folder / "new.caffemodel")
        (folder / "new.caffemodel").rename(weights)
    outs = {name: folder / f"{name}.caffemodel" for name in ("ours", "pycaffe")}
    commands: dict[str, list[str | Path]] = {
        "ours": [sys.executable, __file__, "--once", weights, outs["ours"]],
        "pycaffe": [
            *(caffe, "-c", THEIRS, net, weights, outs["pycaffe"]),
            *(",".join(LAYERS), str(ALPHA)),
        ],
    }
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    for repeat in range(repeats + 1):
        for name, command in commands.items():
            found = json.loads(run(*command))
            if repeat:  # the first fills the page cache
                runs[name].append(found)
    size = weights.stat().st_size
    print(f"{weights.name}: {size / MIB:.0f} MiB; medians of {repeats} runs")
    own, theirs = (summary(name, runs[name]) for name in ("ours", "pycaffe"))
    memory = (own["peak"] - own["before"]) / size
    print(f"values that differ between the two files: {different_values(*outs.values())}")
    print(f"pycaffe / ours: time {theirs['total'] / own['total']:.1f}", end=", ")
    print(f"peak memory {theirs['peak'] / own['peak']:.1f}")
    print(f"ours: {own['total']:.2f} s (target: at most {SECONDS_TARGET:g} s), ", end="")
    print(f"memory {memory:.2f} times the file (target: at most {MEMORY_TARGET:g})")
    return own["total"] <= SECONDS_TARGET and memory <= MEMORY_TARGET


def main() -> None:
    """Compare, or do one repetition of ours."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    default = Path(tempfile.gettempdir()) / "pycaffe-prune-bench"
    parser.add_argument("--folder", type=Path, default=default, help="0.7 GiB; weights stay there")
    parser.add_argument("--once", type=Path, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.once:
        print(json.dumps(ours(*options.once)))
    else:
        options.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            met = compare(options.folder, Path(folder), options.repeats)
        sys.exit(not met)


if __name__ == "__main__":
    main()
