"""The same pruning by ours, in plain PyTorch, with Torch-Pruning and in the real Caffe, by turns.

Masked retraining of LeNet-300-100 and LeNet-5 from the same weights with the data in the same
order; half of the filters of LeNet-5's conv2 and of the units of its ip1 deleted, and what is left
retrained; half of the units of CaffeNet's fc6 and fc7 deleted. Each is a fresh process with one
thread. Told are seconds of the processor and by the wall, the peak of memory, accuracy and weights.

Torch-Pruning is nothing that the project needs: pip puts it into a folder of its own. Run with:
.venv/bin/python bench/peers.py [--turns N] [--folder DIR] [TASK...]
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import lmdb
import numpy as np
from engine_cases import write_case
from measured import measure
from model_io import MAKE, MIB, different_values, run
from peers_verdicts import Figures, judge, table

from data_prep.mnist import LMDB_NAMES, build_mnist
from pycaffe_prune.engines.caffe.python import find_caffe_python
from pycaffe_prune.formats.caffe_pb2 import Datum
from pycaffe_prune.formats.caffemodel import Caffemodel, read_caffemodel, write_caffemodel
from pycaffe_prune.formats.prototxt import read_net, write_prototxt
from pycaffe_prune.pruning.connections import prune_to_ratios
from pycaffe_prune.pruning.unit_choice import choose_units
from pycaffe_prune.pruning.units import delete_units
from pycaffe_prune.share import share_root

HERE = Path(__file__).parent
SPARSITY = 0.9
RATIO = 0.5
DENSE_ITERATIONS = {"lenet_300_100": 2000, "lenet": 400}
ITERATIONS = {"lenet_300_100": 500, "lenet": 60}
CUT = {"lenet": {"conv2": "ip1", "ip1": "ip2"}, "caffenet": {"fc6": "fc7", "fc7": "fc8"}}
"""Whose units are deleted, and the layer behind each."""
MODEL = "pruned.caffemodel"
Command = Sequence[str | Path]


@dataclass(frozen=True)
class Tools:
    """What runs each side."""

    caffe: Path
    torch_pruning: Path | None

    @property
    def torch(self) -> Command:
        """PyTorch's side."""
        return [sys.executable, HERE / "peers_torch.py"]

    @property
    def pycaffe(self) -> Command:
        """The real Caffe's side."""
        return [self.caffe, HERE / "peers_caffe.py"]

    @property
    def environment(self) -> dict[str, str]:
        """One thread for each, no log."""
        one = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        found = {**os.environ, **one, "GLOG_minloglevel": "2"}
        if self.torch_pruning:
            paths = [str(self.torch_pruning), os.environ.get("PYTHONPATH")]
            found["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        return found


def figures(tools: Tools, command: Command) -> Figures:
    """Run a command; what it prints last is a line of JSON, if anything.

    Raises:
        SystemExit: It failed; what it said is on standard error.
    """
    found = measure(command, tools.environment)
    last = found.lines[-1] if found.lines else ""
    told = json.loads(last) if last.startswith("{") else {}
    return Figures(
        cpu=found.cpu,
        wall=found.wall,
        peak=found.peak / MIB,
        loop=told.get("cpu"),
        accuracy=told.get("accuracy"),
        weights=told.get("weights"),
    )


def masked(network: str, folder: Path, tools: Tools) -> dict[str, Command]:
    """Retrain with a tenth of the weights, from the same ones."""
    case, masks = folder / network, folder / network / "masks.npz"
    iterations = str(ITERATIONS[network])
    told = (network, folder, case / "weights.pt", iterations, masks)
    return {
        "ours": [sys.executable, HERE / "peers_ours.py", case, iterations, masks],
        "PyTorch's prune": [*tools.torch, "train", *told],
        "the real Caffe": [*tools.pycaffe, "train", case, iterations, masks],
    }


def delete(network: str, folder: Path, tools: Tools) -> dict[str, Command]:
    """Read, choose by the sum of incoming |w|, delete and write: whole processes."""
    case, small = folder / network, folder / f"{network}-half"
    ratios = [word for layer in CUT[network] for word in ("--ratio", f"{layer}={RATIO}")]
    ours = ["--net", case / "deploy.prototxt", "--weights", case / "dense.caffemodel", *ratios]
    by_hand = [f"{layer}={after}" for layer, after in CUT[network].items()]
    found: dict[str, Command] = {
        "ours": [
            *(sys.executable, "-m", "pycaffe_prune", "prune", "units", *ours),
            *("--criterion", "l1", "--out", small / "ours"),
        ],
        "PyTorch's prune": _cut_in_torch(tools, network, folder, "prune"),
        "Torch-Pruning": _cut_in_torch(tools, network, folder, "torch-pruning"),
        "the real Caffe": [
            *(*tools.pycaffe, "delete", case / "deploy.prototxt", case / "dense.caffemodel"),
            *(small / "deploy.prototxt", small / "by-hand.caffemodel", *by_hand),
        ],
    }
    if tools.torch_pruning is None:
        del found["Torch-Pruning"]
    return found


def _cut_in_torch(tools: Tools, network: str, folder: Path, way: str) -> Command:
    weights, out = folder / network / "dense.pt", folder / f"{network}-half" / f"{way}.pt"
    return [*tools.torch, "delete", way, network, weights, out, *CUT[network]]


def retrain(network: str, folder: Path, tools: Tools) -> dict[str, Command]:
    """Train what is left of a net whose units were deleted."""
    small, iterations = folder / f"{network}-half", str(ITERATIONS[network])
    return {
        "ours": [sys.executable, HERE / "peers_ours.py", small, iterations],
        "PyTorch": [*tools.torch, "train", network, folder, small / "weights.pt", iterations],
        "the real Caffe": [*tools.pycaffe, "train", small, iterations],
    }


TASKS = {
    "LeNet-300-100, a tenth kept": partial(masked, "lenet_300_100"),
    "LeNet-5, a tenth kept": partial(masked, "lenet"),
    "LeNet-5, half of conv2 and ip1 deleted": partial(delete, "lenet"),
    "LeNet-5, what is left retrained": partial(retrain, "lenet"),
    "CaffeNet, half of fc6 and fc7 deleted": partial(delete, "caffenet"),
}


def set_up(folder: Path, tools: Tools, data: Path | None) -> None:
    """Make what the tasks begin with; what is there already stays."""
    if not (folder / "test.npz").exists():
        if data is None:
            build_mnist(folder / "mnist")
        _write_arrays(data or folder / "mnist", folder)
    for network in ("lenet_300_100", "lenet"):
        if not (folder / network / "weights.pt").exists():
            _make_lenet(network, folder, tools, data or folder / "mnist")
    if not (folder / "caffenet" / "dense.pt").exists():
        _make_caffenet(_emptied(folder / "caffenet"), tools)
    for network in CUT:
        if not (folder / f"{network}-half").exists():
            _make_half(network, folder, tools)


def _write_arrays(data: Path, folder: Path) -> None:
    for split, name in LMDB_NAMES.items():
        with lmdb.open(str(data / name), readonly=True, lock=False) as held, held.begin() as reads:
            records = [Datum.FromString(value) for _, value in reads.cursor()]
        pixels = np.frombuffer(b"".join(record.data for record in records), np.uint8)
        labels = np.array([record.label for record in records])
        np.savez(folder / f"{split}.npz", images=pixels.reshape(-1, 1, 28, 28), labels=labels)


def _make_lenet(network: str, folder: Path, tools: Tools, data: Path) -> None:
    case = folder / network
    shutil.rmtree(case, ignore_errors=True)
    write_case(network, data, case)
    if network in CUT:
        shutil.copy(share_root() / "prototxt" / network / "deploy.prototxt", case)
    iterations = str(DENSE_ITERATIONS[network])
    figures(tools, [sys.executable, HERE / "peers_ours.py", case, iterations])
    (case / "ours.caffemodel").rename(case / "dense.caffemodel")
    dense = read_caffemodel(case / "dense.caffemodel")
    held = [layer.name for layer in dense.layers if layer.blobs]
    pruned, masks = prune_to_ratios(dense, dict.fromkeys(held, SPARSITY))
    write_caffemodel(case / "weights.caffemodel", pruned)
    np.savez(case / "masks.npz", **{name: mask for (name, _), mask in masks.items()})
    _store(dense, case / "dense.pt", tools)
    _store(pruned, case / "weights.pt", tools)


def _make_caffenet(case: Path, tools: Tools) -> None:
    """Random weights, in sizes that differ by unit: or float32's rounding would choose."""
    shutil.copy(share_root() / "prototxt/caffenet/deploy.prototxt", case)
    run(tools.caffe, "-c", MAKE, case / "deploy.prototxt", case / "random.caffemodel")
    drawn, random = read_caffemodel(case / "random.caffemodel"), np.random.default_rng(0)
    sized = {}
    for layer in CUT["caffenet"]:
        blob = drawn.layer(layer).blobs[0]
        sizes = random.permutation(np.linspace(0.5, 1.5, len(blob), dtype=np.float32))
        sized[layer, 0] = blob * sizes[:, None]
    dense = drawn.with_blobs(sized)
    write_caffemodel(case / "dense.caffemodel", dense)
    (case / "random.caffemodel").unlink()
    _store(dense, case / "dense.pt", tools)


def _make_half(network: str, folder: Path, tools: Tools) -> None:
    """The net that all who delete units must come to, to be retrained."""
    case, new = folder / network, _emptied(folder / "new")
    dense = read_caffemodel(case / "dense.caffemodel")
    deploy = read_net(case / "deploy.prototxt")
    kept = choose_units(deploy, dense, dict.fromkeys(CUT[network], RATIO), criterion="l1")
    net, small = delete_units(deploy, dense, kept)
    write_prototxt(new / "deploy.prototxt", net)
    write_caffemodel(new / "weights.caffemodel", small)
    _store(small, new / "weights.pt", tools)
    if (case / "net.prototxt").exists():
        net, _ = delete_units(read_net(case / "net.prototxt"), dense, kept)
        write_prototxt(new / "net.prototxt", net)
        shutil.copy(case / "solver.prototxt", new)
    new.rename(folder / f"{network}-half")


def _emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def _store(model: Caffemodel, out: Path, tools: Tools) -> None:
    arrays = {
        f"{layer.name}.{kind}": blob.reshape(-1) if kind == "bias" else blob
        for layer in model.layers
        for kind, blob in zip(("weight", "bias"), layer.blobs, strict=False)
    }
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        np.savez(Path(scratch) / "arrays.npz", **arrays)
        figures(tools, [*tools.torch, "store", Path(scratch) / "arrays.npz", out])


def torch_pruning(folder: Path) -> Path | None:
    """Return the folder that holds Torch-Pruning, put there by pip; None where it cannot be had."""
    target = folder / "torch-pruning"
    if not target.exists():
        new = _emptied(folder / "new-torch-pruning")
        told = ["install", "-q", "--no-deps", "--target", str(new), "torch-pruning"]
        for pip in ([sys.executable, "-m", "pip"], ["pip"]):
            if shutil.which(pip[0]) and not subprocess.run([*pip, *told], check=False).returncode:
                new.rename(target)
                return target
        print("Torch-Pruning is left out: pip cannot install it here")
        return None
    return target


def race(name: str, folder: Path, tools: Tools, turns: int) -> dict[str, Figures]:
    """Return the medians of each side of a task."""
    commands = TASKS[name](folder, tools)
    runs: dict[str, list[Figures]] = {side: [] for side in commands}
    for turn in range(turns + 1):
        for side in list(commands)[:: 1 if turn % 2 else -1]:
            found = figures(tools, commands[side])
            if turn:  # the first fills the page cache
                runs[side].append(found)
    medians = {side: Figures.median(found) for side, found in runs.items()}
    if medians["ours"].weights is None:  # the command writes them, and tells nobody
        small = Path(commands["ours"][-1])
        require_same(small.parent, tools)
        blobs = [blob for layer in read_caffemodel(small / MODEL).layers for blob in layer.blobs]
        medians["ours"] = replace(medians["ours"], weights=sum(blob.size for blob in blobs))
    return medians


def require_same(small: Path, tools: Tools) -> None:
    """See that all who deleted units came to the same weights.

    Raises:
        SystemExit: They did not.
    """
    for path in (small / "ours" / MODEL, small / "by-hand.caffemodel"):
        if different_values(path, small / "weights.caffemodel"):
            sys.exit(f"{path}: holds other values than wanted")
    for path in sorted({small / "prune.pt", small / "torch-pruning.pt"} & set(small.iterdir())):
        command = [*tools.torch, "compare", path, small / "weights.pt"]
        lines = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
        if not json.loads(lines)["same"]:
            sys.exit(f"{path}: holds other values than wanted")


def main() -> None:
    """Race; print a table a task, and all ratios last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", metavar="TASK", help="; ".join(TASKS))
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--data", type=Path, help="MNIST's LMDBs (default: built once)")
    default = Path(tempfile.gettempdir()) / "pycaffe-prune-bench" / "peers"
    parser.add_argument("--folder", type=Path, default=default, help="0.8 GiB, which stay there")
    options = parser.parse_args()
    if unknown := [name for name in options.tasks if name not in TASKS]:
        parser.error(f"no task is called {unknown[0]!r}; there are: {'; '.join(TASKS)}")
    options.folder.mkdir(parents=True, exist_ok=True)
    tools = Tools(find_caffe_python().executable, torch_pruning(options.folder))
    set_up(options.folder, tools, options.data and options.data.resolve())
    found: dict[str, Mapping[str, Figures]] = {}
    for name in options.tasks or TASKS:
        found[name] = race(name, options.folder, tools, options.turns)
        print(f"\n{name}; medians of {options.turns} processes with one thread")
        print("\n".join(table(found[name])), flush=True)
    print(f"\nload of the machine at the end: {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
    verdicts = [judge(name, sides) for name, sides in found.items()]
    print("theirs / ours: seconds of CPU, memory")
    for lines, _ in verdicts:
        print("\n".join(lines))
    sys.exit(not all(is_ahead for _, is_ahead in verdicts))


if __name__ == "__main__":
    main()
