"""The net that scripts use: what `python/caffe/pycaffe.py` adds to the C++ half."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.pycaffe.blobs import Blob, BlobVec
from pycaffe_prune.pycaffe.errors import CaffeError
from pycaffe_prune.pycaffe.layer import Layer
from pycaffe_prune.pycaffe.native_net import NativeNet

__all__ = ["Net"]

Array = NDArray[np.float32]
_Arrays = dict[str, Array]


class Net(NativeNet):
    """A net with its blobs by name; see `NativeNet` for how it is made."""

    @cached_property
    def blobs(self) -> "OrderedDict[str, Blob]":
        """The blobs by name, in the order in which they are made."""
        return OrderedDict(zip(self._blob_names, self._blobs, strict=True))

    @cached_property
    def blob_loss_weights(self) -> "OrderedDict[str, float]":
        """The weight of each blob in the loss, 0 for most."""
        return OrderedDict(zip(self._blob_names, self._blob_loss_weights, strict=True))

    @cached_property
    def layer_dict(self) -> "OrderedDict[str, Layer]":
        """The layers by name."""
        return OrderedDict(zip(self._layer_names, self.layers, strict=True))

    @cached_property
    def params(self) -> "OrderedDict[str, BlobVec]":
        """The blobs of each layer that has some: weight, bias."""
        named = zip(self._layer_names, self.layers, strict=True)
        return OrderedDict((name, layer.blobs) for name, layer in named if layer.blobs)

    @cached_property
    def inputs(self) -> list[str]:
        """The tops of Input layers."""
        return [self._blob_names[number] for number in self._inputs]

    @cached_property
    def outputs(self) -> list[str]:
        """The blobs that no layer reads."""
        return [self._blob_names[number] for number in self._outputs]

    @cached_property
    def top_names(self) -> "OrderedDict[str, list[str]]":
        """The tops of each layer."""
        return self._named(self._wiring.tops)

    @cached_property
    def bottom_names(self) -> "OrderedDict[str, list[str]]":
        """The bottoms of each layer."""
        return self._named(self._wiring.bottoms)

    def _named(self, numbers: Sequence[Sequence[int]]) -> "OrderedDict[str, list[str]]":
        names = self._blob_names
        return OrderedDict(
            (layer, [names[number] for number in own])
            for layer, own in zip(self._layer_names, numbers, strict=True)
        )

    @cached_property
    def _layer_places(self) -> dict[str, int]:
        places: dict[str, int] = {}
        for place, name in enumerate(self._layer_names):
            places.setdefault(name, place)
        return places

    def _place_of(self, layer: str) -> int:
        if layer not in self._layer_places:
            known = ", ".join(self._layer_places)
            raise UnknownLayerError(f"the net has no layer '{layer}'; its layers: {known}")
        return self._layer_places[layer]

    def forward(
        self,
        blobs: Sequence[str] | None = None,
        start: str | None = None,
        end: str | None = None,
        **inputs: Array,
    ) -> _Arrays:
        """Run the layers from ``start`` to ``end`` (names, both included).

        Args:
            blobs: Names of blobs to return besides.
            start: Where to begin; by default at the first layer.
            end: Where to end; by default at the last.
            **inputs: What to write into the net's inputs before: all of them, or none.

        Returns:
            The net's outputs, with ``end`` the tops of that layer: views, which later passes
            change.

        Raises:
            InputError: The inputs are not the net's, or not as many images.
            UnknownLayerError: There is no such layer.
        """
        first = 0 if start is None else self._place_of(start)
        last = len(self.layers) - 1 if end is None else self._place_of(end)
        names = self.outputs if end is None else self.top_names[end]
        if inputs:
            if inputs.keys() != set(self.inputs):
                raise InputError("Input blob arguments do not match net inputs.")
            for name, values in inputs.items():
                if values.shape[0] != self.blobs[name].shape[0]:
                    raise InputError("Input is not batch sized")
                self.blobs[name].data[...] = values
        self._run_forward(first, last)
        return {name: self.blobs[name].data for name in (*names, *(blobs or ()))}

    def backward(
        self,
        diffs: Sequence[str] | None = None,
        start: str | None = None,
        end: str | None = None,
        **top_diffs: Array,
    ) -> _Arrays:
        """Run the layers from ``start`` back to ``end`` (names, both included).

        Args:
            diffs: Names of blobs whose gradients to return besides.
            start: Where to begin; by default at the last layer.
            end: Where to end; by default at the first.
            **top_diffs: What to write into the diffs of the net's outputs before: all, or none.

        Returns:
            The gradients of the net's inputs, with ``end`` those of the bottoms of that layer:
            views, which later passes change.

        Raises:
            InputError: The diffs are not the outputs', or not as many images.
            UnknownLayerError: There is no such layer.
        """
        first = len(self.layers) - 1 if start is None else self._place_of(start)
        last = 0 if end is None else self._place_of(end)
        names = self.inputs if end is None else self.bottom_names[end]
        if top_diffs:
            if top_diffs.keys() != set(self.outputs):
                raise InputError("Top diff arguments do not match net outputs.")
            for name, values in top_diffs.items():
                if values.shape[0] != self.blobs[name].shape[0]:
                    raise InputError("Diff is not batch sized")
                self.blobs[name].diff[...] = values
        self._backward(first, last)
        return {name: self.blobs[name].diff for name in (*names, *(diffs or ()))}

    def forward_all(self, blobs: Sequence[str] | None = None, **inputs: Array) -> _Arrays:
        """Run any number of images through the net, batch by batch.

        Args:
            blobs: Names of blobs to return besides the outputs.
            **inputs: The images of all batches, by the net's inputs.

        Returns:
            The outputs of all images, as arrays of their own.

        Raises:
            InputError: As `forward`.
        """
        found: dict[str, list[Array]] = {name: [] for name in (*self.outputs, *(blobs or ()))}
        for batch in self._batch(inputs):
            for name, values in self.forward(blobs, None, None, **batch).items():
                found[name].extend(values.copy())
        return _whole(found, len(next(iter(inputs.values()))))

    def forward_backward_all(
        self,
        blobs: Sequence[str] | None = None,
        diffs: Sequence[str] | None = None,
        **arrays: Array,
    ) -> tuple[_Arrays, _Arrays]:
        """Run any number of images through the net and back, batch by batch.

        Args:
            blobs: Names of blobs to return besides the outputs.
            diffs: Names of blobs whose gradients to return besides the inputs'.
            **arrays: The images of all batches by the net's inputs, and the gradients of all
                batches by its outputs; either may be left out.

        Returns:
            The outputs and the inputs' gradients of all images, as arrays of their own.

        Raises:
            InputError: As `forward` and `backward`.
        """
        found: dict[str, list[Array]] = {name: [] for name in (*self.outputs, *(blobs or ()))}
        back: dict[str, list[Array]] = {name: [] for name in (*self.inputs, *(diffs or ()))}
        given = [
            {name: arrays[name] for name in names if name in arrays}
            for names in (self.inputs, self.outputs)
        ]
        batches = [self._batch(some) if some else iter(()) for some in given]
        for forward_batch, backward_batch in zip_longest(*batches, fillvalue={}):
            for name, values in self.forward(blobs, None, None, **forward_batch).items():
                found[name].extend(values.copy())
            for name, values in self.backward(diffs, None, None, **backward_batch).items():
                back[name].extend(values.copy())
        images = len(next(iter(arrays.values())))
        return _whole(found, images), _whole(back, images)

    def set_input_arrays(self, data: Array, labels: Array) -> None:
        """Give the net's MemoryData layer what its batches are made of; it is not copied.

        Args:
            data: (images, channels, height, width); images are a multiple of the batch size.
            labels: (images,), or (images, 1, 1, 1).

        Raises:
            CaffeError: The first layer is of another type, or they do not fit it or each other.
        """
        if labels.ndim == 1:
            labels = np.ascontiguousarray(labels[:, np.newaxis, np.newaxis, np.newaxis])
        self._set_input_arrays(data, labels)

    def _batch(self, arrays: Mapping[str, Array]) -> Iterator[_Arrays]:
        """Yield batches of the size of the net's first blob; the last is filled up with zeros."""
        size = next(iter(self.blobs.values())).shape[0]
        images = len(next(iter(arrays.values())))
        for start in range(0, images, size):
            batch = {name: values[start : start + size] for name, values in arrays.items()}
            missing = size - min(size, images - start)
            if missing:
                batch = {
                    name: np.concatenate([part, np.zeros((missing, *part.shape[1:]))])
                    for name, part in batch.items()
                }
            yield batch


class InputError(CaffeError, ValueError):
    """Arrays that do not fit the net's inputs or outputs."""


class UnknownLayerError(CaffeError, ValueError):
    """A name that no layer of the net has; pycaffe raises ValueError."""


def _whole(parts: Mapping[str, Sequence[Array]], images: int) -> _Arrays:
    """Arrays of all batches without what filled up the last one."""
    joined = {name: np.asarray(values) for name, values in parts.items()}
    surplus = len(next(iter(joined.values()))) - images
    return {name: values[:-surplus] for name, values in joined.items()} if surplus else joined
