"""The layers of a net in their places: what each reads and writes in a pass."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pycaffe_prune.engines.losses import loss_weights
from pycaffe_prune.engines.torch.data.base import Source
from pycaffe_prune.engines.torch.data.memory_source import DummySource
from pycaffe_prune.engines.torch.data.sources import make_source
from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter
from pycaffe_prune.formats.field_table import refuse_unhonoured
from pycaffe_prune.net.shapes import LayerShapes, infer_shapes
from pycaffe_prune.pycaffe.blobs import Blob, BlobVec
from pycaffe_prune.pycaffe.memory import Memory, storage_of

__all__ = ["Passes", "Place", "SharingStep", "SourceStep", "SplitStep", "Step", "write_diff"]


@dataclass
class Passes:
    """What the random numbers of a net belong to."""

    seed: int
    begun: int = 0
    """Forward passes from the first layer on, so far."""


@dataclass(frozen=True)
class Place:
    """Where a layer stands in a net."""

    param: LayerParameter
    """With its phase."""
    bottoms: list[Blob]
    tops: list[Blob]
    number: int
    """How many layers come before it."""
    device: torch.device
    passes: Passes


class Step:
    """A layer in its place (`include/caffe/layer.hpp`).

    This one computes nothing: its tops hold what is written into them (Input).
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self.param, self.bottoms, self.tops = place.param, place.bottoms, place.tops
        self.blobs = BlobVec()
        self.blobs.device = place.device
        self.trains = False
        """Whether it takes part in the backward pass; set by the net, as the next three."""
        self.stop: str | None = None
        """Why Caffe would end the process in the backward pass."""
        self.propagate: list[bool] = []
        """Per bottom whether its gradient is computed."""
        self.learns: list[bool] = []
        """Per blob whether its gradient is computed."""
        self.losses = loss_weights(self.param)

    def set_up(self) -> None:
        """Give the tops their shapes, and the layer its blobs.

        Tops of an Input that states no shape have none until somebody reshapes them.

        Raises:
            PruneError: The layer contradicts itself or what it reads.
        """
        if self.param.type != "Input" or self.param.input_param.shape:
            self._resize_tops(self._infer())

    def weigh_losses(self) -> None:
        """Put the loss weights where the backward pass begins (`Layer::SetLossWeights`)."""
        for top, weight in zip(self.tops, self.losses, strict=True):
            if weight:
                top._diff.write(torch.full(top._shape, weight, device=self.place.device))

    def settle(self) -> None:
        """Begin to work with blobs that lie where the net has all of them."""

    def reshape(self) -> None:
        """Let the tops' shapes follow the bottoms'.

        Raises:
            PruneError: The layer cannot read bottoms of these shapes.
        """

    def forward(self) -> None:
        """Compute the tops."""

    def backward(self) -> None:
        """Compute the gradients of bottoms and blobs from those of the tops."""

    def loss(self) -> float:
        """The part of the last forward pass in the loss."""
        total = 0.0
        for top, weight in zip(self.tops, self.losses, strict=True):
            diff = top._read_diff() if weight else None
            if diff is not None:
                total += float((top._read() * diff).sum())
        return total

    def close(self) -> None:
        """Let go of files."""

    def _infer(self) -> LayerShapes:
        shapes = {
            name: blob._shape for name, blob in zip(self.param.bottom, self.bottoms, strict=True)
        }
        (around,) = infer_shapes([self.param], shapes)
        if around.problem:
            raise SurgeryError(around.problem)
        return around

    def _resize_tops(self, around: LayerShapes) -> None:
        for top, shape in zip(self.tops, around.tops, strict=True):
            if shape is not None:
                top._resize(shape)


class SourceStep(Step):
    """A data layer: each pass is its next batch."""

    source: Source

    def set_up(self) -> None:
        """See `Step.set_up`."""
        place = self.place
        refuse_unhonoured(self.param, "torch")
        self.source = make_source(
            self.param, self.param.phase, place.device, place.passes.seed + place.number
        )
        for top, shape in zip(self.tops, self.source.shapes, strict=True):
            top._resize(shape)
        constants = self.source.constants if isinstance(self.source, DummySource) else {}
        for number, values in constants.items():
            self.tops[number]._data.write(values.clone())
        self._refilled = [number for number in range(len(self.tops)) if number not in constants]

    def forward(self) -> None:
        """See `Step.forward`; constants stay as they are, or as somebody has written them."""
        if self._refilled:
            batch = self.source.next()
            for number in self._refilled:
                self.tops[number]._bind(batch[number])

    def close(self) -> None:
        """See `Step.close`."""
        if hasattr(self, "source"):
            self.source.close()


class SharingStep(Step):
    """A layer whose top is the memory of its bottom, or of its blob, in another shape.

    Flatten and Reshape (values and gradients of the bottom), Parameter (those of its blob).
    """

    def set_up(self) -> None:
        """See `Step.set_up`."""
        refuse_unhonoured(self.param, "torch")
        around = self._infer()
        self.blobs.extend(Blob(shape, self.place.device) for shape in around.params)
        self._share(around)

    def _share(self, around: LayerShapes) -> None:
        self._read = [blob._shape for blob in self.bottoms]
        self._resize_tops(around)
        self.settle()

    def settle(self) -> None:
        """See `Step.settle`."""
        (owner,) = self.bottoms or self.blobs
        for top in self.tops:
            top._data, top._diff = owner._data, owner._diff

    def reshape(self) -> None:
        """See `Step.reshape`."""
        if [blob._shape for blob in self.bottoms] != self._read:
            self._share(self._infer())

    def forward(self) -> None:
        """See `Step.forward`: there is nothing to compute."""
        self.reshape()
        if self.blobs and self.tops[0]._data is not self.blobs[0]._data:
            self.settle()  # another net's blob by now


class SplitStep(SharingStep):
    """A Split: all tops are the memory of the bottom, and each has gradients of its own."""

    def settle(self) -> None:
        """See `Step.settle`."""
        for top in self.tops:
            top._data = self.bottoms[0]._data

    def backward(self) -> None:
        """See `Step.backward`: gradients add up."""
        if not self.propagate[0]:
            return
        total: Tensor | None = None
        for top in self.tops:
            diff = top._read_diff()
            if diff is not None:
                total = diff if total is None else total + diff
        write_diff(self.bottoms[0], total, self.tops)


def write_diff(bottom: Blob, diff: Tensor | None, tops: Sequence[Blob]) -> None:
    """Give a bottom its gradient, in memory that is none of the tops'."""
    memory: Memory = bottom._diff
    if diff is None:
        memory.clear()
        return
    if not memory.is_held and any(
        top._diff.is_held and storage_of(top._diff.read(top._shape)) == storage_of(diff)
        for top in tops
    ):
        diff = diff.clone()
    memory.write(diff)
