"""Caffe's update rules, over all blobs of a net at once."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.caffe_pb2 import SolverParameter

__all__ = ["ALL_BITS", "ParamGroup", "Update", "bias_correction", "make_update"]

_REGULARIZATIONS = ("L2", "L1")
ALL_BITS = -1
"""Of an int32."""
_PIECE = (
    1 << 16
)  # values a thread: those of a piece, their gradients, history and mask fit its cache


@dataclass(frozen=True)
class ParamGroup:
    """The part of the flat tensors' last axis whose blobs have these multipliers in common."""

    start: int
    stop: int
    lr_mult: float
    decay_mult: float


@dataclass(frozen=True, eq=False)
class _Part:
    """The values of one `ParamGroup`: views of the flat tensors."""

    place: slice
    data: Tensor
    diff: Tensor
    history: list[Tensor]
    lr_mult: float
    decay: float
    """``weight_decay`` times ``decay_mult``."""


class Update(ABC):
    """What a solver does with gradients (`SGDSolver::ApplyUpdate`, `src/caffe/solvers`).

    All flat tensors are float32, (count,) or, for several runs of one net, (runs, count). Nothing
    here waits for the device, and no branch depends on a tensor's values: `apply` can be recorded
    as a CUDA graph.

    Args:
        solver: Its type and numbers.
        groups: Together all of the last axis.
        data: The values, which `apply` changes.
        diff: The gradients, which `apply` uses up: they are zero after it.

    Raises:
        FormatError: A setting is one that Caffe refuses.
    """

    histories: ClassVar[int] = 1

    def __init__(
        self,
        solver: SolverParameter,
        groups: Sequence[ParamGroup],
        data: Tensor,
        diff: Tensor,
    ) -> None:
        if solver.weight_decay and solver.regularization_type not in _REGULARIZATIONS:
            raise FormatError(
                f"the solver's regularization_type '{solver.regularization_type}' is not known; "
                f"use one of {', '.join(_REGULARIZATIONS)}"
            )
        self.solver = solver
        self.history = [torch.zeros_like(data) for _ in range(self.histories)]
        """Flat tensors like the values: what a solverstate keeps, in its order."""
        self._diff = diff
        self._kept: Tensor | None = None
        self._parts = [
            _Part(
                slice(group.start, group.stop),
                data[..., group.start : group.stop],
                diff[..., group.start : group.stop],
                [flat[..., group.start : group.stop] for flat in self.history],
                group.lr_mult,
                solver.weight_decay * group.decay_mult,
            )
            for group in groups
        ]

    def keep(self, bits: Tensor) -> None:
        """Mask the gradients before each update from now on.

        Args:
            bits: int32, in the shape of the values: `ALL_BITS` where a value may move, 0 elsewhere.
                Bits are ANDed, not floats multiplied: NaN and -0.0 become +0.0 too.
        """
        self._kept = bits

    @torch.no_grad()
    def apply(self, rate: Tensor) -> None:
        """Do Caffe's update, and zero the gradients.

        Gradients are masked, clipped, divided by ``iter_size``, decayed and applied, in this order.

        Args:
            rate: 0-dim, float32, on the device of the values: the learning rate times
                `bias_correction`.
        """
        self.change(rate)
        self._diff.zero_()

    @torch.no_grad()
    def change(self, rate: Tensor) -> None:
        """Do as `apply`, but leave anything where the gradients were."""
        self._prepare()
        for part in self._parts:
            self._update(part, rate)

    def _prepare(self) -> None:
        """Mask, clip and divide the gradients."""
        if self._kept is not None and not self._masks_later:
            self._diff.view(torch.int32).bitwise_and_(self._kept)
        if self.solver.clip_gradients >= 0:
            self._clip()
        if self.solver.iter_size != 1:
            self._diff.mul_(1 / self.solver.iter_size)

    @torch.no_grad()
    def show_change(self, rate: Tensor) -> None:
        """Put what the last `change` took from the values where the gradients were, as Caffe does.

        Args:
            rate: As it was then.
        """
        for part in self._parts:
            self._show(part, rate)

    def _show(self, part: _Part, rate: Tensor) -> None:
        part.diff.mul_(rate * part.lr_mult)

    @property
    def _masks_later(self) -> bool:
        """Whether `_update` is what masks the gradients."""
        return False

    def _clip(self) -> None:
        """Scale the gradients of each run down to the L2 norm that is allowed, over all blobs."""
        norm = torch.linalg.vector_norm(self._diff, dim=-1, keepdim=True)
        allowed = self.solver.clip_gradients
        # As in Caffe, a norm that is no number leaves the gradients as they are.
        self._diff.mul_(torch.where(norm > allowed, allowed / norm, 1.0))

    def _decay(self, part: _Part) -> None:
        if not part.decay:
            return
        if self.solver.regularization_type == "L1":
            part.diff.add_(part.data.sign(), alpha=part.decay)
        else:
            part.diff.add_(part.data, alpha=part.decay)

    @abstractmethod
    def _update(self, part: _Part, rate: Tensor) -> None:
        """Decay and update values and history of one part; in ``diff`` stays what `_show` needs."""


class _SGD(Update):
    """The rate is inside the history, unlike in PyTorch's SGD (`sgd_solver.cpp`)."""

    def _update(self, part: _Part, rate: Tensor) -> None:
        self._decay(part)
        (history,) = part.history
        history.mul_(self.solver.momentum).addcmul_(part.diff, rate, value=part.lr_mult)
        part.data.sub_(history)

    def _show(self, part: _Part, rate: Tensor) -> None:  # noqa: ARG002 (it is in the history)
        part.diff.copy_(part.history[0])


@dataclass(frozen=True, eq=False)
class _Piece:
    """Some values of one run, in the form that PyTorch's fused update takes."""

    data: list[Tensor]
    diff: list[Tensor]
    history: list[Tensor]
    bits: Tensor
    """The gradients as int32."""
    masks: list[Tensor]
    """One where some of the values may not move, else none."""


class _FusedSGD(Update):
    """The same in one pass over memory, half of the time; for a CPU, with a momentum and L2.

    PyTorch's history is momentum * history + (1 - dampening) * gradient, and the rate comes after
    it: with a rate of 1 and a dampening of 1 - rate it is Caffe's. Called here is what PyTorch's
    optimizer calls, without what it does before: on a small net that takes half as long again. It
    goes piece by piece, so that masked gradients are still in the cache when they are used.
    """

    def __init__(
        self,
        solver: SolverParameter,
        groups: Sequence[ParamGroup],
        data: Tensor,
        diff: Tensor,
    ) -> None:
        super().__init__(solver, groups, data, diff)
        self._cut()

    def keep(self, bits: Tensor) -> None:
        super().keep(bits)
        self._cut()

    def _cut(self) -> None:
        """Make all views once: making them takes as long as updating a small net."""
        self._pieces = {part: list(self._pieces_of(part)) for part in self._parts}

    def _pieces_of(self, part: _Part) -> Iterator[_Piece]:
        flats = [part.data, part.diff, *part.history]
        if self._kept is not None and self._masks_later:
            flats.append(self._kept[..., part.place])
        for data, diff, history, *kept in zip(*map(_pieces, flats), strict=True):
            masks = [bits for bits in kept if not bool((bits == ALL_BITS).all())]
            yield _Piece([data], [diff], [history], diff.view(torch.int32), masks)

    @property
    def _masks_later(self) -> bool:
        return self.solver.clip_gradients < 0  # the norm to clip by is that of what is kept

    @torch.no_grad()
    def apply(self, rate: Tensor) -> None:
        """Do as `Update.apply`; a piece's gradients are zeroed while they are in the cache."""
        self._prepare()
        for part in self._parts:
            for piece in self._updated(part, rate):
                piece.bits.zero_()

    def _update(self, part: _Part, rate: Tensor) -> None:
        for _ in self._updated(part, rate):
            pass

    def _updated(self, part: _Part, rate: Tensor) -> Iterator[_Piece]:
        """Update piece by piece, and yield each that is done."""
        dampening = 1 - rate.item() * part.lr_mult
        for piece in self._pieces[part]:
            for mask in piece.masks:
                piece.bits.bitwise_and_(mask)
            torch._fused_sgd_(
                piece.data,
                piece.diff,
                piece.history,
                weight_decay=part.decay,
                momentum=self.solver.momentum,
                lr=1.0,
                dampening=dampening,
                nesterov=False,
                maximize=False,
                is_first_step=False,
            )
            yield piece

    def _show(self, part: _Part, rate: Tensor) -> None:  # noqa: ARG002 (it is in the history)
        part.diff.copy_(part.history[0])


def _pieces(flat: Tensor) -> list[Tensor]:
    """Cut each run's values into contiguous pieces."""
    size = _PIECE * torch.get_num_threads()
    runs = flat.unbind() if flat.dim() > 1 else (flat,)
    return [run[start : start + size] for run in runs for start in range(0, len(run), size)]


class _Nesterov(Update):
    """`nesterov_solver.cpp`: a step back along the old history, a longer one along the new."""

    def _update(self, part: _Part, rate: Tensor) -> None:
        self._decay(part)
        (history,), momentum = part.history, self.solver.momentum
        update = history * -momentum
        history.mul_(momentum).addcmul_(part.diff, rate, value=part.lr_mult)
        torch.add(update, history, alpha=1 + momentum, out=part.diff)
        part.data.sub_(part.diff)

    def _show(self, part: _Part, rate: Tensor) -> None:
        """It is there."""


class _AdaGrad(Update):
    """`adagrad_solver.cpp`: the history is the sum of the squared gradients."""

    def _update(self, part: _Part, rate: Tensor) -> None:
        self._decay(part)
        (history,) = part.history
        history.addcmul_(part.diff, part.diff)
        root = history.sqrt().add_(self.solver.delta)
        part.data.addcmul_(part.diff.div_(root), rate, value=-part.lr_mult)


class _RMSProp(Update):
    """`rmsprop_solver.cpp`: the history is a running mean of the squared gradients."""

    def _update(self, part: _Part, rate: Tensor) -> None:
        self._decay(part)
        (history,), kept = part.history, self.solver.rms_decay
        history.mul_(kept).addcmul_(part.diff, part.diff, value=1 - kept)
        root = history.sqrt().add_(self.solver.delta)
        part.data.addcmul_(part.diff.div_(root), rate, value=-part.lr_mult)


class _AdaDelta(Update):
    """`adadelta_solver.cpp`: running means of the squared gradients, then of squared updates."""

    histories = 2

    def _update(self, part: _Part, rate: Tensor) -> None:
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

    def _update(self, part: _Part, rate: Tensor) -> None:
        self._decay(part)
        means, squares = part.history
        kept, kept_square = self.solver.momentum, self.solver.momentum2
        means.mul_(kept).add_(part.diff, alpha=1 - kept)
        squares.mul_(kept_square).addcmul_(part.diff, part.diff, value=1 - kept_square)
        root = squares.sqrt().add_(self.solver.delta)
        torch.div(means, root, out=part.diff)
        part.data.addcmul_(part.diff, rate, value=-part.lr_mult)


_TYPES: Mapping[str, type[Update]] = {
    "SGD": _SGD,
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
    if rule is _SGD and is_plain and data.device.type == "cpu":
        rule = _FusedSGD
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
