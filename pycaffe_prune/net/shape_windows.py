"""Shapes of the layers that slide a window: Convolution, Deconvolution, Im2col, Pooling."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.axes import Shape, canonical_axis, extents
from pycaffe_prune.formats.caffe_pb2 import (
    ConvolutionParameter,
    LayerParameter,
    PoolingParameter,
)

__all__ = [
    "Window",
    "convolution",
    "convolution_window",
    "deconvolution",
    "im2col",
    "pooling",
    "pooling_window",
]


@dataclass(frozen=True)
class Window:
    """How a convolution slides: one number per spatial axis each."""

    kernel: Shape
    stride: Shape
    pad: Shape
    dilation: Shape

    @property
    def reach(self) -> Shape:
        """The extent of the kernel with its holes."""
        return tuple(
            hole * (size - 1) + 1 for size, hole in zip(self.kernel, self.dilation, strict=True)
        )


def convolution(
    param: LayerParameter, bottoms: Sequence[Shape]
) -> tuple[list[Shape], tuple[Shape, ...]]:
    """Return the tops and the parameters (`conv_layer.cpp`): sizes are rounded down."""
    bottom, axis = _common(param.convolution_param, bottoms)
    window = convolution_window(param.convolution_param, len(bottom) - axis - 1)
    spatial = _places(bottom[axis + 1 :], window)
    settings = param.convolution_param
    weight = (settings.num_output, bottom[axis] // settings.group, *window.kernel)
    return _convolved(settings, bottoms, axis, spatial, weight)


def _places(spatial: Shape, window: Window) -> list[int]:
    """How many windows there are along each axis."""
    # C++ rounds towards zero: a kernel that hangs over by less than a stride still counts once.
    return [
        int((size + 2 * pad - reach) / stride) + 1
        for size, pad, reach, stride in zip(
            spatial, window.pad, window.reach, window.stride, strict=True
        )
    ]


def im2col(param: LayerParameter, bottoms: Sequence[Shape]) -> list[Shape]:
    """Return the top (`im2col_layer.cpp`): as many channels as the kernel reads values.

    Raises:
        SurgeryError: The window does not fit.
    """
    settings, (bottom,) = param.convolution_param, bottoms
    axis = canonical_axis(bottom, settings.axis)
    if axis == len(bottom) - 1:
        raise SurgeryError(
            f"needs a spatial axis after axis {settings.axis}; its bottom has shape "
            f"{extents(bottom)}"
        )
    window = convolution_window(settings, len(bottom) - axis - 1)
    places = _places(bottom[axis + 1 :], window)
    _require_places(places, window.kernel, bottom)
    return [(*bottom[:axis], bottom[axis] * math.prod(window.kernel), *places)]


def deconvolution(
    param: LayerParameter, bottoms: Sequence[Shape]
) -> tuple[list[Shape], tuple[Shape, ...]]:
    """Return the tops and the parameters (`deconv_layer.cpp`): inputs and outputs change places."""
    bottom, axis = _common(param.convolution_param, bottoms)
    window = convolution_window(param.convolution_param, len(bottom) - axis - 1)
    spatial = [
        stride * (size - 1) + reach - 2 * pad
        for size, pad, reach, stride in zip(
            bottom[axis + 1 :], window.pad, window.reach, window.stride, strict=True
        )
    ]
    settings = param.convolution_param
    weight = (bottom[axis], settings.num_output // settings.group, *window.kernel)
    return _convolved(settings, bottoms, axis, spatial, weight)


def _common(settings: ConvolutionParameter, bottoms: Sequence[Shape]) -> tuple[Shape, int]:
    """The bottoms' one shape and its channel axis, of a layer whose counts are sound."""
    bottom = bottoms[0]
    for other in bottoms[1:]:
        if other != bottom:
            raise SurgeryError(
                f"its bottoms have shapes {extents(bottom)} and {extents(other)}; "
                "they must be equal"
            )
    axis = canonical_axis(bottom, settings.axis)
    group, outputs = settings.group, settings.num_output
    if not outputs:
        raise SurgeryError("has no num_output; give it one above 0")
    if not group or bottom[axis] % group or outputs % group:
        raise SurgeryError(
            f"group {group} does not divide both its {bottom[axis]} input channels (bottom "
            f"{extents(bottom)}) and its num_output {outputs}"
        )
    return bottom, axis


def _convolved(
    settings: ConvolutionParameter,
    bottoms: Sequence[Shape],
    axis: int,
    spatial: Sequence[int],
    weight: Shape,
) -> tuple[list[Shape], tuple[Shape, ...]]:
    bottom = bottoms[0]
    _require_places(spatial, weight[2:], bottom)
    top = (*bottom[:axis], settings.num_output, *spatial)
    bias = ((settings.num_output,),) if settings.bias_term else ()
    return [top] * len(bottoms), (weight, *bias)


def _require_places(places: Sequence[int], kernel: Shape, bottom: Shape) -> None:
    if any(size < 1 for size in places):
        raise SurgeryError(
            f"its kernel {extents(kernel)} does not fit the bottom's shape {extents(bottom)}: "
            "nothing comes out; check kernel_size, dilation, pad, and the input's size"
        )


def convolution_window(settings: ConvolutionParameter, axes: int) -> Window:
    """The window as `base_conv_layer.cpp` (LayerSetUp) reads it."""
    if settings.HasField("kernel_h") or settings.HasField("kernel_w"):
        kernel = _pair("kernel", settings.kernel_h, settings.kernel_w, axes)
    else:
        kernel = _per_axis("kernel_size", settings.kernel_size, axes, None)
    if settings.HasField("stride_h") or settings.HasField("stride_w"):
        stride = _pair("stride", settings.stride_h, settings.stride_w, axes)
    else:
        stride = _per_axis("stride", settings.stride, axes, 1)
    if settings.HasField("pad_h") or settings.HasField("pad_w"):
        pad = _pair("pad", settings.pad_h, settings.pad_w, axes)
    else:
        pad = _per_axis("pad", settings.pad, axes, 0)
    dilation = _per_axis("dilation", settings.dilation, axes, 1)
    for name, values in (("kernel", kernel), ("stride", stride), ("dilation", dilation)):
        if 0 in values:
            raise SurgeryError(f"its {name} {extents(values)} must not be 0")
    return Window(kernel, stride, pad, dilation)


def _pair(name: str, height: int, width: int, axes: int) -> Shape:
    if axes != 2:
        raise SurgeryError(f"{name}_h and {name}_w need 2 spatial axes; its bottom has {axes}")
    return (height, width)


def _per_axis(name: str, values: Sequence[int], axes: int, default: int | None) -> Shape:
    if len(values) == 1:
        return (values[0],) * axes
    if not values and default is not None:
        return (default,) * axes
    if not axes and not values:
        return ()
    if not values or len(values) != axes:
        raise SurgeryError(f"has {len(values)} values of {name} for {axes} spatial axes")
    return tuple(values)


def pooling(param: LayerParameter, bottom: Shape) -> Shape:
    """Return the top (`pooling_layer.cpp`): rounded up, windows that begin in the padding cut."""
    settings = param.pooling_param
    if len(bottom) != 4:
        raise SurgeryError(f"pools 4 axes (N x C x H x W); its bottom has shape {extents(bottom)}")
    if settings.global_pooling:
        return (*bottom[:2], 1, 1)
    kernel, stride, pad = pooling_window(settings)
    floor = settings.round_mode == PoolingParameter.FLOOR
    spatial = []
    for size, reach, step, edge in zip(bottom[2:], kernel, stride, pad, strict=True):
        span = size + 2 * edge - reach
        pooled = (span // step if floor else -(-span // step)) + 1
        # Caffe looks at both axes as soon as one of them is padded.
        if any(pad) and (pooled - 1) * step >= size + edge:
            pooled -= 1
        spatial.append(pooled)
    if any(size < 1 for size in spatial):
        raise SurgeryError(
            f"its kernel {extents(kernel)} does not fit the bottom's shape {extents(bottom)}: "
            "nothing comes out; check kernel_size, pad, and the input's size"
        )
    return (*bottom[:2], *spatial)


def pooling_window(settings: PoolingParameter) -> tuple[Shape, Shape, Shape]:
    """Kernel, stride and pad, (height, width) each, as `pooling_layer.cpp` reads them."""
    if settings.HasField("kernel_size"):
        kernel = (settings.kernel_size, settings.kernel_size)
    else:
        kernel = (settings.kernel_h, settings.kernel_w)
    if settings.HasField("stride_h"):
        stride = (settings.stride_h, settings.stride_w)
    else:
        stride = (settings.stride, settings.stride)
    if settings.HasField("pad_h"):
        pad = (settings.pad_h, settings.pad_w)
    else:
        pad = (settings.pad, settings.pad)
    if 0 in kernel or 0 in stride:
        raise SurgeryError(
            f"its kernel {extents(kernel)} and stride {extents(stride)} must not be 0"
        )
    if any(edge >= size for edge, size in zip(pad, kernel, strict=True)):
        raise SurgeryError(
            f"its pad {extents(pad)} must be smaller than its kernel {extents(kernel)}"
        )
    return kernel, stride, pad
