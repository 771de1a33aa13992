"""A training iteration of the torch engine on one device, for `engines.py --device`.

Several runs at a time as well: a small network alone leaves a GPU idle. Nothing is compared with
Caffe here; the measure is what the device reaches in a large matrix product.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from engine_cases import BLOCKS, operations, sparse_masks, write_case

from pycaffe_prune.engines.torch.pack import make_pack
from pycaffe_prune.engines.torch.solver import Solver
from pycaffe_prune.engines.torch.worker import prepare_process
from pycaffe_prune.formats.prototxt import read_net, read_solver

__all__ = ["Settings", "measure"]

_WARM = 8  # iterations before the clock starts: the engine records its fourth as a CUDA graph
_PACKED = "lenet_300_100"


@dataclass(frozen=True)
class Settings:
    """What is measured."""

    device: torch.device
    networks: Sequence[str]
    packs: Sequence[int]
    """Numbers of runs that step together."""
    turns: int
    """Blocks of iterations."""
    blocks: int
    """How many of `BLOCKS` are one block: a GPU is many times as fast as a CPU."""
    side: int
    """Of the matrices whose product is the measure."""


def measure(settings: Settings, data: Path, folder: Path) -> None:
    """Print what an iteration takes, of each network plain and masked, and of several runs.

    Args:
        settings: What to measure.
        data: MNIST's LMDBs.
        folder: Where to write nets and solvers; made.
    """
    device = settings.device
    prepare_process()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{name}; PyTorch {torch.__version__}")
    rate = _products(device, settings.side)
    print(f"SGEMM of {settings.side} x {settings.side}: {rate / 1e12:.3g} TFLOP/s in float32")
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True
        print(f"with TF32, for information: {_products(device, settings.side) / 1e12:.3g} TFLOP/s")
        torch.backends.cuda.matmul.allow_tf32 = False
    for network in settings.networks:
        place = folder / network
        write_case(network, data, place)
        _measure_network(network, place, settings, rate)
    if _PACKED in settings.networks:
        for runs in settings.packs:
            _measure_pack(runs, folder / _PACKED, settings, rate)


def _seconds(device: torch.device, work: Callable[[], object]) -> float:
    """How long some work takes to its end on the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def _products(device: torch.device, side: int) -> float:
    """The best rate at a large matrix product, operations a second."""
    first, second, out = (torch.rand(side, side, device=device) for _ in range(3))
    times = [_seconds(device, lambda: torch.mm(first, second, out=out)) for _ in range(12)]
    return 2 * side**3 / min(times)


def _solver(folder: Path, device: torch.device, seed: int) -> Solver:
    """A solver of a case; nets find their data wherever it is made."""
    param = read_solver(folder / "solver.prototxt")
    param.random_seed = seed
    return Solver(param, read_net(folder / "net.prototxt"), device)


def _measure_network(network: str, folder: Path, settings: Settings, rate: float) -> None:
    solvers = {name: _solver(folder, settings.device, seed=1) for name in ("plain", "masked")}
    solvers["masked"].mask(sparse_masks(solvers["masked"].net))
    block, work = BLOCKS[network] * settings.blocks, operations(folder)
    for solver in solvers.values():
        solver.step(_WARM)
    times: dict[str, list[float]] = {name: [] for name in solvers}
    for turn in range(settings.turns):
        for name in list(solvers)[:: 1 if turn % 2 else -1]:
            taken = _seconds(settings.device, lambda name=name: solvers[name].step(block))
            times[name].append(taken / block)
    print(f"{network}; medians of {settings.turns} blocks of {block}")
    for name, values in times.items():
        _print(name, values, work, rate)
    ratios = np.array(times["masked"]) / np.array(times["plain"])
    print(f"masked / plain {np.median(ratios):.3f}")
    for solver in solvers.values():
        solver.close()


def _measure_pack(runs: int, folder: Path, settings: Settings, rate: float) -> None:
    solvers = [_solver(folder, settings.device, seed) for seed in range(runs)]
    pack = make_pack(solvers)
    block = BLOCKS[_PACKED] * settings.blocks
    pack.step(_WARM)
    values = [
        _seconds(settings.device, lambda: pack.step(block)) / block for _ in range(settings.turns)
    ]
    _print(f"{runs} runs", values, runs * operations(folder), rate)
    together = runs / float(np.median(values))
    print(f"{_PACKED}, {runs} at once: {together:,.0f} iterations a second of all runs together")
    pack.close()
    for solver in solvers:
        solver.close()


def _print(name: str, values: Sequence[float], work: float, rate: float) -> None:
    median = float(np.median(values))
    print(
        f"{name:8} {1000 * median:8.3f} ms an iteration ({1000 * min(values):.3f} to "
        f"{1000 * max(values):.3f}), {work / median / 1e9:,.0f} GFLOP/s, "
        f"{100 * work / median / rate:.1f} % of SGEMM's {rate / 1e9:,.0f}"
    )
