"""One rule per layer type: the ONNX nodes that compute what Caffe's layer computes in TEST."""

import math
from collections.abc import Callable, Mapping

import numpy as np

from pycaffe_prune.convert import onnx_windows
from pycaffe_prune.convert.onnx_graph import Context
from pycaffe_prune.formats.axes import canonical_axis
from pycaffe_prune.formats.caffe_pb2 import EltwiseParameter, LRNParameter
from pycaffe_prune.net.shapes import Shape

__all__ = ["RULES"]

Rule = Callable[[Context], None]


def _inner_product(context: Context) -> None:
    settings, bottom = context.layer.inner_product_param, context.bottom
    axis = canonical_axis(bottom, settings.axis)
    value = context.inputs[0]
    columns = math.prod(bottom[axis:])
    if axis == 1 and len(bottom) > 2:
        value = context.then("Flatten", value, axis=1)
    elif axis != 1:
        value = context.then("Reshape", value, context.integers([-1, columns]))
    bias = [context.blob(1)] if settings.bias_term else []
    inputs = (value, context.blob(0), *bias)
    transposed = 0 if settings.transpose else 1
    if axis == 1:
        context.finish("Gemm", *inputs, transB=transposed)
        return
    scores = context.then("Gemm", *inputs, transB=transposed)
    context.finish("Reshape", scores, context.integers([-1, *context.top[1:]]))


def _lrn(context: Context) -> None:
    settings, value = context.layer.lrn_param, context.inputs[0]
    if settings.norm_region == LRNParameter.ACROSS_CHANNELS:
        # ONNX divides alpha by the window's size too (lrn_layer.cpp, CrossChannelForward).
        context.finish(
            "LRN",
            value,
            size=settings.local_size,
            alpha=settings.alpha,
            beta=settings.beta,
            bias=settings.k,
        )
        return
    # WithinChannelForward: x * (1 + alpha * mean of x^2 over the window)^-beta, whatever k is.
    mean = onnx_windows.average_pool(
        context, context.then("Mul", value, value), settings.local_size
    )
    scaled = context.then("Mul", mean, context.scalar(settings.alpha))
    base = context.then("Add", scaled, context.scalar(1))
    factor = context.then("Pow", base, context.scalar(-settings.beta))
    context.finish("Mul", value, factor)


def _relu(context: Context) -> None:
    slope = context.layer.relu_param.negative_slope
    if slope:
        context.finish("LeakyRelu", *context.inputs, alpha=slope)
    else:
        context.finish("Relu", *context.inputs)


def _prelu(context: Context) -> None:
    trailing = (1,) * (len(context.bottom) - 2)
    shared = context.layer.prelu_param.channel_shared
    slope = context.blob(0, (1,) if shared else (context.bottom[1], *trailing))
    context.finish("PRelu", context.inputs[0], slope)


def _elu(context: Context) -> None:
    context.finish("Elu", *context.inputs, alpha=context.layer.elu_param.alpha)


def _plain(op: str) -> Rule:
    """The rule of a layer that ONNX has under another name, without settings."""

    def rule(context: Context) -> None:
        context.finish(op, *context.inputs)

    return rule


def _swish(context: Context) -> None:
    scaled = _affine(context, context.inputs[0], context.layer.swish_param.beta, 0)
    context.finish("Mul", context.inputs[0], context.then("Sigmoid", scaled))


def _affine(context: Context, value: str, scale: float, shift: float) -> str:
    if scale != 1:
        value = context.then("Mul", value, context.scalar(scale))
    if shift:
        value = context.then("Add", value, context.scalar(shift))
    return value


def _power(context: Context) -> None:
    settings = context.layer.power_param
    inner = _affine(context, context.inputs[0], settings.scale, settings.shift)
    if settings.power == 1:
        context.finish("Identity", inner)
    else:
        context.finish("Pow", inner, context.scalar(settings.power))


def _exp(context: Context) -> None:
    settings = context.layer.exp_param
    natural = 1.0 if settings.base == -1 else math.log(settings.base)
    inner = _affine(context, context.inputs[0], natural * settings.scale, natural * settings.shift)
    context.finish("Exp", inner)


def _log(context: Context) -> None:
    settings = context.layer.log_param
    inner = _affine(context, context.inputs[0], settings.scale, settings.shift)
    if settings.base == -1:
        context.finish("Log", inner)
    else:
        natural = context.then("Log", inner)
        context.finish("Mul", natural, context.scalar(1 / math.log(settings.base)))


def _clip(context: Context) -> None:
    settings = context.layer.clip_param
    bounds = (context.scalar(settings.min), context.scalar(settings.max))
    context.finish("Clip", context.inputs[0], *bounds)


def _threshold(context: Context) -> None:
    limit = context.scalar(context.layer.threshold_param.threshold)
    above = context.then("Greater", context.inputs[0], limit)
    context.finish("Cast", above, to=1)  # TensorProto.FLOAT


def _batch_norm(context: Context) -> None:
    settings = context.layer.batch_norm_param
    mean, variance, factor = context.blobs[:3]
    # batch_norm_layer.cpp: the sums are divided by the third blob; a factor of 0 makes them 0.
    share = np.float32(1 / factor.item()) if factor.item() else np.float32(0)
    name, ones = context.layer.name, np.ones_like(mean)
    constant = context.graph.constant
    context.finish(
        "BatchNormalization",
        context.inputs[0],
        constant(f"{name}/scale", ones),
        constant(f"{name}/shift", 0 * ones),
        constant(f"{name}/mean", mean * share),
        constant(f"{name}/variance", variance * share),
        epsilon=settings.eps,
    )


def _aligned(bottom: Shape, axis: int, part: Shape) -> Shape:
    """``part``, which stands for the axes of ``bottom`` from ``axis`` on, so that it broadcasts."""
    if not part:
        return ()
    start = canonical_axis(bottom, axis)
    return (*part, *(1,) * (len(bottom) - start - len(part)))


def _second(context: Context, axis: int) -> str:
    """The second bottom of Scale or Bias, so that it broadcasts against the first."""
    part = context.shapes.bottoms[1] or ()
    wanted = _aligned(context.bottom, axis, part)
    if wanted == part:
        return context.inputs[1]
    return context.reshaped(context.inputs[1], part, wanted)


def _scale(context: Context) -> None:
    settings, value = context.layer.scale_param, context.inputs[0]
    own = len(context.inputs) == 1
    axis = settings.axis
    if own:
        factor = context.blob(0, _aligned(context.bottom, axis, context.blobs[0].shape))
    else:
        factor = _second(context, axis)
    if not settings.bias_term:
        context.finish("Mul", value, factor)
        return
    bias = context.blobs[1 if own else 0]
    shift = context.blob(1 if own else 0, _aligned(context.bottom, axis, bias.shape))
    context.finish("Add", context.then("Mul", value, factor), shift)


def _bias(context: Context) -> None:
    axis = context.layer.bias_param.axis
    if len(context.inputs) == 1:
        shift = context.blob(0, _aligned(context.bottom, axis, context.blobs[0].shape))
    else:
        shift = _second(context, axis)
    context.finish("Add", context.inputs[0], shift)


def _eltwise(context: Context) -> None:
    settings, values = context.layer.eltwise_param, list(context.inputs)
    if settings.operation == EltwiseParameter.MAX:
        context.finish("Max", *values)
    elif settings.operation == EltwiseParameter.PROD:
        product = values[0]
        for value in values[1:-1]:
            product = context.then("Mul", product, value)
        context.finish("Mul", product, values[-1])
    else:
        factors = settings.coeff or [1.0] * len(values)
        scaled = [
            _affine(context, value, factor, 0)
            for value, factor in zip(values, factors, strict=True)
        ]
        context.finish("Sum", *scaled)


def _concat(context: Context) -> None:
    settings = context.layer.concat_param
    axis = settings.concat_dim if settings.HasField("concat_dim") else settings.axis
    context.finish("Concat", *context.inputs, axis=canonical_axis(context.bottom, axis))


def _slice(context: Context) -> None:
    settings = context.layer.slice_param
    axis = settings.slice_dim if settings.HasField("slice_dim") else settings.axis
    axis = canonical_axis(context.bottom, axis)
    counts = [shape[axis] for shape in context.shapes.tops if shape is not None]
    context.graph.node(
        "Split", [context.inputs[0], context.integers(counts)], context.outputs, axis=axis
    )


def _flatten(context: Context) -> None:
    if len(context.top) == 2 and context.top[0] == context.bottom[0]:
        context.finish("Flatten", context.inputs[0], axis=1)
    else:
        context.finish_reshaped(context.inputs[0], context.bottom, context.top)


def _reshape(context: Context) -> None:
    context.finish_reshaped(context.inputs[0], context.bottom, context.top)


def _softmax(context: Context) -> None:
    axis = canonical_axis(context.bottom, context.layer.softmax_param.axis)
    context.finish("Softmax", context.inputs[0], axis=axis)


def _crop(context: Context) -> None:
    settings, bottom = context.layer.crop_param, context.bottom
    first = canonical_axis(bottom, settings.axis)
    axes = range(first, len(bottom))
    offsets = list(settings.offset) or [0]
    offsets *= len(axes) if len(offsets) == 1 else 1
    ends = [offset + context.top[axis] for offset, axis in zip(offsets, axes, strict=True)]
    context.finish(
        "Slice",
        context.inputs[0],
        context.integers(offsets),
        context.integers(ends),
        context.integers(axes),
    )


RULES: Mapping[str, Rule] = {
    "AbsVal": _plain("Abs"),
    "BNLL": _plain("Softplus"),
    "BatchNorm": _batch_norm,
    "Bias": _bias,
    "Clip": _clip,
    "Concat": _concat,
    "Convolution": onnx_windows.convolution,
    "Crop": _crop,
    "Deconvolution": onnx_windows.deconvolution,
    "ELU": _elu,
    "Eltwise": _eltwise,
    "Exp": _exp,
    "Flatten": _flatten,
    "InnerProduct": _inner_product,
    "LRN": _lrn,
    "Log": _log,
    "PReLU": _prelu,
    "Pooling": onnx_windows.pooling,
    "Power": _power,
    "ReLU": _relu,
    "Reshape": _reshape,
    "Scale": _scale,
    "Sigmoid": _plain("Sigmoid"),
    "Slice": _slice,
    "Softmax": _softmax,
    "Swish": _swish,
    "TanH": _plain("Tanh"),
    "Threshold": _threshold,
}
"""By Caffe's type string; Dropout and Split need no node."""
