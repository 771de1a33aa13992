"""Layers of the engine torch in their places in a net."""

from collections.abc import Iterable, Sequence

from torch import Tensor

from pycaffe_prune.engines.torch.layers.base import Layer, LayerSetup, Saved
from pycaffe_prune.engines.torch.layers.random import RandomLayer
from pycaffe_prune.engines.torch.layers.registry import require_known
from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.axes import Shape, extents
from pycaffe_prune.formats.caffe_pb2 import TRAIN
from pycaffe_prune.formats.field_table import refuse_unhonoured
from pycaffe_prune.net.shapes import LayerShapes
from pycaffe_prune.pycaffe.blobs import Blob
from pycaffe_prune.pycaffe.few_images import layer_on
from pycaffe_prune.pycaffe.memory import storage_of
from pycaffe_prune.pycaffe.steps import Step, write_diff
from pycaffe_prune.pycaffe.written_tops import FromTop, from_top

__all__ = ["EngineStep"]

_PASSES_APART = 1_000_003  # keys of random layers: seed, number of the pass and of the layer


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
        self._from_top: FromTop | None = None
        self._reads_tops = False
        self._tops_seen: list[tuple[int, int]] = []
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
        self._from_top = from_top(self.param)
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
        self._tops_seen = self._seen()

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
            self._reads_tops = saved is tops or self._from_top is not None
        return tops

    def _may_be_written(self) -> bool:
        """Whether a script may have written into tops that the backward pass reads."""
        then, now = self._tops_seen, self._seen()
        looked_at = then != now or any(top._data.is_held for top in self.tops)
        return bool(now) and looked_at and _only_views(then, now)

    def _seen(self) -> list[tuple[int, int]]:
        """The versions and the numbers of views of the tops, if the backward pass reads these."""
        tops = self.tops if self._reads_tops else ()
        return [(top._data.version, top._data.views) for top in tops]

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
        if self._may_be_written():
            if self._from_top is not None:
                self._backward_from_top(self._from_top)
                return
            saved = tuple(top._read() for top in self.tops)
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
                write_diff(blob, diff, self.tops)

    def _backward_from_top(self, gradient: FromTop) -> None:
        (bottom,), (top,) = self.bottoms, self.tops
        top_diff = top._read_diff()
        found = None
        if top_diff is not None:
            found = gradient(self.param, bottom._read(), top._read(), top_diff)
        if self.propagate[0]:
            write_diff(bottom, found, self.tops)

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


def _only_views(then: Sequence[tuple[int, int]], now: Sequence[tuple[int, int]]) -> bool:
    """Whether no layer has written since: a later one in place, whose values are not for this."""
    changes = zip(then, now, strict=True)
    return all(new[0] - old[0] == new[1] - old[1] for old, new in changes)


def _distinct(
    results: Sequence[Tensor], sources: Sequence[Tensor], blobs: Sequence[Blob]
) -> Sequence[Tensor]:
    """The results; copies of those that lie in memory of ``sources`` that somebody looks at."""
    seen = {
        storage_of(source)
        for source, blob in zip(sources, blobs, strict=True)
        if blob._data.is_held
    }
    if not seen:
        return results
    return [result.clone() if storage_of(result) in seen else result for result in results]
