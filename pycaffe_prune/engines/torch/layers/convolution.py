"""Layers that convolve: Convolution and Deconvolution."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from pycaffe_prune.engines.torch.layers.base import Layer, LayerSetup, Saved
from pycaffe_prune.engines.torch.layers.columns import (
    ConvolutionByColumns,
    DeconvolutionByColumns,
    overhang,
)
from pycaffe_prune.formats.axes import canonical_axis
from pycaffe_prune.net.shape_windows import convolution_window

__all__ = ["LAYERS", "Convolution", "Deconvolution", "convolution", "deconvolution"]

# The operator behind autograd's own backward pass: it leaves out what is not asked for.
_convolution_backward: Callable[..., tuple[Tensor | None, Tensor | None, Tensor | None]] = (
    torch.ops.aten.convolution_backward.default
)


class _Convolving(Layer):
    """What both have in common (`src/caffe/layers/base_conv_layer.cpp`).

    Any number of bottoms of one shape, each with its top; the axes before ``axis`` are the batch,
    those after it are spatial: 1 to 3, over which PyTorch convolves by itself.
    """

    _transposed: bool

    def __init__(self, setup: LayerSetup) -> None:
        super().__init__(setup)
        settings, bottom = setup.param.convolution_param, setup.bottoms[0]
        axis = canonical_axis(bottom, settings.axis)
        self._spatial = bottom[axis + 1 :]
        self._window = convolution_window(settings, len(self._spatial))
        self._outputs, self._images = settings.num_output, (-1, *bottom[axis:])
        window, none = self._window, [0] * len(self._spatial)
        lists = list(window.stride), list(window.pad), list(window.dilation)
        # What torch's convolutions take after weight and bias.
        self._geometry = (*lists, self._transposed, none, settings.group)
        self._overhang = self._hanging_over()
        # With channels last, oneDNN reads beyond the end of one channel under some strides (seen
        # in torch 2.13 where the top is one value wide).
        strided = bottom[axis] == 1 and any(stride > 1 for stride in window.stride)
        self._channels_last = len(self._spatial) == 2 and not strided

    def _hanging_over(self) -> list[int]:
        """How far the kernel hangs over the end of each padded axis."""
        return [0] * len(self._spatial)

    def _arranged(self, weight: Tensor) -> Tensor:
        """The weight as the device convolves fastest, with the same values.

        On a CPU: channels last in memory, which the tops then are, too. Up to 1.7 times as fast
        for convolutions and 9 times for the pooling behind them. `Tensor.to` could do it as well,
        but not under `torch.func.vmap`.
        """
        if weight.device.type != "cpu" or not self._channels_last:
            return weight
        return (
            weight.permute(0, 2, 3, 1)
            .clone(memory_format=torch.contiguous_format)
            .permute(0, 3, 1, 2)
        )

    def _image_batch(self, bottom: Tensor) -> Tensor:
        images = bottom.reshape(self._images)
        if any(self._overhang):
            last_axis_first = [pad for end in reversed(self._overhang) for pad in (0, end)]
            images = functional.pad(images, last_axis_first)
        return images

    def _convolved(self, images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        top = torch.convolution(images, weight, bias, *self._geometry)
        return top.reshape(self.setup.tops[0])

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute one top per bottom; see `Layer.forward`."""
        weight, bias = self._arranged(params[0]), (*params, None)[1]
        return tuple(self._convolved(self._image_batch(bottom), weight, bias) for bottom in bottoms)

    def forward_saving(
        self, bottoms: Sequence[Tensor], params: Sequence[Tensor]
    ) -> tuple[tuple[Tensor, ...], Saved]:
        """Compute the tops; keep the weight and the bottoms."""
        weight, bias = self._arranged(params[0]), (*params, None)[1]
        batches = [self._image_batch(bottom) for bottom in bottoms]
        tops = tuple(self._convolved(images, weight, bias) for images in batches)
        return tops, (weight, *batches)

    def backward(
        self,
        saved: Saved,
        top_diffs: Sequence[Tensor | None],
        propagate: Sequence[bool],
        param_diffs: Sequence[Tensor | None],
    ) -> list[Tensor | None]:
        """Return the bottoms' gradients, add those of weight and bias; see `Layer.backward`."""
        weight, *batches = saved
        targets = (*param_diffs, None)[:2]
        found: list[Tensor | None] = []
        for images, top_diff, wanted in zip(batches, top_diffs, propagate, strict=True):
            mask = [wanted, *(target is not None for target in targets)]
            if top_diff is None or not any(mask):
                found.append(None)
                continue
            image_diff, *grads = self._gradients(top_diff, images, weight, mask)
            for target, grad in zip(targets, grads, strict=True):
                if target is not None and grad is not None:
                    target.add_(grad)
            found.append(None if image_diff is None else self._bottom_diff(image_diff))
        return found

    def _gradients(
        self, top_diff: Tensor, images: Tensor, weight: Tensor, mask: Sequence[bool]
    ) -> Sequence[Tensor | None]:
        """The gradients of images, weight and bias, None where the mask wants none."""
        return _convolution_backward(
            top_diff.reshape(-1, *self.setup.tops[0][-len(self._spatial) - 1 :]),
            images,
            weight,
            [self._outputs],
            *self._geometry,
            mask,
        )

    def _bottom_diff(self, image_diff: Tensor) -> Tensor:
        for axis, size in enumerate(self._spatial, start=2):
            image_diff = image_diff.narrow(axis, 0, size)  # without the overhang
        return image_diff.reshape(self.setup.bottoms[0])


class Convolution(_Convolving):
    """Convolution (`src/caffe/layers/conv_layer.cpp`); output sizes are rounded towards zero.

    The weight is num_output x channels/group x kernel.
    """

    _transposed = False

    def _hanging_over(self) -> list[int]:
        return overhang(self._spatial, self._window)


class Deconvolution(_Convolving):
    """The transpose of a convolution (`src/caffe/layers/deconv_layer.cpp`).

    The weight is channels x num_output/group x kernel.
    """

    _transposed = True


def _is_torchs(setup: LayerSetup) -> bool:
    """Whether PyTorch convolves over this number of axes."""
    bottom = setup.bottoms[0]
    return 1 <= len(bottom) - canonical_axis(bottom, setup.param.convolution_param.axis) - 1 <= 3


def convolution(setup: LayerSetup) -> Layer:
    """Make a Convolution layer for the axes of its bottom."""
    return Convolution(setup) if _is_torchs(setup) else ConvolutionByColumns(setup)


def deconvolution(setup: LayerSetup) -> Layer:
    """Make a Deconvolution layer for the axes of its bottom."""
    return Deconvolution(setup) if _is_torchs(setup) else DeconvolutionByColumns(setup)


LAYERS: Mapping[str, Callable[[LayerSetup], Layer]] = {
    "Convolution": convolution,
    "Deconvolution": deconvolution,
}
