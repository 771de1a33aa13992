"""What shrinking a net is worth on this CPU: in the real Caffe, in onnxruntime, and sparse.

The same net dense, with its smallest connections zero, without the units that these leave dead,
with fewer units, and of low rank; each with one image and with a batch, with one thread. All take
turns, a round of every net in every runner, and what counts is the processor time of the thread:
what the wall would show with nothing beside, save for caches that others fill.
Sparse, a net of InnerProduct layers is multiplied from compressed rows (CSR) by SciPy and PyTorch.
That all runners put out the same is seen first. What an image reads and the energy by EIE's 45 nm
table are counted (`pycaffe_prune.pruning.energy`), not measured. Run with:
.venv/bin/python bench/worth.py [--network NAME] [--weights FILE] [--ratio R]
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from pycaffe_prune.convert.onnx_model import to_onnx
from pycaffe_prune.engines.caffe.python import find_caffe_python
from pycaffe_prune.formats.caffe_pb2 import TEST, LayerParameter, NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer, write_caffemodel
from pycaffe_prune.formats.prototxt import read_net, write_prototxt
from pycaffe_prune.formats.weights import read_weights
from pycaffe_prune.net.counts import are_weights
from pycaffe_prune.net.graph import NetState, layers_in_state
from pycaffe_prune.net.shapes import infer_shapes
from pycaffe_prune.pruning.connections import prune_to_global_ratio
from pycaffe_prune.pruning.dead import delete_dead
from pycaffe_prune.pruning.energy import csr_bytes, image_energy
from pycaffe_prune.pruning.factoring import (
    Factoring,
    can_be_factored,
    decompose_layers,
    factor_layers,
    ways_of,
)
from pycaffe_prune.pruning.low_rank import Way
from pycaffe_prune.pruning.ranks import ranks_within, weight_costs
from pycaffe_prune.pruning.sizes import net_size
from pycaffe_prune.pruning.small_dense import hidden_layers
from pycaffe_prune.pruning.units import choose_units, delete_units
from pycaffe_prune.share import share_root

Array = NDArray[np.float32]
_CHAIN = ("Input", "InnerProduct", "ReLU", "Softmax")
Runner = Callable[[Array], Array]

CAFFE = """
import os, sys, time
import numpy as np
import caffe
caffe.set_mode_cpu()
net = caffe.Net(sys.argv[1], sys.argv[2], caffe.TEST)
with np.load(sys.argv[3]) as held:
    batches = {str(len(held[name])): held[name] for name in held.files}
for line in sys.stdin:
    images, times = line.split()
    batch = batches[images]
    blob = net.blobs[net.inputs[0]]
    if blob.data.shape != batch.shape:
        blob.reshape(*batch.shape)
        net.reshape()
    blob.data[...] = batch
    net.forward()
    start = time.thread_time()
    for _ in range(int(times)):
        net.forward()
    seconds = (time.thread_time() - start) / int(times)
    np.save(sys.argv[4], net.blobs[net.outputs[0]].data)
    os.write(3, b"%.9f\\n" % seconds)
"""


@dataclass(frozen=True)
class Variant:
    """One net with its weights."""

    name: str
    net: NetParameter
    model: Caffemodel


class CaffeRunner:
    """The real Caffe with one net, in a process of its own."""

    def __init__(self, folder: Path, variant: Variant, batches: Mapping[str, Array]) -> None:
        folder.mkdir()
        write_prototxt(folder / "net.prototxt", variant.net)
        write_caffemodel(folder / "net.caffemodel", variant.model)
        np.savez(folder / "in.npz", **batches)
        self._out = folder / "out.npy"
        self._figures, write = os.pipe()
        read, ask = os.pipe()
        self._ask = os.fdopen(ask, "w")
        files = [folder / name for name in ("net.prototxt", "net.caffemodel", "in.npz", "out.npy")]
        self._process = subprocess.Popen(
            [
                find_caffe_python().executable,
                "-c",
                f"import os; os.dup2({write}, 3)\n{CAFFE}",
                *files,
            ],
            stdin=read,
            stdout=subprocess.DEVNULL,
            pass_fds=(write,),
            env={
                **os.environ,
                "GLOG_minloglevel": "2",
                "OPENBLAS_NUM_THREADS": "1",
                "OMP_NUM_THREADS": "1",
            },
        )
        os.close(write)
        os.close(read)

    def seconds(self, batch: Array, times: int) -> float:
        """Run a batch so many times, and return the seconds that one takes."""
        print(len(batch), times, file=self._ask, flush=True)
        told = os.read(self._figures, 100)
        if not told:
            sys.exit("the real Caffe has stopped")
        return float(told)

    def put_out(self) -> Array:
        """Return what came out last."""
        return np.asarray(np.load(self._out), np.float32)

    def stop(self) -> None:
        """End the process."""
        self._ask.close()
        self._process.wait()


def variants(net: NetParameter, model: Caffemodel, ratio: float) -> list[Variant]:
    """Return the net as it is and shrunk in each way."""
    names = [name for name, _ in can_be_factored(net, model)]
    pruned, _ = prune_to_global_ratio(model, ratio, [(name, 0) for name in names])
    alive = delete_dead(net, pruned)
    shares = dict.fromkeys(hidden_layers(net), ratio)
    found = decompose_layers(net, model, ways_of(net, names, Way.SPATIAL))
    taken = weight_costs(found)
    total = sum(cost.whole for cost in taken.values())
    ranks = ranks_within(found, taken, (1 - ratio) * total)
    ways = ways_of(net, ranks, Way.SPATIAL)
    made = {name: Factoring(ways[name], found[name].cut(rank)) for name, rank in ranks.items()}
    return [
        Variant("dense", net, model),
        Variant("connections zero", net, pruned),
        Variant("without dead units", alive.net, alive.model),
        Variant("fewer units", *delete_units(net, model, choose_units(net, model, shares))),
        Variant("low rank", *factor_layers(net, model, made)),
    ]


def random_model(net: NetParameter) -> Caffemodel:
    """Weights that nobody trained, whose shapes are what counts for time."""
    random = np.random.default_rng(1)
    layers = []
    for layer, shapes in zip(net.layer, infer_shapes(list(net.layer)), strict=True):
        blobs = tuple(
            random.normal(0, 1 / np.sqrt(np.prod(shape[1:])), shape).astype(np.float32)
            for shape in shapes.params
        )
        layers += [Layer(layer, blobs)] if blobs else []
    return Caffemodel(tuple(layers))


def onnx_runner(variant: Variant) -> Runner:
    """Return onnxruntime with one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        to_onnx(variant.net, variant.model).SerializeToString(), options, ["CPUExecutionProvider"]
    )
    blob = session.get_inputs()[0].name
    return lambda batch: np.asarray(session.run(None, {blob: batch})[0], np.float32)


def sparse_runners(variant: Variant) -> dict[str, Runner]:
    """Return what multiplies with compressed rows; nothing for nets of other layers or dense ones.

    A ReLU is taken to follow every InnerProduct layer but the last.
    """
    size = net_size(variant.net, variant.model)
    layers = layers_in_state(variant.net, NetState.of(variant.net, TEST))
    kinds = [layer.type for layer in layers]
    is_sparse = size.non_zero_weights < size.weights / 2
    if not is_sparse or set(kinds) - set(_CHAIN) or kinds[-1] != "Softmax":
        return {}
    inner = [layer for layer in layers if layer.type == "InnerProduct"]
    weights = [csr_matrix(matrix_of(layer, variant.model)) for layer in inner]
    biases = [variant.model.layer(layer.name).blobs[1][:, None] for layer in inner]
    columns = [torch.from_numpy(np.array(bias)) for bias in biases]
    rows = [
        torch.sparse_csr_tensor(
            torch.from_numpy(one.indptr), torch.from_numpy(one.indices), torch.from_numpy(one.data),
            size=one.shape,
        )
        for one in weights
    ]  # fmt: skip

    def by_scipy(batch: Array) -> Array:
        values = batch.reshape(len(batch), -1).T
        for place, (matrix, bias) in enumerate(zip(weights, biases, strict=True)):
            values = matrix @ values + bias
            if place + 1 < len(weights):
                np.maximum(values, 0, out=values)
        shares = np.exp(values - values.max(axis=0))
        return np.asarray((shares / shares.sum(axis=0)).T, np.float32)

    def by_torch(batch: Array) -> Array:
        values = torch.from_numpy(batch).reshape(len(batch), -1).T.contiguous()
        for place, (matrix, bias) in enumerate(zip(rows, columns, strict=True)):
            values = torch.addmm(bias, matrix, values)
            if place + 1 < len(rows):
                values.relu_()
        return np.asarray(values.softmax(0).T, np.float32)

    return {"SciPy CSR": by_scipy, "torch CSR": by_torch}


def matrix_of(layer: LayerParameter, model: Caffemodel) -> Array:
    """Units x inputs."""
    weights = model.layer(layer.name).blobs[0]
    return weights.T if layer.inner_product_param.transpose else weights


def seconds_of(runner: Runner, batch: Array, times: int) -> float:
    """Return the seconds that a batch takes, as the mean of so many."""
    start = time.thread_time()
    for _ in range(times):
        runner(batch)
    return (time.thread_time() - start) / times


def race(
    folder: Path, raced: list[Variant], batches: Mapping[str, Array], rounds: int
) -> dict[tuple[str, str, int], list[float]]:
    """Let all of them take turns; seconds by net, runner and number of images."""
    caffes = {
        one.name: CaffeRunner(folder / f"{place}", one, batches) for place, one in enumerate(raced)
    }
    others = {one.name: {"onnxruntime": onnx_runner(one), **sparse_runners(one)} for one in raced}
    found: dict[tuple[str, str, int], list[float]] = {}
    for number in range(rounds + 1):
        for batch in batches.values():
            times = max(1, 100 // len(batch))
            for one in raced:
                taken = {"Caffe": caffes[one.name].seconds(batch, times)}
                if number == 0:
                    wanted = caffes[one.name].put_out()
                    require_equal(one, others[one.name], batch, wanted)
                for name, runner in others[one.name].items():
                    taken[name] = seconds_of(runner, batch, times)
                for name, seconds in taken.items():
                    if number:  # the first round warms up
                        found.setdefault((one.name, name, len(batch)), []).append(seconds)
    for caffe in caffes.values():
        caffe.stop()
    return found


def require_equal(
    variant: Variant, runners: Mapping[str, Runner], batch: Array, wanted: Array
) -> None:
    """See that all put out what the real Caffe does."""
    for name, runner in runners.items():
        apart = float(np.abs(runner(batch).reshape(wanted.shape) - wanted).max())
        if apart > 1e-4:
            sys.exit(f"{variant.name}: {name} puts out {apart:g} off what the real Caffe does")


def show(
    raced: list[Variant], found: Mapping[tuple[str, str, int], list[float]], rounds: int
) -> None:
    """Print what was measured, then what is counted."""
    images = sorted({count for _, _, count in found})
    print(f"milliseconds of the thread, medians of {rounds} rounds (lowest)")
    heads = "".join(f"{count:>14} image{'s' * (count > 1)}" for count in images)
    print(f"{'':34}{heads}")
    for name, runner in dict.fromkeys((name, runner) for name, runner, _ in found):
        cells = [found[name, runner, count] for count in images]
        told = (f"{1e3 * statistics.median(cell):.3f} ({1e3 * min(cell):.3f})" for cell in cells)
        print(f"{name:20}{runner:14}" + "".join(f"{cell:>20}" for cell in told))
    print("\ncounted for one image; microjoules are EIE's 45 nm table, an estimate")
    print(f"{'':26}{'KiB of weights':>16}{'MACs':>14}{'from DRAM':>12}{'on chip':>12}{'batch':>12}")
    for one in raced:
        for form, stored, macs in counted(one):
            energies = [
                image_energy(stored, macs),
                image_energy(stored, macs, on_chip=True),
                image_energy(stored, macs, batch=images[-1]),
            ]
            told = "".join(f"{energy.total / 1e6:>12.2f}" for energy in energies)
            print(f"{one.name + form:26}{stored / 1024:>16,.0f}{macs:>14,}{told}")


def counted(variant: Variant) -> list[tuple[str, int, int]]:
    """What is read and multiplied: dense, and where there are many zeros, in compressed rows."""
    size = net_size(variant.net, variant.model)
    if size.macs is None or size.non_zero_macs is None:
        sys.exit(f"{variant.name}: the prototxt does not tell the size of the images")
    found = [("", 4 * size.parameters, size.macs)]
    if size.non_zero_weights < size.weights / 2:
        held = {layer.name: layer.blobs for layer in variant.model.layers if layer.blobs}
        stored = 0
        for layer in layers_in_state(variant.net, NetState.of(variant.net, TEST)):
            blobs = held.get(layer.name, ())
            are = are_weights(layer, [blob.shape for blob in blobs])
            for blob, is_weight in zip(blobs, are, strict=True):
                kept = int(np.count_nonzero(blob))
                stored += csr_bytes(len(blob), kept) if is_weight else blob.nbytes
        found.append((", CSR", stored, size.non_zero_macs))
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", default="lenet_300_100", help="folder of prototxt/")
    parser.add_argument("--weights", type=Path, help="trained ones; else random")
    parser.add_argument("--ratio", type=float, default=0.9, help="share of weights or units gone")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=11)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "Sparse")  # that torch's CSR is in beta
    net = read_net(share_root() / "prototxt" / options.network / "deploy.prototxt")
    model = read_weights(options.weights) if options.weights else random_model(net)
    shape = infer_shapes(list(net.layer))[0].tops[0]
    if shape is None:
        sys.exit("the prototxt does not tell the size of the images")
    random = np.random.default_rng(2)
    batches = {
        f"of{count}": random.random((count, *shape[1:]), np.float32) for count in (1, options.batch)
    }
    raced = variants(net, model, options.ratio)
    weights = "trained" if options.weights else "random"
    print(f"{net.name}, {weights} weights, {100 * options.ratio:g} % gone")
    with tempfile.TemporaryDirectory() as folder:
        found = race(Path(folder), raced, batches, options.rounds)
    show(raced, found, options.rounds)


if __name__ == "__main__":
    main()
