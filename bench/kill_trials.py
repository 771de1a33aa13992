"""Kill commands at random moments and compare what they leave, in the end, with an undisturbed run.

    python bench/kill_trials.py --kills 200 --out kills.json

Each trial begins a command in a new folder, kills it with SIGKILL at a random moment, gives the
same command again, up to three kills, and then lets it end. Its outcome has to be that of a run
that nobody disturbed, bit for bit; nothing half written may be left, and no process. Commands are
forked from a process that has imported all, so that the moments fall into their work.
"""

import argparse
import ctypes
import hashlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from data_prep.digits import build_digits
from pycaffe_prune.cli import cli
from pycaffe_prune.cli.endings import exit_code
from pycaffe_prune.engines.contents import NOTES_ENDING, lmdb_content
from pycaffe_prune.formats.caffe_pb2 import LayerParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer, write_caffemodel
from pycaffe_prune.formats.files import sha256_of

NET = """
name: "trial"
layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  transform_param { scale: 0.00390625 }
  data_param { source: "mnist_train_lmdb" batch_size: 32 backend: LMDB } }
layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TEST }
  transform_param { scale: 0.00390625 }
  data_param { source: "mnist_test_lmdb" batch_size: 100 backend: LMDB } }
layer { name: "ip1" type: "InnerProduct" bottom: "data" top: "ip1"
  inner_product_param { num_output: 60 weight_filler { type: "xavier" } } }
layer { name: "r1" type: "ReLU" bottom: "ip1" top: "ip1" }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip2" bottom: "label" top: "accuracy"
  include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }
"""
DEPLOY = """
name: "trial"
layer { name: "i" type: "Input" top: "data"
  input_param { shape { dim: 4 dim: 1 dim: 28 dim: 28 } } }
layer { name: "ip1" type: "InnerProduct" bottom: "data" top: "ip1"
  inner_product_param { num_output: 60 } }
layer { name: "r1" type: "ReLU" bottom: "ip1" top: "ip1" }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
  inner_product_param { num_output: 10 } }
layer { name: "prob" type: "Softmax" bottom: "ip2" top: "prob" }
"""
SOLVER = """
net: "net.prototxt" base_lr: 0.02 momentum: 0.9 weight_decay: 0.0005 lr_policy: "fixed"
max_iter: 2000 test_iter: 3 test_interval: 500 snapshot: 100 random_seed: 3
"""
MOST_KILLS = 3
PR_SET_CHILD_SUBREAPER = 36
UNTOLD = frozenset({"seconds", "finished", "machine", "versions", "wall_seconds", "created"})
"""Fields that say when, where and how fast."""


@dataclass(frozen=True)
class Inputs:
    """What all commands work on."""

    folder: Path

    def __getattr__(self, name: str) -> str:
        return str(self.folder / name.replace("__", "."))

    @classmethod
    def make(cls, folder: Path) -> "Inputs":
        """Write data, nets, a solver and weights."""
        build_digits(folder / "digits")
        for name, text in (("net", NET), ("deploy", DEPLOY), ("solver", SOLVER)):
            (folder / f"{name}.prototxt").write_text(text)
        draw = np.random.default_rng(1).normal
        blobs = {
            "ip1": (draw(0, 0.05, (60, 784)), np.zeros(60)),
            "ip2": (draw(0, 0.2, (10, 60)), np.zeros(10)),
        }
        layers = tuple(
            Layer(
                LayerParameter(name=name, type="InnerProduct"),
                tuple(blob.astype(np.float32) for blob in held),
            )
            for name, held in blobs.items()
        )
        write_caffemodel(folder / "weights.caffemodel", Caffemodel(layers))
        return cls(folder)


Outcome = Mapping[str, str]


def outcome(folder: Path) -> dict[str, str]:
    """Return a checksum of all that a command left, by path; of JSON without when and where."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.name == "data.mdb":
            found[name] = lmdb_content(path.parent).sha256
        elif path.is_file() and _counts(path):
            found[name] = _checksum(path)
    return found


def _counts(path: Path) -> bool:
    ways = (".lock", "lock.mdb", "engine.log", "log.jsonl", "job.json", "stderr")
    if path.name == "stdout":  # the answer of a command that writes no file; else what it tells
        return path.read_bytes().startswith(b"{")
    return path.name not in ways and not path.name.endswith(NOTES_ENDING)


def _checksum(path: Path) -> str:
    if path.suffix != ".json" and path.name != "stdout":
        return sha256_of(path)
    return checksum_of_json(path, UNTOLD)


def checksum_of_json(path: Path, untold: frozenset[str]) -> str:
    """Return a checksum of what a file says but for some fields, wherever they stand."""
    told = _without(json.loads(path.read_bytes()), untold)
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _without(value: object, untold: frozenset[str]) -> object:
    if isinstance(value, dict):
        return {name: _without(part, untold) for name, part in value.items() if name not in untold}
    if isinstance(value, list):
        return [_without(part, untold) for part in value]
    # After a resume the test images fall into other batches, and sums round otherwise.
    return float(f"{value:.5g}") if isinstance(value, float) else value


@dataclass(frozen=True)
class Trial:
    """A command in a folder of its own."""

    folder: Path
    arguments: list[str]

    def start(self) -> psutil.Process:
        """Begin the command, or go on with it."""
        self.folder.mkdir(exist_ok=True)
        number = os.fork()
        if number:
            return psutil.Process(number)
        os.setsid()
        os.chdir(self.folder)
        temporary = self.folder.with_name("temporary")
        temporary.mkdir(exist_ok=True)
        tempfile.tempdir = os.environ["TMPDIR"] = str(temporary)
        for descriptor, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        code = 1
        try:
            code = exit_code(lambda: cli.main(self.arguments, standalone_mode=False))
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def finish(self) -> float:
        """Let the command end; return how long that took."""
        began = time.monotonic()
        process = self.start()
        if code := process.wait():
            raise SystemExit(f"{self.folder}: ended with {code}; see stderr there")
        return time.monotonic() - began

    def killed_after(self, seconds: float) -> bool:
        """Begin the command and kill it; False: it had ended by itself."""
        process = self.start()
        try:
            process.wait(seconds)
        except psutil.TimeoutExpired:
            workers = process.children(recursive=True)
            process.kill()
            process.wait()
            _, left = psutil.wait_procs(workers, timeout=10)
            if left:
                raise SystemExit(f"{self.folder}: {len(left)} processes outlive it") from None
            return True
        return False


@dataclass
class Count:
    """What came of a command's trials."""

    command: str
    seconds: float
    trials: int = 0
    kills: int = 0
    different: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)


def try_command(
    name: str,
    arguments: Callable[[Path], list[str]],
    kills: int,
    place: Path,
    draw: np.random.Generator,
    seconds: float,
) -> Count:
    """Kill a command so many times, in as many trials as that takes; fewer when time is up."""
    end = time.monotonic() + seconds
    folder = place / name / "trial" / "run"  # one for all: some files have absolute paths
    trial = Trial(folder, arguments(folder))
    folder.parent.mkdir(parents=True)
    count = Count(name, trial.finish())
    wanted = outcome(folder)
    if not wanted:
        raise SystemExit(f"{name}: left nothing to compare")
    shutil.rmtree(folder.parent)
    while count.kills < kills and time.monotonic() < end:
        folder.parent.mkdir()
        for _ in range(draw.integers(1, min(MOST_KILLS, kills - count.kills), endpoint=True)):
            count.kills += trial.killed_after(draw.uniform(0, count.seconds))
        trial.finish()
        count.trials += 1
        found = outcome(folder)
        count.leftovers += [path for path in found if ".partial" in path]
        count.leftovers += [path.name for path in (folder.parent / "temporary").iterdir()]
        count.different += sorted(
            path for path in wanted.keys() | found.keys() if wanted.get(path) != found.get(path)
        )
        shutil.rmtree(folder.parent)
    return count


def commands(inputs: Inputs, engine: str) -> dict[str, Callable[[Path], list[str]]]:
    """Give, by name, the arguments of each command for a folder."""
    results = Path(__file__).resolve().parent.parent / "results"
    model = [inputs.deploy__prototxt, inputs.weights__caffemodel]
    work = ["--engine", engine, "--data", inputs.digits]
    weights = ["--weights", inputs.weights__caffemodel]

    def in_folder(*arguments: str) -> Callable[[Path], list[str]]:
        return lambda folder: [*arguments, "--out", str(folder)]

    def to_file(*arguments: str, name: str) -> Callable[[Path], list[str]]:
        return lambda folder: [*arguments, "--out", str(folder / name)]

    return {
        "train": in_folder("train", "--solver", inputs.solver__prototxt, *work),
        "features": in_folder(
            *("features", "--net", inputs.deploy__prototxt, *weights, "--blob", "ip1", *work),
            *("--batch", "100", "--jobs", "1"),
        ),
        "sensitivity": in_folder("sensitivity", "--net", inputs.net__prototxt, *weights, *work),
        "verify": lambda _: [
            *("verify", ":".join(model), ":".join(model), "--judge", engine, "--json")
        ],
        "convert": to_file(
            "convert", inputs.weights__caffemodel, "--net", model[0], name="model.onnx"
        ),
        "report": in_folder("report", str(results / "lenet-300-100" / "result.json")),
    }


def main() -> None:
    """Try all commands, print a table, write the counts."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200, help="in all")
    parser.add_argument("--engine", default="torch", choices=["caffe", "torch"])
    parser.add_argument("--only", help="names of commands, parted by commas")
    parser.add_argument("--minutes", type=float, default=60, help="at most, for each command")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the counts as JSON")
    options = parser.parse_args()
    # Orphans become this process's children: it sees when they end, whatever init does here.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    with tempfile.TemporaryDirectory(prefix="kill-trials-") as name:
        place = Path(name)
        found = list(_counts_of_all(options, Inputs.make(place), place))
    if options.out:
        options.out.write_text(json.dumps([vars(count) for count in found], indent=1) + "\n")
    if any(count.different or count.leftovers for count in found):
        sys.exit(1)


def _counts_of_all(options: argparse.Namespace, inputs: Inputs, place: Path) -> Iterator[Count]:
    known = commands(inputs, options.engine)
    names = options.only.split(",") if options.only else list(known)
    print("| command | seconds | trials | kills | different | left behind |")
    print("|---|---|---|---|---|---|")
    for position, name in enumerate(names):
        share = options.kills // len(names) + (position < options.kills % len(names))
        draw = np.random.default_rng([options.seed, position])
        count = try_command(name, known[name], share, place, draw, 60 * options.minutes)
        print(
            f"| {name} | {count.seconds:.1f} | {count.trials} | {count.kills} "
            f"| {len(count.different)} | {len(count.leftovers)} |",
            flush=True,
        )
        yield count


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main()
