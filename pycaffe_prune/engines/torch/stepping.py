"""Caffe's iteration: passes whose gradients add up, then one update."""

import threading
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from pycaffe_prune.engines.resolved_solver import solver_settings
from pycaffe_prune.engines.torch.net import Net
from pycaffe_prune.engines.torch.rates import RatePolicy
from pycaffe_prune.engines.torch.updates import bias_correction
from pycaffe_prune.formats.caffe_pb2 import SolverParameter

__all__ = ["Stepping"]

_WARM_UP = 3  # calls before recording: libraries choose algorithms and allocate on their first ones
_recording = threading.Lock()  # what begins a recording would break another one on the device


class Stepping:
    """Leads a net through iterations (`Solver::Step` of `src/caffe/solver.cpp`).

    On a GPU what is done between data and data is recorded as CUDA graphs, one launch instead of
    one for each kernel, unless a layer draws random numbers.

    Args:
        param: The solver: ``iter_size`` and what its learning rate depends on.
        net: Brings the batches.
        compute: Adds the gradients of the net's batch to those that are there.
        apply: Updates the blobs at the rate that it is given (0-dim), and zeroes the gradients.
    """

    def __init__(
        self,
        param: SolverParameter,
        net: Net,
        compute: Callable[[], None],
        apply: Callable[[Tensor], None],
    ) -> None:
        self.iteration = 0
        self.begin: Callable[[int], None] | None = None
        """Called with each iteration, counted from 0, before its passes; None: nothing to do."""
        self.policy = RatePolicy(solver_settings(param))
        self._param, self._net = param, net
        self._rate = torch.zeros((), device=net.device)
        self._bodies: tuple[Callable[[], None], ...] = (compute, lambda: apply(self._rate))
        self._records = net.device.type == "cuda" and not net.draws
        self._static: list[Tensor] = []
        self.renew()

    def renew(self) -> None:
        """Forget what is recorded: an iteration is no longer what it was (masks came, say)."""
        self._compute, self._apply = self._bodies
        if self._records:
            self._compute = _RecordedPass(self._compute, self._net)
            self._apply = _Recorded(self._apply, self._net.device)

    @torch.no_grad()
    def run(self, iterations: int) -> None:
        """Run so many iterations.

        Raises:
            DataError: The data are damaged.
        """
        for _ in range(iterations):
            if self.begin:
                self.begin(self.iteration)
            for _ in range(self._param.iter_size):
                self._net.fetch()
                if self._records:
                    self._settle()
                self._compute()
            correction = bias_correction(self._param, self.iteration)
            self._rate.fill_(self.policy.rate(self.iteration) * correction)
            self._apply()
            self.iteration += 1

    def _settle(self) -> None:
        """Copy the batch to where what is recorded reads it."""
        batch = self._net.batch
        self._static = self._static or [torch.empty_like(tensor) for tensor in batch]
        for place, tensor in zip(self._static, batch, strict=True):
            place.copy_(tensor)
        self._net.use_batch(self._static)


def _recorded(body: Callable[[], None], device: torch.device) -> torch.cuda.CUDAGraph:
    """Record a function as a CUDA graph; nothing is computed meanwhile.

    Data layers go on in their threads, so only what this one does may spoil the recording. The
    stream is named because PyTorch's own for this purpose is on the device that was used first.

    Raises:
        RuntimeError: The function does what cannot be recorded.
    """
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    with _recording, torch.cuda.device(device):
        before = torch.cuda.current_stream()
        try:
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                body()
        finally:
            torch.cuda.set_stream(before)  # PyTorch leaves its own when a recording fails
    return graph


class _Recorded:
    """A function of fixed tensors that runs as a CUDA graph once it is warm."""

    def __init__(self, body: Callable[[], None], device: torch.device) -> None:
        self._body, self._device = body, device
        self._calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        self._calls += 1
        if self._graph is not None:
            self._graph.replay()
        elif self._calls == _WARM_UP + 1:
            self._record()
        else:
            self._body()

    def _record(self) -> None:
        try:
            self._graph = _recorded(self._body, self._device)
        except RuntimeError as error:
            warnings.warn(f"not recorded as a CUDA graph, which is slower: {error}", stacklevel=1)
            self._body()
            return
        self._graph.replay()


class _RecordedPass(_Recorded):
    """A pass through a net; after each replay the net's blobs are those that it writes to."""

    def __init__(self, body: Callable[[], None], net: Net) -> None:
        super().__init__(body, net.device)
        self._net = net
        self._values: list[Tensor] = []

    def __call__(self) -> None:
        super().__call__()
        if self._graph is None:
            return
        self._values = self._values or self._net.values
        self._net.use_values(self._values)
