"""Layers that join, cut, combine and reshape blobs."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pycaffe_prune.engines.torch.layers.base import Layer, LayerSetup, Saved
from pycaffe_prune.formats.axes import canonical_axis
from pycaffe_prune.formats.caffe_pb2 import EltwiseParameter, ReductionParameter

__all__ = [
    "LAYERS",
    "ArgMax",
    "BatchReindex",
    "Concat",
    "Crop",
    "Eltwise",
    "Flatten",
    "Parameter",
    "Reduction",
    "Reshape",
    "Silence",
    "Slice",
    "Split",
    "Tile",
]


class Concat(Layer):
    """The bottoms, one after another along an axis (`src/caffe/layers/concat_layer.cpp`)."""

    def __init__(self, setup: LayerSetup) -> None:
        super().__init__(setup)
        settings = self.param.concat_param
        old = settings.HasField("concat_dim")
        axis = settings.concat_dim if old else settings.axis
        self._axis = canonical_axis(setup.bottoms[0], axis)
        self._extents = [bottom[self._axis] for bottom in setup.bottoms]

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute the top."""
        return (torch.cat(list(bottoms), self._axis),)

    def forward_saving(
        self, bottoms: Sequence[Tensor], params: Sequence[Tensor]
    ) -> tuple[tuple[Tensor, ...], Saved]:
        """Compute the top; `backward` needs nothing of it."""
        return self.forward(bottoms, params), ()

    def backward(
        self,
        saved: Saved,
        top_diffs: Sequence[Tensor | None],
        propagate: Sequence[bool],
        param_diffs: Sequence[Tensor | None],
    ) -> list[Tensor | None]:
        """Return the gradients of the bottoms; see `Layer.backward`."""
        (diff,) = top_diffs
        if diff is None:
            return [None] * len(propagate)
        parts = diff.split_with_sizes(self._extents, self._axis)
        return [
            part.contiguous() if wanted else None
            for part, wanted in zip(parts, propagate, strict=True)
        ]


class Slice(Layer):
    """The bottom, cut along an axis (`src/caffe/layers/slice_layer.cpp`)."""

    keeps_top = True  # tops may be parts of the bottom's memory

    def __init__(self, setup: LayerSetup) -> None:
        super().__init__(setup)
        settings = self.param.slice_param
        axis = settings.slice_dim if settings.HasField("slice_dim") else settings.axis
        self._axis = canonical_axis(setup.bottoms[0], axis)
        self._extents = [top[self._axis] for top in setup.tops]

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute the tops."""
        parts = bottoms[0].split_with_sizes(self._extents, self._axis)
        return tuple(part.contiguous() for part in parts)


class Split(Layer):
    """The bottom, several times, in one memory (`src/caffe/layers/split_layer.cpp`)."""

    keeps_top = True  # the tops are the bottom itself

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the bottom as each of the tops."""
        return (bottoms[0],) * len(self.setup.tops)

    def forward_saving(
        self, bottoms: Sequence[Tensor], params: Sequence[Tensor]
    ) -> tuple[tuple[Tensor, ...], Saved]:
        """Return the tops; `backward` needs nothing."""
        return self.forward(bottoms, params), ()

    def backward(
        self,
        saved: Saved,
        top_diffs: Sequence[Tensor | None],
        propagate: Sequence[bool],
        param_diffs: Sequence[Tensor | None],
    ) -> list[Tensor | None]:
        """Return the sum of the tops' gradients; see `Layer.backward`."""
        total = None
        for diff in top_diffs if propagate[0] else ():
            if diff is not None:
                total = diff if total is None else total + diff
        return [total]


class Reshape(Layer):
    """The bottom's values in the shape of the top (`src/caffe/layers/reshape_layer.cpp`)."""

    keeps_top = True  # the top is the bottom's memory

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the top."""
        return (bottoms[0].reshape(self.setup.tops[0]),)

    def forward_saving(
        self, bottoms: Sequence[Tensor], params: Sequence[Tensor]
    ) -> tuple[tuple[Tensor, ...], Saved]:
        """Return the top; `backward` needs nothing."""
        return self.forward(bottoms, params), ()

    def backward(
        self,
        saved: Saved,
        top_diffs: Sequence[Tensor | None],
        propagate: Sequence[bool],
        param_diffs: Sequence[Tensor | None],
    ) -> list[Tensor | None]:
        """Return the top's gradient in the shape of the bottom; see `Layer.backward`."""
        (diff,) = top_diffs
        if diff is None or not propagate[0]:
            return [None]
        return [diff.reshape(self.setup.bottoms[0])]


class Flatten(Reshape):
    """The bottom with some axes made one (`src/caffe/layers/flatten_layer.cpp`)."""


class Eltwise(Layer):
    """The bottoms combined, value by value (`src/caffe/layers/eltwise_layer.cpp`).

    SUM takes a ``coeff`` per bottom. Of equal values MAX takes the second bottom's before the
    first's, and a later one's only if it is above both. PROD has the gradient of
    ``stable_prod_grad``, the product of the others, also where Caffe is told to divide.
    """

    def __init__(self, setup: LayerSetup) -> None:
        super().__init__(setup)
        settings = self.param.eltwise_param
        self._operation = settings.operation
        self._sums = settings.operation == EltwiseParameter.SUM
        self._coeffs = list(settings.coeff) or [1.0] * len(setup.bottoms)

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute the top."""
        if self._sums:
            return (_weighted_sum(bottoms, self._coeffs),)
        if self._operation == EltwiseParameter.PROD:
            return (_product(bottoms),)
        return (_maximum(bottoms),)

    def forward_saving(
        self, bottoms: Sequence[Tensor], params: Sequence[Tensor]
    ) -> tuple[tuple[Tensor, ...], Saved]:
        """Compute the top, and keep what `backward` needs: for a sum, nothing."""
        if self._sums:
            return self.forward(bottoms, params), ()
        return super().forward_saving(bottoms, params)

    def backward(
        self,
        saved: Saved,
        top_diffs: Sequence[Tensor | None],
        propagate: Sequence[bool],
        param_diffs: Sequence[Tensor | None],
    ) -> list[Tensor | None]:
        """Return the gradients of the bottoms; see `Layer.backward`."""
        if not self._sums:
            return super().backward(saved, top_diffs, propagate, param_diffs)
        (diff,) = top_diffs
        if diff is None:
            return [None] * len(propagate)
        return [
            _scaled(diff, coeff) if wanted else None
            for coeff, wanted in zip(self._coeffs, propagate, strict=True)
        ]


def _scaled(tensor: Tensor, factor: float) -> Tensor:
    return tensor if factor == 1 else tensor * factor


def _weighted_sum(bottoms: Sequence[Tensor], coeffs: Sequence[float]) -> Tensor:
    total = _scaled(bottoms[0], coeffs[0])
    for bottom, coeff in zip(bottoms[1:], coeffs[1:], strict=True):
        total = torch.add(total, bottom, alpha=coeff)
    return total


def _product(bottoms: Sequence[Tensor]) -> Tensor:
    total = bottoms[0]
    for bottom in bottoms[1:]:
        total = total * bottom
    return total


def _maximum(bottoms: Sequence[Tensor]) -> Tensor:
    first, second, *others = bottoms
    largest = torch.where(first > second, first, second)
    for bottom in others:
        largest = torch.where(bottom > largest, bottom, largest)
    return largest


class Silence(Layer):
    """Reads its bottoms and makes nothing (`src/caffe/layers/silence_layer.cpp`)."""

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return no tops."""
        return ()


class Tile(Layer):
    """The bottom, repeated along an axis (`src/caffe/layers/tile_layer.cpp`)."""

    def __init__(self, setup: LayerSetup) -> None:
        super().__init__(setup)
        settings = self.param.tile_param
        (bottom,) = setup.bottoms
        axis = canonical_axis(bottom, settings.axis)
        self._repeats = [settings.tiles if place == axis else 1 for place in range(len(bottom))]

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute the top."""
        return (bottoms[0].repeat(self._repeats),)


class Crop(Layer):
    """The first bottom, cut to the second's shape (`src/caffe/layers/crop_layer.cpp`).

    From ``axis`` on, ``offset`` tells where each axis begins; one number serves them all. The
    second bottom gets no gradient.
    """

    keeps_top = True  # the top may be a part of the bottom's memory

    def __init__(self, setup: LayerSetup) -> None:
        super().__init__(setup)
        settings, bottom, top = self.param.crop_param, setup.bottoms[0], setup.tops[0]
        axis = canonical_axis(bottom, settings.axis)
        offsets = list(settings.offset) or [0]
        if len(offsets) == 1:
            offsets *= len(bottom) - axis
        starts = [0] * axis + offsets
        self._cut = tuple(
            slice(start, start + extent) for start, extent in zip(starts, top, strict=True)
        )

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute the top."""
        return (bottoms[0][self._cut].contiguous(),)


class Reduction(Layer):
    """Sums over all axes from ``axis`` on (`src/caffe/layers/reduction_layer.cpp`)."""

    def __init__(self, setup: LayerSetup) -> None:
        super().__init__(setup)
        self._axis = canonical_axis(setup.bottoms[0], self.param.reduction_param.axis)

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute the top."""
        settings = self.param.reduction_param
        flat = bottoms[0].flatten(self._axis)
        if settings.operation == ReductionParameter.MEAN:
            reduced = flat.mean(-1)
        elif settings.operation == ReductionParameter.ASUM:
            reduced = flat.abs().sum(-1)
        elif settings.operation == ReductionParameter.SUMSQ:
            reduced = flat.square().sum(-1)
        else:
            reduced = flat.sum(-1)
        return (reduced * settings.coeff,)


class ArgMax(Layer):
    """The ``top_k`` largest values, or their places (`src/caffe/layers/argmax_layer.cpp`).

    With ``axis``: the places along it, or with ``out_max_val`` the values. Without: the places
    among all of an image's values, and with ``out_max_val`` the values beside them. Places are
    float32; of equal values the last place comes first. No gradient.
    """

    def __init__(self, setup: LayerSetup) -> None:
        super().__init__(setup)
        settings, (bottom,) = self.param.argmax_param, setup.bottoms
        self._has_axis = settings.HasField("axis")
        self._axis = canonical_axis(bottom, settings.axis) if self._has_axis else 1

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute the top."""
        settings = self.param.argmax_param
        values = bottoms[0].detach() if self._has_axis else bottoms[0].detach().flatten(1)
        ranked, reversed_places = values.flip(self._axis).sort(
            dim=self._axis, descending=True, stable=True
        )
        places = values.shape[self._axis] - 1 - reversed_places
        best = ranked.narrow(self._axis, 0, settings.top_k)
        found = places.narrow(self._axis, 0, settings.top_k).float()
        if settings.out_max_val:
            found = best if self._has_axis else torch.stack((found, best), 1)
        return (found.reshape(self.setup.tops[0]),)


class BatchReindex(Layer):
    """The first bottom's images, picked by the second (`src/caffe/layers/batch_reindex_layer.cpp`).

    The second bottom holds an index per image of the top and gets no gradient.
    """

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute the top."""
        return (bottoms[0].index_select(0, bottoms[1].long()),)


class Parameter(Layer):
    """A blob to learn, as a top (`include/caffe/layers/parameter_layer.hpp`)."""

    keeps_top = True  # the top is the parameter itself
    overwrites = True

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the parameter."""
        return (params[0],)

    def backward(
        self,
        saved: Saved,
        top_diffs: Sequence[Tensor | None],
        propagate: Sequence[bool],
        param_diffs: Sequence[Tensor | None],
    ) -> list[Tensor | None]:
        """Write the gradient over those of earlier passes: in Caffe it is the top's own memory."""
        if param_diffs[0] is not None and top_diffs[0] is not None:
            param_diffs[0].copy_(top_diffs[0])
        return []


LAYERS: Mapping[str, type[Layer]] = {
    "ArgMax": ArgMax,
    "BatchReindex": BatchReindex,
    "Concat": Concat,
    "Crop": Crop,
    "Eltwise": Eltwise,
    "Flatten": Flatten,
    "Parameter": Parameter,
    "Reduction": Reduction,
    "Reshape": Reshape,
    "Silence": Silence,
    "Slice": Slice,
    "Split": Split,
    "Tile": Tile,
}
"""The layers of this module by Caffe's names of their types."""
