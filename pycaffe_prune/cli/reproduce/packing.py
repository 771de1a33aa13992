"""How many stages of an experiment are trained in one process."""

import os
from dataclasses import replace
from pathlib import Path

from pycaffe_prune.engines.choice import EngineWish, decide
from pycaffe_prune.engines.solver_nets import net_of_solver
from pycaffe_prune.engines.torch.chains import is_chain, steps_plainly
from pycaffe_prune.formats.caffe_pb2 import TRAIN
from pycaffe_prune.formats.prototxt import read_net, read_solver
from pycaffe_prune.net.graph import NetState, layers_in_state

__all__ = ["with_packs"]

_CPU_PACK = 6
"""Stages in a pack on a CPU: with more, the caches hold less of each."""


def with_packs(
    wish: EngineWish, pack: int | None, jobs: int | None, solver: Path, scheduler: str | None
) -> EngineWish:
    """Return a wish that says how stages are packed.

    On a CPU, in the engine torch, those of a chain of InnerProducts are, unless ``pack`` is 1.

    Args:
        wish: The engine that is wished.
        pack: Stages in a process; None: as many as are of use.
        jobs: Packs at a time; None: as many as there are cores.
        solver: The experiment's.
        scheduler: Of a Dask cluster, whose workers pack what comes to them; None: there is none.

    Raises:
        EngineError: The engine cannot be had.
        FormatError: The solver or its net cannot be read.
    """
    told = replace(wish, pack=pack or 1)
    if pack == 1 or scheduler or wish.device != "cpu" or wish.name == "caffe":
        return told
    if not _steps_together(solver) or decide(told).name == "caffe":
        return told
    at_once = jobs or len(os.sched_getaffinity(0))
    return replace(told, pack=pack or _CPU_PACK, at_once=at_once)


def _steps_together(solver: Path) -> bool:
    net = read_net(net_of_solver(solver))
    chain = is_chain(net, layers_in_state(net, NetState(TRAIN)))
    return chain and steps_plainly(read_solver(solver))
