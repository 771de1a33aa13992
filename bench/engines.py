"""A training iteration in the real Caffe and in the torch engine, side by side on this CPU.

Each engine has a process of its own; they take turns, a block of iterations each, so that whatever
else the machine does meets both. Run with: .venv/bin/python bench/engines.py [--case NAME]

With --device cuda there is no race: see engines_cuda.py.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from engine_cases import BLOCKS, operations, write_case

from data_prep.mnist import build_mnist
from pycaffe_prune.engines.caffe.python import find_caffe_python

CAFFE = """
import os, sys, time
import caffe
caffe.set_mode_cpu()
os.chdir(sys.argv[1])
solver = caffe.get_solver("solver.prototxt")
for line in sys.stdin:
    start = time.perf_counter()
    solver.step(int(line))
    os.write(3, b"%.9f\\n" % (time.perf_counter() - start))
"""

RACER = Path(__file__).with_name("engines_racer.py")

SGEMM = """
import sys, time, torch
torch.set_num_threads(int(sys.argv[1]))
a, b, c = (torch.rand(2048, 2048) for _ in range(3))
best = 1e9
for _ in range(12):
    start = time.perf_counter()
    torch.mm(a, b, out=c)
    best = min(best, time.perf_counter() - start)
print(2 * 2048**3 / best)
"""


@dataclass(frozen=True)
class Case:
    """What is raced, and what is asked of it."""

    network: str
    threads: int
    target: float
    """Caffe's time by ours, at least."""
    masked_target: float | None
    """Our masked step by our plain one, at most."""

    @property
    def name(self) -> str:
        """The case in words."""
        return f"{self.network} with {self.threads} thread{'s' if self.threads > 1 else ''}"

    @property
    def block(self) -> int:
        """Iterations at a time."""
        return BLOCKS[self.network]


CASES = (
    Case("lenet_300_100", 1, 1.0, 1.05),
    Case("lenet", 1, 1.2, 1.03),
    Case("lenet", 2, 1.8, None),
    Case("caffenet", 2, 1.5, None),
)


class Racer:
    """A process that runs iterations when told to."""

    def __init__(self, name: str, command: Sequence[str], threads: int) -> None:
        self._name = name
        read, write = os.pipe()
        self._times = os.fdopen(read)
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3>&{write}', "racer", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=[write],
            text=True,
            env={**os.environ, "OPENBLAS_NUM_THREADS": str(threads), "GLOG_minloglevel": "2"},
        )
        os.close(write)

    def run(self, iterations: int) -> float:
        """Return the seconds that one iteration took.

        Raises:
            SystemExit: The process has ended; what it said is on standard error.
        """
        with suppress(BrokenPipeError):
            self._process.stdin.write(f"{iterations}\n")
            self._process.stdin.flush()
        line = self._times.readline()
        if not line:
            sys.exit(f"{self._name} ended with the return code {self._process.wait()}")
        return float(line) / iterations

    def end(self) -> None:
        """End the process."""
        self._process.communicate()
        self._times.close()


def sgemm(threads: int) -> float:
    """The machine's best rate at a large matrix product, operations a second."""
    command = [sys.executable, "-c", SGEMM, str(threads)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def race(case: Case, data: Path, folder: Path, turns: int) -> dict[str, np.ndarray]:
    """Return the seconds of an iteration, block by block, by engine."""
    write_case(case.network, data, folder)
    caffe = [str(find_caffe_python().executable), "-c", CAFFE, str(folder)]
    torch = [sys.executable, str(RACER), str(folder), str(case.threads)]
    commands = {"caffe": caffe, "torch": [*torch, "plain"]}
    if case.masked_target is not None:
        commands["masked"] = [*torch, "masked"]
    times: dict[str, list[float]] = {name: [] for name in commands}
    with ExitStack() as started:
        racers = {}
        for name, command in commands.items():
            racers[name] = Racer(name, command, case.threads)
            started.callback(racers[name].end)
        for racer in racers.values():
            racer.run(max(3, case.block // 2))  # warm
        for turn in range(turns):
            for name in list(racers)[:: 1 if turn % 2 else -1]:
                times[name].append(racers[name].run(case.block))
    return {name: np.array(values) for name, values in times.items()}


def report(case: Case, times: dict[str, np.ndarray], work: float, rate: float) -> bool:
    """Print a case; return whether its targets are met."""
    print(f"{case.name}; medians of {len(times['caffe'])} blocks of {case.block}")
    for name, values in times.items():
        median = float(np.median(values))
        print(
            f"{name:7} {1000 * median:8.3f} ms an iteration ({1000 * values.min():.3f} to "
            f"{1000 * values.max():.3f}), {work / median / 1e9:.0f} GFLOP/s, "
            f"{100 * work / median / rate:.0f} % of SGEMM's {rate / 1e9:.0f}"
        )
    ratio = float(np.median(times["caffe"] / times["torch"]))
    met = ratio >= case.target
    print(f"caffe / torch {ratio:.2f} (target: at least {case.target:g})")
    if case.masked_target is not None:
        cost = float(np.median(times["masked"] / times["torch"]))
        print(f"masked / plain {cost:.3f} (target: at most {case.masked_target:g})")
        met = met and cost <= case.masked_target
    return met


def main() -> None:
    """Race every case and exit with 1 when a target is missed; or measure torch on a device."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="MNIST's LMDBs (default: built for this run)")
    parser.add_argument("--turns", type=int, default=15, help="blocks of each engine")
    parser.add_argument("--case", choices=list(BLOCKS), help="one network only")
    parser.add_argument("--device", help="measure torch alone, on cuda[:N] or cpu; no race")
    parser.add_argument(
        "--packs",
        type=int,
        nargs="*",
        default=[1, 8, 32, 128],
        help="with --device: how many runs of LeNet-300-100 at once",
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        data = options.data or Path(name) / "mnist"
        if options.data is None:
            build_mnist(data)
        if options.device:
            _measure(options, data, Path(name))
        elif not _race_all(options, data, Path(name)):
            sys.exit(1)


def _race_all(options: argparse.Namespace, data: Path, folder: Path) -> bool:
    met = True
    for number, case in enumerate(CASES):
        if options.case in (None, case.network):
            times = race(case, data, folder / f"case{number}", options.turns)
            work = operations(folder / f"case{number}")
            met &= report(case, times, work, sgemm(case.threads))
    return met


def _measure(options: argparse.Namespace, data: Path, folder: Path) -> None:
    # Here, not above: whoever races needs no PyTorch in this process, whose threads would disturb.
    import torch
    from engines_cuda import Settings, measure

    device = torch.device(options.device)
    is_gpu = device.type == "cuda"
    settings = Settings(
        device=device,
        networks=[options.case] if options.case else list(BLOCKS),
        packs=options.packs,
        turns=options.turns,
        blocks=10 if is_gpu else 1,
        side=8192 if is_gpu else 2048,
    )
    measure(settings, data, folder)


if __name__ == "__main__":
    main()
