"""All blobs of a net in flat tensors: one call updates, masks or zeroes every one of them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from pycaffe_prune.engines.torch.update import ParamGroup
from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.axes import Shape, extents
from pycaffe_prune.formats.caffe_pb2 import LayerParameter, ParamSpec
from pycaffe_prune.formats.caffemodel import BlobKey
from pycaffe_prune.formats.sharing import blob_owners

__all__ = ["Learnable", "Parameters", "learnables"]


@dataclass(frozen=True)
class Learnable:
    """One blob that the solver updates, at its owner."""

    key: BlobKey
    shape: Shape
    lr_mult: float
    decay_mult: float


def learnables(
    layers: Sequence[LayerParameter], shapes: Sequence[Sequence[Shape]]
) -> tuple[list[Learnable], Mapping[BlobKey, BlobKey]]:
    """Return a net's learnable blobs in Caffe's order, and the owner of each blob that is shared.

    That order (layer by layer, each shared blob once, at its first place) is the order of the
    history in a solverstate (`Net::AppendParam` of `src/caffe/net.cpp`).

    Args:
        layers: The net's layers.
        shapes: Per layer the shapes of its blobs.

    Raises:
        SurgeryError: Shared blobs differ in shape, or in a multiplier that both state.
    """
    owners = blob_owners(layers)
    found: dict[BlobKey, Learnable] = {}
    stated: dict[BlobKey, ParamSpec] = {}
    for layer, blobs in zip(layers, shapes, strict=True):
        for index, shape in enumerate(blobs):
            key = (layer.name, index)
            spec = layer.param[index] if index < len(layer.param) else ParamSpec()
            owner = owners.get(key, key)
            if owner != key:
                _require_same(found[owner], key, shape, spec)
                stated[owner] = _both(stated[owner], spec, key)
                found[owner] = replace(
                    found[owner],
                    lr_mult=stated[owner].lr_mult,
                    decay_mult=stated[owner].decay_mult,
                )
                continue
            stated[key] = spec
            # BatchNorm's three blobs are statistics: Caffe sets their rate to 0 itself.
            rate = 0.0 if layer.type == "BatchNorm" else spec.lr_mult
            found[key] = Learnable(key, shape, rate, spec.decay_mult)
    return list(found.values()), {key: owner for key, owner in owners.items() if key != owner}


def _require_same(owner: Learnable, key: BlobKey, shape: Shape, spec: ParamSpec) -> None:
    permissive = spec.share_mode == ParamSpec.PERMISSIVE
    if shape != owner.shape and not (permissive and math.prod(shape) == math.prod(owner.shape)):
        raise SurgeryError(
            f"layer '{key[0]}', blob {key[1]} is {extents(shape)} and shares the blob of layer "
            f"'{owner.key[0]}', which is {extents(owner.shape)}; shared parameters need equal "
            "shapes (or equal counts and share_mode: PERMISSIVE)"
        )


def _both(owner: ParamSpec, other: ParamSpec, key: BlobKey) -> ParamSpec:
    """What two layers state of the blob that they share; what neither states is Caffe's default."""
    both = ParamSpec()
    both.CopyFrom(owner)
    for name in ("lr_mult", "decay_mult"):
        if not other.HasField(name):
            continue
        if owner.HasField(name) and getattr(owner, name) != getattr(other, name):
            raise SurgeryError(
                f"layer '{key[0]}', blob {key[1]} is shared, but its {name} "
                f"{getattr(other, name):g} is not the owner's {getattr(owner, name):g}; state it "
                "once"
            )
        setattr(both, name, getattr(other, name))
    return both


class Parameters:
    """Values and gradients of a net's learnable blobs, each kind one flat tensor.

    Blobs of equal multipliers lie side by side, so that an update is a few calls for all of them.

    Args:
        blobs: The blobs, in Caffe's order.
        device: Where they live.
        runs: With a number, each flat tensor holds that many runs of the net: (runs, count).
    """

    def __init__(
        self, blobs: Iterable[Learnable], device: torch.device, runs: int | None = None
    ) -> None:
        self.blobs = tuple(blobs)
        self._lead = () if runs is None else (runs,)
        self._device = device
        kinds = dict.fromkeys((blob.lr_mult, blob.decay_mult) for blob in self.blobs)
        groups, places, at = [], {}, 0
        for kind in kinds:
            start = at
            for blob in self.blobs:
                if (blob.lr_mult, blob.decay_mult) == kind:
                    places[blob.key] = (at, at + math.prod(blob.shape))
                    at += math.prod(blob.shape)
            groups.append(ParamGroup(start, at, *kind))
        self.groups = tuple(groups)
        self.count = at
        self._places = places
        self._shapes = {blob.key: blob.shape for blob in self.blobs}

    @cached_property
    def data(self) -> Tensor:
        """The values, float32."""
        return self.zeros()

    @cached_property
    def diff(self) -> Tensor:
        """The gradients, float32."""
        return self.zeros()

    def zeros(self) -> Tensor:
        """Return a new flat float32 tensor of zeros, laid out as `data` is."""
        return torch.zeros((*self._lead, self.count), device=self._device)

    def place(self, key: BlobKey) -> tuple[int, int]:
        """Return where a blob begins and ends in the last axis of the flat tensors."""
        return self._places[key]

    def view(self, flat: Tensor, key: BlobKey) -> Tensor:
        """Return the part of ``flat`` that belongs to a blob, in its shape."""
        start, stop = self._places[key]
        return flat[..., start:stop].view((*flat.shape[:-1], *self._shapes[key]))

    def views(self, flat: Tensor) -> list[Tensor]:
        """Return the parts of ``flat`` in the order of `blobs`."""
        return [self.view(flat, blob.key) for blob in self.blobs]
