"""Convolution, Deconvolution and Pooling in ONNX, with Caffe's own borders.

ONNX's ceil_mode and count_include_pad leave room for interpretation at the borders; explicit pads
computed from Caffe's shapes, and a division by what Caffe divides by, do not.
"""

from itertools import product

import numpy as np

from pycaffe_prune.convert.onnx_graph import Context
from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import PoolingParameter
from pycaffe_prune.net import shape_windows
from pycaffe_prune.net.shapes import Shape, extents

__all__ = ["average_pool", "convolution", "deconvolution", "pooling"]


def convolution(context: Context) -> None:
    """Convolution (`base_conv_layer.cpp`): the same on every bottom."""
    settings = context.layer.convolution_param
    bottom, weight = context.bottom, context.blobs[0]
    _require_channel_axis(context)
    window = shape_windows.convolution_window(settings, len(bottom) - 2)
    missing = [
        # Caffe's division rounds towards zero: a kernel that hangs over still counts once.
        max(0, reach - size - 2 * pad)
        for size, pad, reach in zip(bottom[2:], window.pad, window.reach, strict=True)
    ]
    ends = [pad + more for pad, more in zip(window.pad, missing, strict=True)]
    parameters = [context.blob(index) for index in range(2 if settings.bias_term else 1)]
    for source, target in zip(context.inputs, context.outputs, strict=True):
        context.graph.node(
            "Conv",
            [source, *parameters],
            [target],
            kernel_shape=weight.shape[2:],
            strides=window.stride,
            pads=[*window.pad, *ends],
            dilations=window.dilation,
            group=settings.group,
        )


def deconvolution(context: Context) -> None:
    """Deconvolution (`deconv_layer.cpp`); ConvTranspose has its weights in the same order."""
    settings = context.layer.convolution_param
    _require_channel_axis(context)
    window = shape_windows.convolution_window(settings, len(context.bottom) - 2)
    parameters = [context.blob(index) for index in range(2 if settings.bias_term else 1)]
    for source, target in zip(context.inputs, context.outputs, strict=True):
        context.graph.node(
            "ConvTranspose",
            [source, *parameters],
            [target],
            kernel_shape=context.blobs[0].shape[2:],
            strides=window.stride,
            pads=[*window.pad, *window.pad],
            dilations=window.dilation,
            group=settings.group,
        )


def _require_channel_axis(context: Context) -> None:
    axis = context.layer.convolution_param.axis
    if axis % len(context.bottom) != 1:
        raise SurgeryError(
            f"layer '{context.layer.name}' ({context.layer.type}): its channels are in axis {axis} "
            f"of {extents(context.bottom)}; ONNX has them in axis 1"
        )


def pooling(context: Context) -> None:
    """Pooling (`pooling_layer.cpp`), MAX and AVE."""
    settings = context.layer.pooling_param
    if len(context.outputs) > 1:
        raise SurgeryError(
            f"layer '{context.layer.name}' (Pooling) has a second top (the mask), which has no "
            "ONNX form here; take it out of the net first"
        )
    is_max = settings.pool == PoolingParameter.MAX
    if settings.global_pooling:
        context.finish("GlobalMaxPool" if is_max else "GlobalAveragePool", context.inputs[0])
        return
    kernel, stride, pad = shape_windows.pooling_window(settings)
    if not is_max:
        _finish_average(context, context.inputs[0], kernel, stride, pad)
        return
    context.finish(
        "MaxPool",
        context.inputs[0],
        kernel_shape=kernel,
        strides=stride,
        pads=[*pad, *_ends(context, kernel, stride, pad)],
    )


def average_pool(context: Context, value: str, size: int) -> str:
    """Average over a square window of odd ``size`` centred on each value, as AVE pooling does."""
    kernel, pad = (size, size), (size // 2, size // 2)
    pooled = context.then(
        "AveragePool",
        value,
        kernel_shape=kernel,
        pads=[*pad, *pad],
        strides=(1, 1),
        count_include_pad=1,
    )
    correction = _correction(context.bottom[2:], context.bottom[2:], kernel, (1, 1), pad)
    if correction is None:
        return pooled
    return context.then("Mul", pooled, context.graph.constant(f"{pooled}/share", correction))


def _finish_average(context: Context, value: str, kernel: Shape, stride: Shape, pad: Shape) -> None:
    ends = _ends(context, kernel, stride, pad)
    attributes = {
        "kernel_shape": kernel,
        "strides": stride,
        "pads": [*pad, *ends],
        "count_include_pad": 1,
    }
    correction = _correction(context.bottom[2:], context.top[2:], kernel, stride, pad)
    if correction is None:
        context.finish("AveragePool", value, **attributes)
        return
    pooled = context.then("AveragePool", value, **attributes)
    share = context.graph.constant(f"{context.layer.name}/share", correction)
    context.finish("Mul", pooled, share)


def _ends(context: Context, kernel: Shape, stride: Shape, pad: Shape) -> list[int]:
    """Padding after the last value, so that ONNX, rounding down, makes as many windows as Caffe."""
    ends = []
    for size, pooled, reach, step, edge in zip(
        context.bottom[2:], context.top[2:], kernel, stride, pad, strict=True
    ):
        last = (pooled - 1) * step - edge
        if last >= size:
            raise SurgeryError(
                f"layer '{context.layer.name}' (Pooling): its last window begins outside its "
                f"bottom ({extents(context.bottom)}), where Caffe makes values of no meaning; "
                "lower its stride, or crop its bottom"
            )
        ends.append(max(0, last + reach - size))
    return ends


def _correction(
    bottom: Shape, top: Shape, kernel: Shape, stride: Shape, pad: Shape
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]] | None:
    """Kernel area over the area that Caffe divides by, 1x1xHxW; None where it is 1 everywhere.

    Caffe counts padding, but no further than one pad beyond the last value.
    """
    counted = []
    for size, pooled, reach, step, edge in zip(bottom, top, kernel, stride, pad, strict=True):
        starts = np.arange(pooled) * step - edge
        counted.append(np.minimum(starts + reach, size + edge) - starts)
    areas = np.array([rows * columns for rows, columns in product(*counted)], np.float64)
    shares = (kernel[0] * kernel[1] / areas).astype(np.float32).reshape(1, 1, *top)
    return None if (shares == 1).all() else shares
