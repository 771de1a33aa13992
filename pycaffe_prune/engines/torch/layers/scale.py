"""Layers that scale or shift along some axes: Scale, Bias and PReLU."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from pycaffe_prune.engines.torch.layers.base import Layer, LayerSetup, Saved
from pycaffe_prune.formats.axes import Shape, canonical_axis

__all__ = ["LAYERS", "Bias", "PReLU", "Scale"]


class _Covering:
    """How a tensor covers some axes in a row of a bottom, the same along all the others."""

    def __init__(self, bottom: Shape, axis: int, covered: Shape) -> None:
        # A tensor of no axes fits anywhere, whatever the axis.
        first = canonical_axis(bottom, axis) if covered else 0
        last = first + len(covered)
        self._spread = ((1,) * first) + covered + (1,) * (len(bottom) - last)
        self._covered = covered
        self._others = [*range(first), *range(last, len(bottom))]

    def spread(self, tensor: Tensor) -> Tensor:
        """Give the tensor the axes of the bottom, so that it broadcasts."""
        return tensor.reshape(self._spread)

    def gathered(self, tensor: Tensor) -> Tensor:
        """Sum a tensor of the bottom's shape over the axes that are not covered."""
        if not self._others:
            return tensor
        return tensor.sum(self._others).reshape(self._covered)


class Scale(Layer):
    """x·scale (+ bias) (`src/caffe/layers/scale_layer.cpp`).

    The scale is the first parameter, or the second bottom; it covers the bottom's axes from
    ``axis`` on, and so does the bias, the last parameter. Where it covers all axes but the last
    ones (a batch of one image, say), the scale's gradient of one pass takes the place of those
    before it in an iteration, as in Caffe; the bias's add up.
    """

    def __init__(self, setup: LayerSetup) -> None:
        super().__init__(setup)
        settings = setup.param.scale_param
        self._given = len(setup.bottoms) > 1
        bottom = setup.bottoms[0]
        covered = (
            setup.bottoms[1]
            if self._given
            else _own_shape(bottom, settings.axis, settings.num_axes)
        )
        self._covering = _Covering(bottom, settings.axis, covered)
        self._biased = settings.bias_term
        self.overwrites = not self._given and _overwrites(bottom, settings.axis, covered)

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute the top; see `Layer.forward`."""
        scale = self._covering.spread(bottoms[1] if self._given else params[0])
        if not self._biased:
            return (bottoms[0] * scale,)
        return (torch.addcmul(self._covering.spread(params[-1]), bottoms[0], scale),)

    def forward_saving(
        self, bottoms: Sequence[Tensor], params: Sequence[Tensor]
    ) -> tuple[tuple[Tensor, ...], Saved]:
        """Compute the top; keep the bottom and the scale."""
        return self.forward(bottoms, params), (
            bottoms[0],
            bottoms[1] if self._given else params[0],
        )

    def backward(
        self,
        saved: Saved,
        top_diffs: Sequence[Tensor | None],
        propagate: Sequence[bool],
        param_diffs: Sequence[Tensor | None],
    ) -> list[Tensor | None]:
        """Return the bottoms' gradients, add those of scale and bias; see `Layer.backward`."""
        diff, (bottom, scale) = top_diffs[0], saved
        if diff is None:
            return [None] * len(propagate)
        if self._biased and (bias_diff := param_diffs[-1]) is not None:
            bias_diff.add_(self._covering.gathered(diff))
        wanted = propagate[1] if self._given else param_diffs[0] is not None
        scale_diff = self._covering.gathered(diff * bottom) if wanted else None
        bottom_diff = diff * self._covering.spread(scale) if propagate[0] else None
        if self._given:
            return [bottom_diff, scale_diff]
        if scale_diff is not None and (target := param_diffs[0]) is not None:
            (target.copy_ if self.overwrites else target.add_)(scale_diff)
        return [bottom_diff]


class Bias(Layer):
    """X + bias (`src/caffe/layers/bias_layer.cpp`), the parameter or the second bottom."""

    def __init__(self, setup: LayerSetup) -> None:
        super().__init__(setup)
        settings, bottom = setup.param.bias_param, setup.bottoms[0]
        covered = (
            setup.bottoms[1]
            if len(setup.bottoms) > 1
            else _own_shape(bottom, settings.axis, settings.num_axes)
        )
        self._covering = _Covering(bottom, settings.axis, covered)

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute the top; see `Layer.forward`."""
        bottom, bias = (*bottoms, *params)
        return (bottom + self._covering.spread(bias),)


class PReLU(Layer):
    """max(x, 0) + slope·min(x, 0) (`src/caffe/layers/prelu_layer.cpp`).

    One slope per channel, or with ``channel_shared`` one. At 0 the gradient is that of the negative
    side.
    """

    def __init__(self, setup: LayerSetup) -> None:
        super().__init__(setup)
        bottom = setup.bottoms[0]
        covered = () if setup.param.prelu_param.channel_shared else bottom[1:2]
        self._covering = _Covering(bottom, 1, covered)

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute the top; see `Layer.forward`."""
        bottom = bottoms[0]
        return (torch.where(bottom > 0, bottom, bottom * self._covering.spread(params[0])),)


def _overwrites(bottom: Shape, axis: int, covered: Shape) -> bool:
    """Whether `ScaleLayer::Backward_cpu` writes the scale's gradient where others add theirs."""
    values = math.prod(covered)
    before = math.prod(bottom[: canonical_axis(bottom, axis)]) if covered else 1
    return math.prod(bottom) == values or (before == 1 and values != 1)


def _own_shape(bottom: Shape, axis: int, axes: int) -> Shape:
    """The shape of a parameter that covers ``axes`` axes, -1 for all that are left."""
    first = canonical_axis(bottom, axis)
    return bottom[first:] if axes == -1 else bottom[first : first + axes]


LAYERS: Mapping[str, Callable[[LayerSetup], Layer]] = {"Bias": Bias, "PReLU": PReLU, "Scale": Scale}
