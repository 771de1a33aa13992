"""Which engine does the work: the real Caffe where it can be had, else torch."""

from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Literal

from pycaffe_prune.engines.base import Engine
from pycaffe_prune.engines.caffe.engine import CaffeEngine
from pycaffe_prune.engines.caffe.python import find_caffe_python, probe
from pycaffe_prune.engines.gpus import NO_DRIVER, driver_cuda_version
from pycaffe_prune.engines.torch.probe import TORCH_REMEDY, torch_is_installed
from pycaffe_prune.errors import EngineError

__all__ = ["Decision", "EngineChoice", "EngineName", "EngineWish", "choose_engine", "decide"]

EngineName = Literal["auto", "caffe", "torch"]


@dataclass(frozen=True)
class EngineWish:
    """What is asked of an engine."""

    name: EngineName = "auto"
    caffe_python: Path | None = None
    """The interpreter that has pycaffe; None to look for one."""
    device: str = "cpu"
    """``cpu`` or ``cuda[:N]``."""
    _: KW_ONLY
    tf32: bool = False
    """Whether a GPU may round factors to TF32; only torch can be told."""
    pack: int = 1
    """Jobs that share one process and its device; only torch can do more than one."""
    teacher: bool = False
    """Whether a teacher has part in the loss; only torch can do that."""
    torch_only: str = ""
    """What else is to be done that only torch can do; empty for nothing."""
    trust: bool = False
    """Whether the nets that it gets are the user's own, and may run code (`net.trust`)."""
    at_once: int | None = None
    """Processes that work at a time, where jobs are packed by kind; see `TorchEngine`."""


@dataclass(frozen=True)
class Decision:
    """An engine that can be had, and why it is this one."""

    name: Literal["caffe", "torch"]
    reason: str
    caffe_python: Path | None = None
    """The interpreter of the real Caffe, when that is chosen."""


@dataclass(frozen=True)
class EngineChoice:
    """An engine, ready to work, and why it is this one."""

    engine: Engine
    reason: str


def choose_engine(wish: EngineWish) -> EngineChoice:
    """Return the engine that does what is wished; nothing is started.

    Raises:
        EngineError: As `decide`.
    """
    decision = decide(wish)
    if decision.caffe_python is not None:
        caffe = CaffeEngine(decision.caffe_python, trust=wish.trust)
        return EngineChoice(caffe, decision.reason)
    # Here, not above: whoever works with the real Caffe need not have PyTorch.
    from pycaffe_prune.engines.torch.engine import TorchEngine

    engine = TorchEngine(
        tf32=wish.tf32,
        device=wish.device,
        trust=wish.trust,
        pack=wish.pack,
        at_once=wish.at_once,
    )
    return EngineChoice(engine, decision.reason)


def decide(wish: EngineWish) -> Decision:
    """Say which engine is taken.

    ``auto`` takes the real Caffe if it is here, can be imported and was built for the device (and,
    if it was built with CUDA, a driver is here as well); else torch, and torch as well when
    something is asked for that only torch has. An interpreter that is named is taken at its word:
    what is wrong with it is said when it is used.

    Raises:
        EngineError: It cannot be had; the message says how to get it.
    """
    match wish.name:
        case "caffe":
            return _caffe(wish, try_out=wish.device != "cpu")
        case "torch":
            return _torch("it was asked for")
        case "auto":
            return _auto(wish)


def _auto(wish: EngineWish) -> Decision:
    if wish.tf32 or wish.pack > 1:
        return _torch("only torch has --tf32 and --pack")
    if wish.teacher:
        return _torch("only torch has --teacher-net")
    if wish.torch_only:
        return _torch(f"only torch has {wish.torch_only}")
    try:
        return _caffe(wish, try_out=wish.caffe_python is None or wish.device != "cpu")
    except EngineError as error:
        if wish.caffe_python is not None and wish.device == "cpu":
            raise
        if not torch_is_installed():
            raise EngineError(
                f"there is no engine to work with: {error}. Nor is PyTorch here: {TORCH_REMEDY}"
            ) from error
        return _torch(str(error))


def _caffe(wish: EngineWish, *, try_out: bool) -> Decision:
    """The real Caffe; ``try_out`` imports it (half a second) to see that it works as wished."""
    python = find_caffe_python(wish.caffe_python)
    if try_out:
        found = probe(python.executable)
        if wish.device != "cpu" and not found.gpu_build:
            raise EngineError(
                f"{python.executable}: this Caffe was built for the CPU only, and the device is "
                f"{wish.device}; take --engine torch, or name a Caffe built with CUDA with "
                "--caffe-python"
            )
        if found.gpu_build and driver_cuda_version() is None:
            raise EngineError(f"{python.executable}: {NO_DRIVER}")
    return Decision("caffe", f"the real Caffe is here ({python.origin})", python.executable)


def _torch(reason: str) -> Decision:
    if not torch_is_installed():
        raise EngineError(f"the engine torch needs PyTorch, which is not installed; {TORCH_REMEDY}")
    return Decision("torch", reason)
