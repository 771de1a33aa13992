"""Convolutions of few, small images: as Caffe computes them, by columns and one product an image.

oneDNN, which convolves otherwise, takes longer to begin than such a convolution takes.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pycaffe_prune.engines.torch.layers.base import Layer, LayerSetup, Saved
from pycaffe_prune.engines.torch.layers.convolution import Convolution
from pycaffe_prune.engines.torch.layers.registry import make_layer
from pycaffe_prune.formats.axes import canonical_axis
from pycaffe_prune.net.shape_windows import convolution_window

__all__ = ["ByColumns", "layer_on"]

_FEW_VALUES = 1 << 16
"""Of all columns together; measured with LeNet's and SqueezeNet's convolutions."""
_WEIGHTS_A_VALUE = 8
"""From so many on, laying out the weights is what takes time."""

_forward: Callable[..., Tensor] = torch.ops.aten._slow_conv2d_forward.default
_backward: Callable[..., tuple[Tensor | None, ...]] = (
    torch.ops.aten._slow_conv2d_backward.output_mask
)


class ByColumns(Convolution):
    """A convolution over two axes, without groups and dilation, on a CPU."""

    def __init__(self, setup: LayerSetup) -> None:
        super().__init__(setup)
        window = convolution_window(setup.param.convolution_param, 2)
        self._lists = list(window.kernel), list(window.stride), list(window.pad)

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute one top per bottom; see `Layer.forward`."""
        weight, bias = (*params, None)[:2]
        kernel, stride, pad = self._lists
        return tuple(_forward(bottom, weight, kernel, bias, stride, pad) for bottom in bottoms)

    def forward_saving(
        self, bottoms: Sequence[Tensor], params: Sequence[Tensor]
    ) -> tuple[tuple[Tensor, ...], Saved]:
        """Compute the tops; keep the weight and the bottoms."""
        return self.forward(bottoms, params), (params[0], *bottoms)

    def _gradients(
        self, top_diff: Tensor, images: Tensor, weight: Tensor, mask: Sequence[bool]
    ) -> Sequence[Tensor | None]:
        values = top_diff.contiguous(), images.contiguous(), weight
        image_diff, *grads = _backward(*values, *self._lists, mask)
        return (image_diff if mask[0] else None, *grads)


def layer_on(device: torch.device, setup: LayerSetup) -> Layer:
    """Make a layer of a net that computes on a device.

    Raises:
        EngineError, SurgeryError: As `engines.torch.layers.registry.make_layer`.
    """
    by_columns = device.type == "cpu" and setup.param.type == "Convolution" and _suits(setup)
    return ByColumns(setup) if by_columns else make_layer(setup)


def _suits(setup: LayerSetup) -> bool:
    settings, bottom, top = setup.param.convolution_param, setup.bottoms[0], setup.tops[0]
    if len(bottom) != 4 or canonical_axis(bottom, settings.axis) != 1 or settings.group != 1:
        return False
    window = convolution_window(settings, 2)
    reaches = zip(bottom[2:], window.pad, window.reach, strict=True)
    if set(window.dilation) != {1} or any(size + 2 * pad < reach for size, pad, reach in reaches):
        return False
    patch = bottom[1] * math.prod(window.kernel)
    values = top[0] * patch * math.prod(top[2:])
    return 0 < values <= max(_FEW_VALUES, patch * top[1] // _WEIGHTS_A_VALUE)
