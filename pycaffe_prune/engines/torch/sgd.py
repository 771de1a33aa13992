"""Caffe's SGD with momentum, and the same in one pass over memory."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from pycaffe_prune.engines.torch.update import ALL_BITS, Part, Update

__all__ = ["SGD", "FusedSGD"]

_PIECE = (
    1 << 16
)  # values a thread: those of a piece, their gradients, history and mask fit its cache


class SGD(Update):
    """The rate is inside the history, unlike in PyTorch's SGD (`sgd_solver.cpp`)."""

    def _update(self, part: Part, rate: Tensor) -> None:
        self._decay(part)
        (history,) = part.history
        history.mul_(self.solver.momentum).addcmul_(part.diff, rate, value=part.lr_mult)
        part.data.sub_(history)

    def _show(self, part: Part, rate: Tensor) -> None:  # noqa: ARG002 (it is in the history)
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


class FusedSGD(SGD):
    """The same in one pass over memory, half of the time; for a CPU, with a momentum and L2.

    PyTorch's history is momentum * history + (1 - dampening) * gradient, and the rate comes after
    it: with a rate of 1 and a dampening of 1 - rate it is Caffe's. Called here is what PyTorch's
    optimizer calls, without what it does before: on a small net that takes half as long again. It
    goes piece by piece, so that masked gradients are still in the cache when they are used.
    """

    def keep(self, bits: Tensor) -> None:
        """See `Update.keep`."""
        super().keep(bits)
        self.__dict__.pop("_pieces", None)

    @cached_property
    def _pieces(self) -> dict[Part, list[_Piece]]:
        """All views, made once: making them takes as long as updating a small net."""
        return {part: list(self._pieces_of(part)) for part in self._parts}

    def _pieces_of(self, part: Part) -> Iterator[_Piece]:
        flats = [part.data, part.diff, *part.history]
        if self._kept is not None and self._masks_later:
            flats.append(self._kept[..., part.place])
        for data, diff, history, *kept in zip(*map(_cut, flats), strict=True):
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

    def _update(self, part: Part, rate: Tensor) -> None:
        for _ in self._updated(part, rate):
            pass

    def _updated(self, part: Part, rate: Tensor) -> Iterator[_Piece]:
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


def _cut(flat: Tensor) -> list[Tensor]:
    """Cut each run's values into contiguous pieces."""
    size = _PIECE * torch.get_num_threads()
    runs = flat.unbind() if flat.dim() > 1 else (flat,)
    return [run[start : start + size] for run in runs for start in range(0, len(run), size)]
