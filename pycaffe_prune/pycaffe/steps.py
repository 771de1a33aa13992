"""The layers of a net in their places: what each reads and writes in a pass."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pycaffe_prune.engines.losses import loss_weights
from pycaffe_prune.engines.torch.data.base import Source
from pycaffe_prune.engines.torch.data.memory_source import DummySource
from pycaffe_prune.engines.torch.data.sources import make_source
from pycaffe_prune.engines.torch.layers.activations import ReLU
from pycaffe_prune.engines.torch.layers.base import Layer, LayerSetup, Saved
from pycaffe_prune.engines.torch.layers.random import RandomLayer
from pycaffe_prune.engines.torch.layers.registry import require_known
from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.axes import Shape, extents
from pycaffe_prune.formats.caffe_pb2 import TRAIN, LayerParameter
from pycaffe_prune.formats.field_table import refuse_unhonoured
from pycaffe_prune.net.shapes import LayerShapes, infer_shapes
from pycaffe_prune.pycaffe.blobs import Blob, BlobVec
from pycaffe_prune.pycaffe.few_images import layer_on
from pycaffe_prune.pycaffe.memory import Memory

__all__ = ["EngineStep", "Passes", "Place", "SharingStep", "SourceStep", "SplitStep", "Step"]

_PASSES_APART = 1_000_003  # keys of random layers: seed, number of the pass and of the layer


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

        Raises:
            PruneError: The layer contradicts itself or what it reads.
        """
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
        _write_diff(self.bottoms[0], total, self.tops)


class EngineStep(Step):
    """A layer of the engine torch."""

    layer: Layer

    def set_up(self) -> None:
        """See `Step.set_up`."""
        refuse_unhonoured(self.param, "torch")
        require_known(self.param)
        around = self._infer()
        self._in_place = not set(self.param.top).isdisjoint(self.param.bottom)
        self.may_overwrite = False
        """Whether the bottom's memory, if nobody else has it, may be the top's; set by the net."""
        self._saved: Saved | None = None
        self._versions: list[int] = []
        self._inputs: list[Tensor] | None = None
        self._saves_tops = False
        self._top_views: list[int] = []
        self._key = 0
        self.blobs.extend(Blob(shape, self.place.device) for shape in around.params)
        self._make(around)

    def _make(self, around: LayerShapes) -> None:
        self._read = [blob._shape for blob in self.bottoms]
        bottoms = tuple(self._read)
        tops = tuple(shape for shape in around.tops if shape is not None)
        before: Layer | None = getattr(self, "layer", None)
        self.layer = layer_on(
            self.place.device, LayerSetup(self.param, bottoms, tops, self.param.phase)
        )
        if before is not None:
            self.layer.follow(before)
        self._begun = [state.clone() for state in self.layer.states]
        self._saved = self._inputs = None
        self._by_hand = type(self.layer).forward_saving is not Layer.forward_saving
        self._resize_tops(around)
        self.settle()

    def settle(self) -> None:
        """See `Step.settle`."""
        # A pass written by hand also does what one in TRAIN does besides: draw, keep means.
        in_train = self.param.phase == TRAIN and self._by_hand
        self._saves = self.trains or self.layer.moves_params or self.layer.remembers or in_train

    def reshape(self) -> None:
        """See `Step.reshape`."""
        shapes = [blob._shape for blob in self.bottoms]
        if shapes == self._read or self.layer.takes_any_shape:
            return
        around = self._infer()
        shapes = [blob._shape for blob in self.blobs]
        if list(around.params) != shapes:
            raise SurgeryError(
                f"layer '{self.param.name}' ({self.param.type}): its bottom has shape "
                f"{_listed(blob._shape for blob in self.bottoms)} now, which needs blobs of "
                f"{_listed(around.params)}; it has {_listed(shapes)}, made for "
                f"{_listed(self._read)}"
            )
        self._make(around)

    def forward(self) -> None:
        """See `Step.forward`."""
        self.reshape()
        layer = self.layer
        bottoms = [blob._data.read(blob._shape) for blob in self.bottoms]
        params = [blob._data.read(blob._shape) for blob in self.blobs]
        if self._in_place:
            bottoms = self._apart(bottoms)
        if self._saves:
            tops = self._forward_saving(bottoms, params)
        else:
            tops = layer.forward(bottoms, params)
        for blob, top in zip(self.tops, _distinct(tops, bottoms, self.bottoms), strict=True):
            blob._bind(top)
        if self._saves_tops:
            self._top_views = [blob._data.views for blob in self.tops]

    def _apart(self, bottoms: list[Tensor]) -> list[Tensor]:
        """Copies of the bottoms that somebody may look at while they are overwritten."""
        own = {id(top) for top in self.tops}
        return [
            value.clone() if id(blob) in own and blob._data.is_held else value
            for value, blob in zip(bottoms, self.bottoms, strict=True)
        ]

    def _forward_saving(self, bottoms: list[Tensor], params: list[Tensor]) -> tuple[Tensor, ...]:
        layer = self.layer
        if isinstance(layer, RandomLayer):
            run = self.place.passes.seed * _PASSES_APART + self.place.passes.begun
            self._key = run * 1009 + self.place.number
            layer.reseed(self._key)
        layer.in_place = self.may_overwrite and not self.bottoms[0]._data.is_held
        self._begun = [state.clone() for state in layer.states]
        tops, saved = layer.forward_saving(bottoms, params)
        if layer.moves_params:
            for blob in self.blobs:
                blob._data.touch()
        if self.trains:
            self._saved, self._versions = saved, self._current()
            self._inputs = bottoms if self._in_place else None
            # Caffe's ReLU reads its bottom.
            self._saves_tops = saved is tops and (self._in_place or not isinstance(layer, ReLU))
        return tops

    def _current(self) -> list[int]:
        """The versions of what the layer reads."""
        read = self.blobs if self._in_place else [*self.bottoms, *self.blobs]
        return [blob._data.version for blob in read]

    def backward(self) -> None:
        """See `Step.backward`.

        Without a forward pass before it, or where something was written since, what it needs is
        computed from what the blobs hold now.
        """
        saved = self._saved
        if saved is None or self._versions != self._current():
            saved = self._saved = self._save_again()
        if self._saves_tops and self._top_views != [top._data.views for top in self.tops]:
            saved = tuple(top._read() for top in self.tops)  # somebody may have written into them
        targets = [
            blob._diff.read(blob._shape) if learns else None
            for blob, learns in zip(self.blobs, self.learns, strict=True)
        ]
        top_diffs = [blob._read_diff() for blob in self.tops]
        found = self.layer.backward(saved, top_diffs, self.propagate, targets)
        if any(tensor.requires_grad for tensor in saved):
            self._saved = None  # autograd's graph is gone
        for blob, learns in zip(self.blobs, self.learns, strict=True):
            if learns:
                blob._diff.touch()
        for blob, diff, wanted in zip(self.bottoms, found, self.propagate, strict=True):
            if wanted:
                _write_diff(blob, diff, self.tops)

    def _save_again(self) -> Saved:
        self.reshape()
        layer = self.layer
        bottoms = self._inputs or [blob._read() for blob in self.bottoms]
        params = [blob._read() for blob in self.blobs]
        if layer.moves_params:
            params = [param.clone() for param in params]
        if isinstance(layer, RandomLayer):
            layer.reseed(self._key)
        layer.in_place = False
        layer.states = [state.clone() for state in self._begun]
        self._versions = self._current()
        return layer.forward_saving(bottoms, params)[1]


def _listed(shapes: Iterable[Shape]) -> str:
    return ", ".join(map(extents, shapes))


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _distinct(
    results: Sequence[Tensor], sources: Sequence[Tensor], blobs: Sequence[Blob]
) -> Sequence[Tensor]:
    """The results; copies of those that lie in memory of ``sources`` that somebody looks at."""
    seen = {
        _storage(source) for source, blob in zip(sources, blobs, strict=True) if blob._data.is_held
    }
    if not seen:
        return results
    return [result.clone() if _storage(result) in seen else result for result in results]


def _write_diff(bottom: Blob, diff: Tensor | None, tops: Sequence[Blob]) -> None:
    """Give a bottom its gradient, in memory that is none of the tops'."""
    memory: Memory = bottom._diff
    if diff is None:
        memory.clear()
        return
    if not memory.is_held and any(
        top._diff.is_held and _storage(top._diff.read(top._shape)) == _storage(diff) for top in tops
    ):
        diff = diff.clone()
    memory.write(diff)
