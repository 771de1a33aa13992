"""Caffe's iteration: passes whose gradients add up, then one update."""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from pycaffe_prune.engines.prepare import solver_settings
from pycaffe_prune.engines.torch_engine.net import Net
from pycaffe_prune.engines.torch_engine.rates import RatePolicy
from pycaffe_prune.engines.torch_engine.updates import bias_correction
from pycaffe_prune.formats.caffe_pb2 import SolverParameter

__all__ = ["Stepping"]

_WARM_UP = 3  # calls before recording: libraries choose algorithms and allocate on their first ones


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
        self.policy = RatePolicy(solver_settings(param))
        self._param, self._net = param, net
        self._rate = torch.zeros((), device=net.device)
        self._compute = compute
        self._apply: Callable[[], None] = lambda: apply(self._rate)
        self._static: list[Tensor] | None = None
        if net.device.type == "cuda" and not net.draws:
            self._compute, self._apply = _Recorded(self._compute), _Recorded(self._apply)
            net.fetch()
            self._static = [tensor.clone() for tensor in net.batch]
            net.seek(0)

    @torch.no_grad()
    def run(self, iterations: int) -> None:
        """Run so many iterations.

        Raises:
            DataError: The data are damaged.
        """
        for _ in range(iterations):
            for _ in range(self._param.iter_size):
                self._net.fetch()
                if self._static is not None:
                    self._settle(self._static)
                self._compute()
            correction = bias_correction(self._param, self.iteration)
            self._rate.fill_(self.policy.rate(self.iteration) * correction)
            self._apply()
            self.iteration += 1

    def _settle(self, static: list[Tensor]) -> None:
        """Copy the batch to where what is recorded reads it."""
        for place, tensor in zip(static, self._net.batch, strict=True):
            place.copy_(tensor)
        self._net.use_batch(static)


class _Recorded:
    """A function of fixed tensors that runs as a CUDA graph once it is warm."""

    def __init__(self, body: Callable[[], None]) -> None:
        self._body = body
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
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self._body()
        except RuntimeError as error:
            warnings.warn(f"not recorded as a CUDA graph, which is slower: {error}", stacklevel=1)
            self._body()
            return
        self._graph = graph
        graph.replay()  # recording computes nothing
