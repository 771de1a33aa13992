"""pycaffe on the engine torch and the real pycaffe, side by side on this CPU.

Each module has a process of its own, in which one script runs (`pycaffe_racer.py`); they take
turns, so that whatever else the machine does meets both. Caffe's time by ours is printed last.

Run with: .venv/bin/python bench/pycaffe.py [--case NAME] [--threads N]
"""

import argparse
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from engine_cases import write_case

from data_prep.mnist import build_mnist
from pycaffe_prune.cli.python import STARTUP
from pycaffe_prune.engines.caffe.python import find_caffe_python
from pycaffe_prune.share import share_root

RACER = Path(__file__).with_name("pycaffe_racer.py")

CASES = {
    "squeezenet-1": ("forward", "squeezenet_v1.0", 1, 5),
    "squeezenet-64": ("forward", "squeezenet_v1.0", 64, 1),
    "lenet-1": ("forward", "lenet", 1, 400),
    "lenet-64": ("forward", "lenet", 64, 30),
    "step": ("step", "lenet", 64, 100),
    "write": ("write", "lenet", 1, 2000),
    "write-biases": ("biases", "lenet", 1, 50_000),
    "lstm-forward": ("forward", "LSTM", 20, 2),
    "lstm": ("passes", "LSTM", 20, 1),
    "rnn": ("passes", "RNN", 20, 3),
}
"""What is done, with which net and batch, and how often in a turn."""

RECURRENT = """force_backward: true
layer {{ name: "data" type: "Input" top: "data" top: "cont"
  input_param {{ shape {{ dim: [20, 16, 512] }} shape {{ dim: [20, 16] }} }} }}
layer {{ name: "top" type: "{kind}" bottom: "data" bottom: "cont" top: "top"
  recurrent_param {{ num_output: 512 }} }}
"""
"""As wide as NeuralTalk's, of 20 words in 16 sentences."""


class Racer:
    """A process that does so much when told to."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "GLOG_minloglevel": "2", **environment},
        )

    def run(self, times: int) -> float:
        """Return the seconds that one of so many took.

        Raises:
            SystemExit: The process has ended; what it said is on standard error.
        """
        self._process.stdin.write(f"{times}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"a racer ended with the return code {self._process.wait()}")
        return float(line) / times

    def end(self) -> None:
        """End the process."""
        self._process.communicate()


def race(name: str, folder: Path, turns: int, threads: int) -> float:
    """Print what one case took in both modules, and return the median ratio."""
    kind, network, batch, times = CASES[name]
    net = share_root() / "prototxt" / network / "deploy.prototxt"
    if network in ("LSTM", "RNN"):
        net = folder / f"{network}.prototxt"
        net.write_text(RECURRENT.format(kind=network), encoding="utf-8")
    told = [str(RACER), kind, str(folder), str(net), str(batch)]
    few = {"OPENBLAS_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    with ExitStack() as started:
        racers = {
            "caffe": Racer([str(find_caffe_python().executable), *told], few),
            "ours": Racer([sys.executable, *told], {**few, "PYTHONPATH": str(STARTUP)}),
        }
        for racer in racers.values():
            started.callback(racer.end)
            racer.run(max(1, times // 4))  # warm
        seconds: dict[str, list[float]] = {which: [] for which in racers}
        for turn in range(turns):
            for which in list(racers)[:: 1 if turn % 2 else -1]:
                seconds[which].append(racers[which].run(times))
    for which, values in seconds.items():
        print(
            f"{name:14} {which:6} {1000 * np.median(values):9.3f} ms "
            f"({1000 * min(values):.3f} to {1000 * max(values):.3f})"
        )
    return float(np.median(np.divide(seconds["caffe"], seconds["ours"])))


def main() -> None:
    """Race every case; exit with 1 where the real module is faster."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="MNIST's LMDBs (default: built for this run)")
    parser.add_argument("--turns", type=int, default=9, help="of each module")
    parser.add_argument("--threads", type=int, default=1, help="of each module")
    parser.add_argument("--case", choices=list(CASES), help="one case only")
    options = parser.parse_args()
    cases = [options.case] if options.case else list(CASES)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "lenet"
        if "step" in cases:
            data = options.data or Path(scratch) / "mnist"
            if options.data is None:
                build_mnist(data)
            write_case("lenet", data, folder)
        else:
            folder.mkdir()
        ratios = {name: race(name, folder, options.turns, options.threads) for name in cases}
    print("\nCaffe's time / ours")
    for name, ratio in ratios.items():
        print(f"{name:14} {ratio:6.2f}")
    sys.exit(min(ratios.values()) < 1)


if __name__ == "__main__":
    main()
