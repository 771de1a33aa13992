"""What holds for the whole process, as functions of the module (`python/caffe/_caffe.cpp`)."""

import time

import torch

from pycaffe_prune.engines.torch.data.sources import DATA_TYPES
from pycaffe_prune.engines.torch.layers.registry import LAYERS
from pycaffe_prune.pycaffe.assembly import STEPS
from pycaffe_prune.pycaffe.errors import CaffeError
from pycaffe_prune.pycaffe.modes import MODES

__all__ = [
    "NCCL",
    "VERSION",
    "Timer",
    "has_nccl",
    "layer_type_list",
    "set_device",
    "set_mode_cpu",
    "set_mode_gpu",
    "set_multiprocess",
    "set_random_seed",
    "set_solver_count",
    "set_solver_rank",
    "solver_count",
    "solver_rank",
]

VERSION = "1.0.0"
"""Of the Caffe whose module this is."""
_ALONE = (
    "several solvers that train one net side by side exchange gradients by NCCL, which this caffe "
    "has not; train with one solver"
)


def set_mode_cpu() -> None:
    """Let nets that are made from now on compute on the CPU."""
    MODES.gpu = False


def set_mode_gpu() -> None:
    """Let nets that are made from now on compute on the GPU.

    Raises:
        CaffeError: PyTorch sees none.
    """
    _require_gpu(MODES.device_id)
    torch.backends.cudnn.allow_tf32 = False  # or convolutions would not give Caffe's numbers
    MODES.gpu = True


def set_device(device_id: int) -> None:
    """Choose among GPUs.

    Raises:
        CaffeError: PyTorch sees none of this number.
    """
    _require_gpu(device_id)
    MODES.device_id = device_id


def _require_gpu(device_id: int) -> None:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not 0 <= device_id < count:
        raise CaffeError(
            f"there is no GPU {device_id}: PyTorch {torch.__version__} sees {count}; "
            "`caffe-prune doctor` tells why, or use caffe.set_mode_cpu()"
        )


def set_random_seed(seed: int) -> None:
    """Begin the random numbers that belong to a seed: same seed, same fillers and draws."""
    MODES.set_random_seed(seed)


def set_multiprocess(multiprocess: bool) -> None:
    """Say whether solvers run in processes of their own; here each is alone in any case."""
    MODES.multiprocess = multiprocess


def solver_count() -> int:
    """Return how many solvers train a net side by side: one."""
    return 1


def set_solver_count(count: int) -> None:
    """Say how many solvers train a net side by side.

    Raises:
        CaffeError: More than one.
    """
    if count != 1:
        raise CaffeError(_ALONE)


def solver_rank() -> int:
    """Return the number of this process's solver among those that train a net: the first."""
    return 0


def set_solver_rank(rank: int) -> None:
    """Say which of the solvers that train a net is this process's.

    Raises:
        CaffeError: Not the first.
    """
    if rank != 0:
        raise CaffeError(_ALONE)


def has_nccl() -> bool:
    """Return whether solvers can exchange gradients: no."""
    return False


class NCCL:
    """What would let several solvers exchange gradients.

    Raises:
        CaffeError: Always.
    """

    def __init__(self, solver: object, uid: str) -> None:  # noqa: ARG002 (pycaffe's)
        raise CaffeError(_ALONE)


def layer_type_list() -> list[str]:
    """Return the types of layers that nets can have here, all of them stock Caffe's."""
    return sorted(LAYERS.keys() | DATA_TYPES | STEPS.keys())


class Timer:
    """A clock (`src/caffe/util/benchmark.cpp`); on a GPU it waits for what is being computed."""

    def __init__(self) -> None:
        self._start: float | None = None
        self._elapsed = 0.0

    def start(self) -> None:
        """Start it, from zero; a clock that runs goes on."""
        if self._start is None:
            self._start = _now()

    def stop(self) -> None:
        """Stop it."""
        if self._start is not None:
            self._elapsed = _now() - self._start
            self._start = None

    @property
    def ms(self) -> float:
        """The milliseconds from start to stop, 0 before; a clock that runs is stopped."""
        self.stop()
        return self._elapsed * 1000


def _now() -> float:
    if MODES.gpu:
        torch.cuda.synchronize(MODES.device)
    return time.perf_counter()
