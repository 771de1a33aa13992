"""Windows laid out as columns: Im2col, and convolutions over numbers of axes that PyTorch has not.

Caffe convolves so over any number of axes (`im2col_nd_cpu` of `src/caffe/util/im2col.cpp`).
"""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from pycaffe_prune.engines.torch.layers.base import Layer, LayerSetup
from pycaffe_prune.formats.axes import Shape, canonical_axis
from pycaffe_prune.net.shape_windows import Window, convolution_window

__all__ = ["LAYERS", "ConvolutionByColumns", "DeconvolutionByColumns", "Im2col", "overhang"]


def overhang(spatial: Shape, window: Window) -> list[int]:
    """Return how far the kernel hangs over the end of each padded axis.

    C++ rounds towards zero: a kernel that hangs over by less than a stride still counts once.
    """
    return [
        max(0, reach - size - 2 * pad)
        for size, pad, reach in zip(spatial, window.pad, window.reach, strict=True)
    ]


def _columns(images: Tensor, window: Window) -> Tensor:
    """Lay out all windows.

    Args:
        images: batch x channels x the spatial axes.
        window: One number for each of these.

    Returns:
        batch x channels x kernel x places, with as many axes of each as there are spatial ones.
    """
    axes = len(window.kernel)
    over = overhang(tuple(images.shape[2:]), window)
    ends = [
        extent
        for pad, more in reversed(list(zip(window.pad, over, strict=True)))
        for extent in (pad, pad + more)
    ]
    found = functional.pad(images, ends) if any(ends) else images
    for number in range(axes):
        axis = 2 + 2 * number
        count = (found.shape[axis] - window.reach[number]) // window.stride[number] + 1
        inside = torch.arange(window.kernel[number], device=images.device)[:, None]
        begins = torch.arange(count, device=images.device) * window.stride[number]
        # Not `Tensor.unfold`, whose gradient vmap computes one by one.
        read = (inside * window.dilation[number] + begins).flatten()
        found = torch.unflatten(
            found.index_select(axis, read), axis, [window.kernel[number], count]
        )
    kernel, places = range(2, 2 + 2 * axes, 2), range(3, 3 + 2 * axes, 2)
    return found.permute(0, 1, *kernel, *places)


def _convolved(images: Tensor, weight: Tensor, window: Window, group: int) -> Tensor:
    """Convolve batch x channels x spatial axes with outputs x channels/group x kernel."""
    columns = _columns(images, window)
    places = columns.shape[2 + len(window.kernel) :]
    inputs = math.prod(weight.shape[1:])
    rows = weight.reshape(group, -1, inputs)
    tops = torch.matmul(rows, columns.reshape(len(images), group, inputs, math.prod(places)))
    return tops.reshape(len(images), -1, *places)


class _ByColumns(Layer):
    """What convolutions of both directions have in common (`base_conv_layer.cpp`)."""

    def __init__(self, setup: LayerSetup) -> None:
        super().__init__(setup)
        settings, bottom = setup.param.convolution_param, setup.bottoms[0]
        axis = canonical_axis(bottom, settings.axis)
        self._images, self._group = (-1, *bottom[axis:]), settings.group
        self._window = convolution_window(settings, len(bottom) - axis - 1)

    @abstractmethod
    def _one(self, images: Tensor, weight: Tensor) -> Tensor:
        """Return the top of one bottom, without the bias."""

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute one top per bottom; see `Layer.forward`."""
        tops = [self._one(bottom.reshape(self._images), params[0]) for bottom in bottoms]
        if len(params) > 1:
            bias = params[1].reshape(-1, *(1 for _ in self._window.kernel))
            tops = [top + bias for top in tops]
        return tuple(top.reshape(self.setup.tops[0]) for top in tops)


class ConvolutionByColumns(_ByColumns):
    """Convolution over any number of axes, also none (`src/caffe/layers/conv_layer.cpp`)."""

    def _one(self, images: Tensor, weight: Tensor) -> Tensor:
        return _convolved(images, weight, self._window, self._group)


class DeconvolutionByColumns(_ByColumns):
    """Deconvolution over any number of axes, also none (`src/caffe/layers/deconv_layer.cpp`).

    A convolution of the bottom, with zeros between its values, with the kernel turned round.
    """

    def _one(self, images: Tensor, weight: Tensor) -> Tensor:
        window, axes = self._window, len(self._window.kernel)
        for axis in range(axes):
            images = self._stuffed(images, axis)
        inputs, outputs, *kernel = weight.shape
        group = self._group
        turned = weight.reshape(group, inputs // group, outputs, *kernel).transpose(1, 2)
        turned = turned.reshape(group * outputs, inputs // group, *kernel)
        plain = Window(window.kernel, (1,) * axes, (0,) * axes, window.dilation)
        return _convolved(images, turned.flip(list(range(2, 2 + axes))), plain, group)

    def _stuffed(self, images: Tensor, axis: int) -> Tensor:
        """Put zeros between and around the values of a spatial axis."""
        stride, place = self._window.stride[axis], 2 + axis
        around = self._window.reach[axis] - 1 - self._window.pad[axis]
        last = images.movedim(place, -1)
        apart = functional.pad(last[..., None], (0, stride - 1)).flatten(-2)
        return functional.pad(apart, (around, around - stride + 1)).movedim(-1, place)


class Im2col(Layer):
    """Each window as a column (`src/caffe/layers/im2col_layer.cpp`).

    Bottom: channels on ``axis``, spatial axes after it. Top: a channel for each channel and place
    of the kernel, at each place of the windows.
    """

    def __init__(self, setup: LayerSetup) -> None:
        super().__init__(setup)
        settings, bottom = setup.param.convolution_param, setup.bottoms[0]
        axis = canonical_axis(bottom, settings.axis)
        self._images = (-1, *bottom[axis:])
        self._window = convolution_window(settings, len(bottom) - axis - 1)

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute the top."""
        columns = _columns(bottoms[0].reshape(self._images), self._window)
        return (columns.reshape(self.setup.tops[0]),)


LAYERS: Mapping[str, type[Layer]] = {"Im2col": Im2col}
