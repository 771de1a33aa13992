"""Caffe's update rules, and which of them a solver's type names."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pycaffe_prune.engines.torch.sgd import SGD, FusedSGD
from pycaffe_prune.engines.torch.update import ParamGroup, Part, Update
from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.caffe_pb2 import SolverParameter

__all__ = ["bias_correction", "make_update"]


class _Nesterov(Update):
    """`nesterov_solver.cpp`: a step back along the old history, a longer one along the new."""

    def _update(self, part: Part, rate: Tensor) -> None:
        self._decay(part)
        (history,), momentum = part.history, self.solver.momentum
        update = history * -momentum
        history.mul_(momentum).addcmul_(part.diff, rate, value=part.lr_mult)
        torch.add(update, history, alpha=1 + momentum, out=part.diff)
        part.data.sub_(part.diff)

    def _show(self, part: Part, rate: Tensor) -> None:
        """It is there."""


class _AdaGrad(Update):
    """`adagrad_solver.cpp`: the history is the sum of the squared gradients."""

    def _update(self, part: Part, rate: Tensor) -> None:
        self._decay(part)
        (history,) = part.history
        history.addcmul_(part.diff, part.diff)
        root = history.sqrt().add_(self.solver.delta)
        part.data.addcmul_(part.diff.div_(root), rate, value=-part.lr_mult)


class _RMSProp(Update):
    """`rmsprop_solver.cpp`: the history is a running mean of the squared gradients."""

    def _update(self, part: Part, rate: Tensor) -> None:
        self._decay(part)
        (history,), kept = part.history, self.solver.rms_decay
        history.mul_(kept).addcmul_(part.diff, part.diff, value=1 - kept)
        root = history.sqrt().add_(self.solver.delta)
        part.data.addcmul_(part.diff.div_(root), rate, value=-part.lr_mult)


class _AdaDelta(Update):
    """`adadelta_solver.cpp`: running means of the squared gradients, then of squared updates."""

    histories = 2

    def _update(self, part: Part, rate: Tensor) -> None:
        self._decay(part)
        (gradients, updates), kept = part.history, self.solver.momentum
        gradients.mul_(kept).addcmul_(part.diff, part.diff, value=1 - kept)
        delta = self.solver.delta
        part.diff.mul_((updates + delta).div_(gradients + delta).sqrt_())
        updates.mul_(kept).addcmul_(part.diff, part.diff, value=1 - kept)
        part.data.addcmul_(part.diff, rate, value=-part.lr_mult)


class _Adam(Update):
    """`adam_solver.cpp`: running means of the gradients, then of the squared gradients."""

    histories = 2

    def _update(self, part: Part, rate: Tensor) -> None:
        self._decay(part)
        means, squares = part.history
        kept, kept_square = self.solver.momentum, self.solver.momentum2
        means.mul_(kept).add_(part.diff, alpha=1 - kept)
        squares.mul_(kept_square).addcmul_(part.diff, part.diff, value=1 - kept_square)
        root = squares.sqrt().add_(self.solver.delta)
        torch.div(means, root, out=part.diff)
        part.data.addcmul_(part.diff, rate, value=-part.lr_mult)


_TYPES: Mapping[str, type[Update]] = {
    "SGD": SGD,
    "Nesterov": _Nesterov,
    "AdaGrad": _AdaGrad,
    "RMSProp": _RMSProp,
    "AdaDelta": _AdaDelta,
    "Adam": _Adam,
}


def make_update(
    solver: SolverParameter, groups: Sequence[ParamGroup], data: Tensor, diff: Tensor
) -> Update:
    """Return the update rule of the solver's ``type``, with a history of zeros; see `Update`.

    Raises:
        FormatError: The type is not known, or a setting is one that Caffe refuses.
    """
    if solver.type not in _TYPES:
        raise FormatError(
            f"the solver's type '{solver.type}' is not known; use one of {', '.join(_TYPES)}"
        )
    if solver.type in ("AdaGrad", "RMSProp") and solver.momentum:
        raise FormatError(
            f"the solver's type {solver.type} takes no momentum, but it is {solver.momentum:g}; "
            "remove it"
        )
    if solver.type == "RMSProp" and not 0 <= solver.rms_decay < 1:
        raise FormatError(
            f"the solver's rms_decay {solver.rms_decay:g} must be at least 0 and below 1"
        )
    if solver.type == "Adam" and not (0 <= solver.momentum < 1 and 0 <= solver.momentum2 < 1):
        raise FormatError(
            f"the solver's type Adam needs a momentum ({solver.momentum:g}) and a momentum2 "
            f"({solver.momentum2:g}) of at least 0 and below 1"
        )
    rule = _TYPES[solver.type]
    # PyTorch keeps no history without a momentum.
    is_plain = solver.momentum and solver.regularization_type == "L2"
    if rule is SGD and is_plain and data.device.type == "cpu":
        rule = FusedSGD
    return rule(solver, groups, data, diff)


def bias_correction(solver: SolverParameter, iteration: int) -> float:
    """Return by what Adam multiplies the rate of the update after ``iteration`` updates.

    Its running means begin at zero and are too small at first (`adam_solver.cpp`). It is 1 for the
    other types. To be computed beside the rate: what is recorded as a CUDA graph cannot count.
    """
    if solver.type != "Adam":
        return 1.0
    times = iteration + 1
    return math.sqrt(1 - solver.momentum2**times) / (1 - solver.momentum**times)
