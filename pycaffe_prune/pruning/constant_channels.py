"""Channels whose values no input changes, followed through a net from its weights alone.

A unit whose incoming weights are all zero puts out its bias, whatever the image: a constant, which
ReLU, Scale or a Pooling make into another one. Values are those of the phase TEST in every state:
BatchNorm by its stored statistics, Dropout as the identity.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.formats.blobs import Blob
from pycaffe_prune.formats.caffe_pb2 import (
    EltwiseParameter,
    LayerParameter,
    NetParameter,
    PoolingParameter,
)
from pycaffe_prune.formats.caffemodel import Caffemodel
from pycaffe_prune.formats.forks import STOCK_TYPES
from pycaffe_prune.net.fork_forms import open_fields
from pycaffe_prune.net.graph import NetGraph, Top
from pycaffe_prune.net.shapes import Shape, infer_shapes

__all__ = ["Values", "bottom_values", "put_out", "reads_axis_1", "takes_constants"]

Values = NDArray[np.float64]
"""The value of each index along axis 1, NaN where it depends on the input."""

_Known = Sequence[Values | None]
_Rule = Callable[[LayerParameter, "_Held"], _Known]


@dataclass(frozen=True)
class _Held:
    """What a layer has to work with."""

    blobs: Sequence[Blob]
    bottoms: _Known
    shape: Shape | None
    """Of the first bottom, where the prototxt tells it."""


def bottom_values(net: NetParameter, model: Caffemodel) -> dict[str, Values | None]:
    """Return what is known of the first bottom of each layer with weights.

    Where a layer is in several states that know different things of it, none of them is returned.

    Args:
        net: The definition, with ``model`` fitting to it.
        model: Its weights.

    Returns:
        Per layer, shape (extent of axis 1,); None: nothing is known, not even that extent.
    """
    blobs = {layer.name: layer.blobs for layer in model.layers}
    found: dict[str, Values | None] = {}
    for graph in NetGraph.of_all_states(net):
        values: dict[Top, Values | None] = {}
        for place, (layer, shapes) in enumerate(
            zip(graph.layers, infer_shapes(graph.layers), strict=True)
        ):
            bottoms = [top and values.get(top) for top in graph.bottoms[place]]
            if not bottoms:
                continue
            held = _Held(blobs.get(layer.name, ()), bottoms, shapes.bottoms[0])
            if held.blobs:
                for bottom in bottoms:
                    known = found.setdefault(layer.name, bottom)
                    found[layer.name] = _agreed(known, bottom)
            tops = _tops(layer, held)
            values.update((Top(place, number), top) for number, top in enumerate(tops))
    return found


def _agreed(one: Values | None, other: Values | None) -> Values | None:
    if one is None or other is None or one.shape != other.shape:
        return None
    return np.where(one == other, one, np.nan)


def _tops(layer: LayerParameter, held: _Held) -> _Known:
    rule = _RULES.get(STOCK_TYPES.get(layer.type, layer.type))
    if rule is None or open_fields(layer):
        return ()
    with np.errstate(all="ignore"):  # log(0), say: not finite is not known
        tops = rule(layer, held)
    return [top if top is None else np.where(np.isfinite(top), top, np.nan) for top in tops]


def takes_constants(layer: LayerParameter) -> bool:
    """Tell whether a constant that the layer reads only adds to its bias, at every place.

    Not so where a Convolution pads its bottom with zeros (`src/caffe/util/im2col.cpp`), or a
    Deconvolution lets kernels overlap.
    """
    kind = STOCK_TYPES.get(layer.type, layer.type)
    return kind == "InnerProduct" or (kind == "Convolution" and not _is_padded(layer))


def reads_axis_1(layer: LayerParameter) -> bool:
    """Tell whether what the layer's blob 0 reads begins at axis 1, as values are known here."""
    kind = STOCK_TYPES.get(layer.type, layer.type)
    if kind == "InnerProduct":
        return layer.inner_product_param.axis == 1
    return kind in ("Convolution", "Deconvolution") and layer.convolution_param.axis == 1


def _is_padded(layer: LayerParameter) -> bool:
    param = layer.convolution_param
    return any(param.pad) or param.pad_h > 0 or param.pad_w > 0


def put_out(layer: LayerParameter, weights: Blob, bottom: Values | None) -> Values:
    """Return what a layer makes of constants, its bias left out.

    Args:
        layer: An InnerProduct, Convolution or Deconvolution, with axis 1.
        weights: Its blob 0.
        bottom: What it reads; None: nothing is known.

    Returns:
        Shape (units,), NaN where a unit depends on what is not known.
    """
    kind = STOCK_TYPES.get(layer.type, layer.type)
    if kind == "InnerProduct":
        rows = weights.T if layer.inner_product_param.transpose else weights
        return _weighted(rows[None, :, :, None], bottom, takes_constants(layer)).reshape(-1)
    group = layer.convolution_param.group
    if kind == "Deconvolution":  # (inputs, filters of a group, ...)
        grouped = weights.reshape(group, weights.shape[0] // group, weights.shape[1], -1)
        grouped = np.moveaxis(grouped, 1, 2)
    else:
        grouped = weights.reshape(group, weights.shape[0] // group, weights.shape[1], -1)
    return _weighted(grouped, bottom, takes_constants(layer)).reshape(-1)


def _weighted(weights: Blob, bottom: Values | None, takes_any: bool) -> Values:
    """Weights (group, units, inputs, places of the kernel) to values (group, units)."""
    inputs = weights.shape[0] * weights.shape[2]
    values = np.full(inputs, np.nan) if bottom is None else _spread(bottom, inputs)
    unknown = np.isnan(values) if takes_any else np.isnan(values) | (values != 0)
    unknown = unknown.reshape(weights.shape[0], 1, -1)
    known = np.where(unknown, 0, values.reshape(unknown.shape))
    depends = ((weights != 0).any(axis=-1) & unknown).any(axis=-1)
    sums = (weights.sum(axis=-1, dtype=np.float64) * known).sum(axis=-1)
    return np.where(depends, np.nan, sums)


def _spread(values: Values, extent: int) -> Values:
    """One value a weight: InnerProduct has one for each place of a map."""
    if len(values) == 0 or extent % len(values):
        return np.full(extent, np.nan)
    return np.repeat(values, extent // len(values))


def _units(layer: LayerParameter, held: _Held) -> _Known:
    is_inner_product = STOCK_TYPES.get(layer.type, layer.type) == "InnerProduct"
    param = layer.inner_product_param if is_inner_product else layer.convolution_param
    if not held.blobs or param.axis != 1 or len(layer.bottom) > 1:
        return ()
    made = put_out(layer, held.blobs[0], held.bottoms[0])
    return [made + held.blobs[1] if param.bias_term and len(held.blobs) > 1 else made]


def _each(function: Callable[[LayerParameter, Values], Values]) -> _Rule:
    """A layer that changes each value by itself."""

    def rule(layer: LayerParameter, held: _Held) -> _Known:
        values = held.bottoms[0]
        return [None if values is None else function(layer, values)] * len(layer.top)

    return rule


def _relu(layer: LayerParameter, x: Values) -> Values:
    return np.where(x > 0, x, x * layer.relu_param.negative_slope)


def _elu(layer: LayerParameter, x: Values) -> Values:
    return np.where(x > 0, x, layer.elu_param.alpha * np.expm1(np.minimum(x, 0)))


def _power(layer: LayerParameter, x: Values) -> Values:
    param = layer.power_param
    return np.asarray((param.shift + param.scale * x) ** param.power)


def _exp(layer: LayerParameter, x: Values) -> Values:
    param = layer.exp_param
    base = np.e if param.base == -1 else param.base
    return np.asarray(base ** (param.shift + param.scale * x))


def _log(layer: LayerParameter, x: Values) -> Values:
    param = layer.log_param
    base = np.e if param.base == -1 else param.base
    return np.asarray(np.log(param.shift + param.scale * x) / np.log(base))


def _pooling(layer: LayerParameter, x: Values) -> Values:
    param = layer.pooling_param
    if param.pool == PoolingParameter.MAX:
        return x
    padded = param.pad > 0 or param.pad_h > 0 or param.pad_w > 0
    if param.pool == PoolingParameter.AVE and not padded:
        return x
    # A mean counts the zeros around the map; STOCHASTIC divides by the sum.
    zeros = np.where(x == 0, x, np.nan)
    return zeros if param.pool == PoolingParameter.AVE else np.full_like(x, np.nan)


def _zeros_stay(_: LayerParameter, x: Values) -> Values:
    return np.where(x == 0, x, np.nan)


def _threshold(layer: LayerParameter, x: Values) -> Values:
    return np.where(np.isnan(x), x, x > layer.threshold_param.threshold)


def _beside(held: _Held, blob: int) -> tuple[Values, Values] | None:
    """The bottom's values and a blob's, one each."""
    values = held.bottoms[0]
    if values is None or blob >= len(held.blobs):
        return None
    factors = held.blobs[blob].reshape(-1).astype(np.float64)
    return (values, factors) if len(factors) in (1, len(values)) else None


def _batch_norm(layer: LayerParameter, held: _Held) -> _Known:
    mean, variance = _beside(held, 0), _beside(held, 1)
    if mean is None or variance is None or len(held.blobs) != 3:
        return [None]
    weight = float(held.blobs[2].reshape(-1)[0])
    factor = 0 if weight == 0 else 1 / weight
    x = mean[0] - mean[1] * factor
    return [x / np.sqrt(variance[1] * factor + layer.batch_norm_param.eps)]


def _scale(layer: LayerParameter, held: _Held) -> _Known:
    values, param = held.bottoms[0], layer.scale_param
    if len(layer.bottom) > 1:
        is_plain = values is not None and not param.bias_term
        return [np.where(values == 0, 0, np.nan) if is_plain and values is not None else None]
    factors, bias = _beside(held, 0), _beside(held, 1)
    if factors is None or param.axis != 1 or param.num_axes != 1:
        return [None]
    scaled = np.where(factors[1] == 0, 0, factors[0] * factors[1])  # 0 makes anything constant
    if not param.bias_term:
        return [scaled]
    return [None if bias is None else scaled + bias[1]]


def _bias(layer: LayerParameter, held: _Held) -> _Known:
    terms, param = _beside(held, 0), layer.bias_param
    if terms is None or len(layer.bottom) > 1 or param.axis != 1 or param.num_axes != 1:
        return [None]
    return [terms[0] + terms[1]]


def _prelu(_: LayerParameter, held: _Held) -> _Known:
    slopes = _beside(held, 0)
    if slopes is None:
        return [None]
    return [np.where(slopes[0] > 0, slopes[0], slopes[0] * slopes[1])]


def _eltwise(layer: LayerParameter, held: _Held) -> _Known:
    known = [values for values in held.bottoms if values is not None]
    if len(known) < len(held.bottoms) or len({len(values) for values in known}) > 1:
        return [None]
    param = layer.eltwise_param
    stack = np.stack(known)
    if param.operation == EltwiseParameter.SUM:
        return [np.array(list(param.coeff) or [1] * len(known)) @ stack]
    if param.operation == EltwiseParameter.MAX:
        return [np.asarray(stack.max(axis=0))]
    return [np.where((stack == 0).any(axis=0), 0, stack.prod(axis=0))]


def _concat(layer: LayerParameter, held: _Held) -> _Known:
    param = layer.concat_param
    axis = param.concat_dim if param.HasField("concat_dim") else param.axis
    known = [values for values in held.bottoms if values is not None]
    if len(held.bottoms) == 1:
        return held.bottoms
    return [np.concatenate(known) if axis == 1 and len(known) == len(held.bottoms) else None]


def _slice(layer: LayerParameter, held: _Held) -> _Known:
    param, values = layer.slice_param, held.bottoms[0]
    axis = param.slice_dim if param.HasField("slice_dim") else param.axis
    if values is None or axis != 1 or (not param.slice_point and len(values) % len(layer.top)):
        return ()
    return np.split(values, list(param.slice_point) or len(layer.top))


def _flatten(layer: LayerParameter, held: _Held) -> _Known:
    param, values = layer.flatten_param, held.bottoms[0]
    if values is None or held.shape is None or (param.axis, param.end_axis) != (1, -1):
        return [None]
    return [np.repeat(values, math.prod(held.shape[2:]))]


_RULES: Mapping[str, _Rule] = MappingProxyType(
    {
        "AbsVal": _each(lambda _, x: np.abs(x)),
        "BNLL": _each(lambda _, x: np.logaddexp(0, x)),
        "BatchNorm": _batch_norm,
        "Bias": _bias,
        "Concat": _concat,
        "Convolution": _units,
        "Deconvolution": _units,
        "Dropout": _each(lambda _, x: x),
        "ELU": _each(_elu),
        "Eltwise": _eltwise,
        "Exp": _each(_exp),
        "Flatten": _flatten,
        "InnerProduct": _units,
        "LRN": _each(_zeros_stay),
        "Log": _each(_log),
        "PReLU": _prelu,
        "Pooling": _each(_pooling),
        "Power": _each(_power),
        "ReLU": _each(_relu),
        "Scale": _scale,
        "Sigmoid": _each(lambda _, x: 1 / (1 + np.exp(-x))),
        "Slice": _slice,
        "Split": _each(lambda _, x: x),
        "TanH": _each(lambda _, x: np.tanh(x)),
        "Threshold": _each(_threshold),
    }
)
"""Types of which it is known what they make of constants; of others' tops nothing is."""
