"""Masks that change while a net trains, and weights on few levels for its passes."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from pycaffe_prune.engines.masking import (
    DynamicSurgery,
    FewBits,
    GradualMagnitude,
    Masking,
)
from pycaffe_prune.engines.torch.masks import Masks
from pycaffe_prune.engines.torch.net import Net
from pycaffe_prune.engines.torch.update import Update
from pycaffe_prune.formats.caffemodel import BlobKey, Caffemodel
from pycaffe_prune.formats.mask import Mask
from pycaffe_prune.pruning.dynamic_surgery import (
    Limits,
    surgery_chance,
    surgery_draw,
    surgery_limits,
)
from pycaffe_prune.pruning.few_bits import on_few_levels
from pycaffe_prune.pruning.gradual import gradual_mask

__all__ = ["MovingMasks", "make_moving"]

_PIECE = 1 << 16  # values a thread: those of a piece, its mask and what is shown fit its cache
_MAGNITUDE = 0x7FFFFFFF


class MovingMasks(ABC):
    """What changes weights between passes and updates: some masks of a net, or levels.

    Args:
        net: What is trained.
        update: Its update, which is told what may not move.
        masking: How masks change.
        start: Masks that the run begins with; those of blobs that ``masking`` does not name stay.

    Raises:
        SurgeryError: A mask does not fit its blob, or there is no such blob.
    """

    def __init__(
        self, net: Net, update: Update, masking: Masking, start: Mapping[BlobKey, Mask]
    ) -> None:
        self._net, self._update = net, update
        self.moves_masks = masking.moves_masks
        """Whether a snapshot needs the masks beside it."""
        self._keys = [net.owner(key) for key in masking.keys]
        self._weights = [net.parameters.view(net.parameters.data, key) for key in self._keys]
        self.limits: Sequence[Limits] = ()
        """Per mask the limits that it is made by, where there are such."""
        self.masks = Masks(net, self._frozen(masking, start))

    @abstractmethod
    def _frozen(self, masking: Masking, start: Mapping[BlobKey, Mask]) -> Mapping[BlobKey, Mask]:
        """The masks whose weights are zero, and may not move."""

    @abstractmethod
    def begin(self, iteration: int) -> None:
        """Make masks and weights anew where due; to be called before the passes of an iteration."""

    @abstractmethod
    def settle(self) -> None:
        """Let the net's layers have the weights as the last masks leave them; after an update."""

    @property
    @abstractmethod
    def kept(self) -> list[Mask]:
        """The masks that change, in the order of ``masking``."""

    @abstractmethod
    def restore(self, kept: Sequence[Mask], limits: Sequence[Limits]) -> int:
        """Go on with these masks; the net's layers have the weights of a snapshot.

        Returns:
            How many of those live that the masks prune for good: not 0 where it is damaged.
        """

    @abstractmethod
    def to_go_on_with(self, weights: Caffemodel) -> Caffemodel:
        """Return what a snapshot holds in the place of the weights that layers have."""

    @abstractmethod
    def revived(self) -> int:
        """Count the masked weights that layers see as not zero."""


class _Gradual(MovingMasks):
    """Masks that shrink by the cubic law; what is pruned is zero, and stays so."""

    def __init__(
        self, net: Net, update: Update, masking: GradualMagnitude, start: Mapping[BlobKey, Mask]
    ) -> None:
        super().__init__(net, update, masking, start)
        self._masking = masking
        self._zero()

    def _frozen(self, masking: Masking, start: Mapping[BlobKey, Mask]) -> Mapping[BlobKey, Mask]:
        whole = {
            key: np.ones(tuple(self._net.params[key[0]][key[1]].shape), np.bool_)
            for key in masking.keys
        }
        return {**whole, **start}

    def _zero(self) -> None:
        """Zero weights and history where a mask has shrunk, and keep them so."""
        self.masks.zero(self._net.parameters.data)
        for flat in self._update.history:
            self.masks.zero(flat)  # or momentum would move what was trained before
        self._update.keep(self.masks.bits)

    def begin(self, iteration: int) -> None:
        schedule = self._masking.schedule
        if not schedule.is_due(iteration):
            return
        for blob, weights, kept, bits in zip(
            self._masking.blobs, self._weights, self.kept, self._bits, strict=True
        ):
            share = schedule.sparsity(iteration, self._masking.initial, blob.sparsity)
            _write(bits, gradual_mask(weights.cpu().numpy(), kept, share))
        self._zero()

    def settle(self) -> None:
        pass  # layers have the weights themselves

    @property
    def _bits(self) -> list[Tensor]:
        return [self._net.parameters.view(self.masks.bits, key) for key in self._keys]

    @property
    def kept(self) -> list[Mask]:
        return [(bits != 0).cpu().numpy() for bits in self._bits]

    def restore(self, kept: Sequence[Mask], limits: Sequence[Limits]) -> int:  # noqa: ARG002
        for bits, mask in zip(self._bits, kept, strict=True):
            _write(bits, mask)
        alive = self.masks.revived()
        self._zero()
        return alive

    def to_go_on_with(self, weights: Caffemodel) -> Caffemodel:
        return weights

    def revived(self) -> int:
        return self.masks.revived()


@dataclass(frozen=True, eq=False)
class _Piece:
    """Some values of one blob, all as int32."""

    dense: Tensor
    kept: Tensor
    """1 where a weight is kept, else 0."""
    shown: Tensor
    """What layers have: dense where kept, else 0."""

    def show(self) -> None:
        torch.mul(self.dense, self.kept, out=self.shown)

    def operate(self, upper: Tensor, lower_by: int) -> None:
        """Make the mask anew from the limits' bits, less one, and show.

        Bits of magnitudes are in the order of the magnitudes. Each one is held against the bar
        that its mask sets. Four passes over memory: each one counts.

        Args:
            upper: The bar of what is not kept: 0-dim, int32.
            lower_by: How much lower it is for what is kept.
        """
        torch.bitwise_and(self.dense, _MAGNITUDE, out=self.shown)
        bar = torch.sub(upper, self.kept, alpha=lower_by, out=self.kept)
        torch.gt(self.shown, bar, out=self.kept)
        self.show()


class _DenseCopies(MovingMasks):
    """Layers have weights of their own memory, made of the dense ones that the solver updates."""

    def __init__(
        self, net: Net, update: Update, masking: Masking, start: Mapping[BlobKey, Mask]
    ) -> None:
        super().__init__(net, update, masking, start)
        if self._frozen(masking, start):
            self.masks.zero(net.parameters.data)
            update.keep(self.masks.bits)
        self._shown = [dense.clone() for dense in self._weights]
        for key, shown in zip(self._keys, self._shown, strict=True):
            net.redirect(key, shown)

    def _take_dense(self) -> None:
        """Take the dense weights from the layers: a snapshot that was loaded has those."""
        for dense, shown in zip(self._weights, self._shown, strict=True):
            dense.copy_(shown)

    def to_go_on_with(self, weights: Caffemodel) -> Caffemodel:
        dense = dict(zip(self._keys, self._weights, strict=True))
        held = {
            (layer.name, index) for layer in weights.layers for index in range(len(layer.blobs))
        }
        return weights.with_blobs(
            {
                key: dense[owner].reshape(weights.layer(key[0]).blobs[key[1]].shape).cpu().numpy()
                for key in held
                if (owner := self._net.owner(key)) in dense
            }
        )


class _Surgery(_DenseCopies):
    """Dynamic Network Surgery: layers have the masked weights, the solver the dense ones."""

    def __init__(
        self,
        net: Net,
        update: Update,
        masking: DynamicSurgery,
        start: Mapping[BlobKey, Mask],
        seed: int,
    ) -> None:
        super().__init__(net, update, masking, start)
        self._masking, self._seed = masking, seed
        self._masks = [torch.ones_like(dense, dtype=torch.int32) for dense in self._weights]
        for key, mask in zip(masking.keys, self._masks, strict=True):
            if key in start:
                _copy(mask, start[key])
        self._pieces = [
            _pieces(*three) for three in zip(self._weights, self._masks, self._shown, strict=True)
        ]
        self.settle()

    def _frozen(self, masking: Masking, start: Mapping[BlobKey, Mask]) -> Mapping[BlobKey, Mask]:
        Masks(self._net, start)  # sees that they fit
        return {key: mask for key, mask in start.items() if key not in masking.keys}

    def begin(self, iteration: int) -> None:
        told = self._masking
        self.limits = self.limits or [
            surgery_limits(dense.cpu().numpy(), blob.c, kept)
            for dense, blob, kept in zip(self._weights, told.blobs, self.kept, strict=True)
        ]
        chance = surgery_chance(iteration, told.gamma, told.power)
        for place, (pieces, limits) in enumerate(zip(self._pieces, self.limits, strict=True)):
            if iteration < told.stop and surgery_draw(self._seed, iteration, place) < chance:
                lower, upper = (int(limit.view(np.int32)) - 1 for limit in limits)
                bar = torch.tensor(upper, dtype=torch.int32)
                for piece in pieces:
                    piece.operate(bar, upper - lower)
            else:
                for piece in pieces:
                    piece.show()

    def settle(self) -> None:
        for pieces in self._pieces:
            for piece in pieces:
                piece.show()

    @property
    def kept(self) -> list[Mask]:
        return [(mask != 0).cpu().numpy() for mask in self._masks]

    def restore(self, kept: Sequence[Mask], limits: Sequence[Limits]) -> int:
        self.limits = limits
        self._take_dense()
        for mask, told in zip(self._masks, kept, strict=True):
            _copy(mask, told)
        self.settle()
        return self.masks.revived()

    def revived(self) -> int:
        lost = zip(self._shown, self._masks, strict=True)
        return self.masks.revived() + sum(
            int(torch.count_nonzero(shown[mask == 0])) for shown, mask in lost
        )


class _FewBits(_DenseCopies):
    """Layers have weights on few levels, the solver the dense ones; masks stay.

    The levels are found on the host: a GPU waits for it in each iteration.
    """

    kept: ClassVar[list[Mask]] = []

    def __init__(
        self, net: Net, update: Update, masking: FewBits, start: Mapping[BlobKey, Mask]
    ) -> None:
        super().__init__(net, update, masking, start)
        self._blobs = [
            (blob, start.get(blob.key), dense, shown)
            for blob, dense, shown in zip(masking.blobs, self._weights, self._shown, strict=True)
        ]
        self.settle()

    def _frozen(self, masking: Masking, start: Mapping[BlobKey, Mask]) -> Mapping[BlobKey, Mask]:  # noqa: ARG002
        return start

    def begin(self, iteration: int) -> None:  # noqa: ARG002  (each is alike)
        self.settle()

    def settle(self) -> None:
        for rule, kept, dense, shown in self._blobs:
            values = dense.cpu().numpy().reshape(shown.shape if kept is None else kept.shape)
            moved = on_few_levels(values, rule, kept)
            shown.copy_(torch.from_numpy(moved).view(shown.shape))

    def restore(self, kept: Sequence[Mask], limits: Sequence[Limits]) -> int:  # noqa: ARG002
        self._take_dense()
        alive = self.masks.revived()
        self.settle()
        return alive

    def revived(self) -> int:
        return self.masks.revived() + sum(
            int(np.count_nonzero(shown.cpu().numpy().reshape(kept.shape)[~kept]))
            for _, kept, _, shown in self._blobs
            if kept is not None
        )


def _copy(target: Tensor, mask: Mask) -> None:
    target.copy_(torch.from_numpy(mask).view(target.shape))


def _write(bits: Tensor, mask: Mask) -> None:
    _copy(bits, mask)
    bits.neg_()


def _pieces(dense: Tensor, kept: Tensor, shown: Tensor) -> list[_Piece]:
    size = dense.numel() if dense.is_cuda else _PIECE * torch.get_num_threads()
    flats = (dense.view(torch.int32), kept, shown.view(torch.int32))
    return [
        _Piece(*parts)
        for parts in zip(*(torch.split(flat.view(-1), size) for flat in flats), strict=True)
    ]


def make_moving(
    net: Net, update: Update, masking: Masking, start: Mapping[BlobKey, Mask], seed: int
) -> MovingMasks:
    """Return the masks that ``masking`` describes; see `MovingMasks`.

    Args:
        net: What is trained; it holds the weights that the run begins with.
        update: Its update.
        masking: How masks change.
        start: Masks that the run begins with.
        seed: The solver's.

    Raises:
        SurgeryError: A mask does not fit its blob, or there is no such blob.
    """
    if isinstance(masking, DynamicSurgery):
        return _Surgery(net, update, masking, start, seed)
    if isinstance(masking, FewBits):
        return _FewBits(net, update, masking, start)
    return _Gradual(net, update, masking, start)
