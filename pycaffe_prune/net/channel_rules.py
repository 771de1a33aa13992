"""How each layer type carries channels from its bottoms to its tops.

A rule is ``(trace, layer, bottoms, shapes) -> tops``: what flows along axis 1 of each bottom (None:
nothing is known of it) to what flows along axis 1 of each top. A type without a rule ends the way:
the channels that it reads cannot be deleted, and the reason names the layer.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter, LRNParameter
from pycaffe_prune.net.channel_flows import Flows, Rule, axis_of, fix_all, joined, stop
from pycaffe_prune.net.channel_layout import (
    columns_rule,
    concat_rule,
    flatten_rule,
    pyramid_rule,
    reshape_rule,
    slice_rule,
    tile_rule,
)
from pycaffe_prune.net.channel_sequences import (
    embed_rule,
    inner_product_rule,
    lstm_rule,
    lstm_unit_rule,
    rnn_rule,
)
from pycaffe_prune.net.channels import BlobChannels, ChannelTrace, Flow, Ids
from pycaffe_prune.net.shapes import LayerShapes, Shape

__all__ = ["ALONG_ANY_AXIS", "CARRYING", "ENDS", "carry", "end", "per_channel", "rule_for"]

CARRYING = frozenset(
    {
        "AbsVal", "BNLL", "BatchReindex", "Clip", "Dropout", "ELU", "Exp", "Log", "Pooling",
        "Power", "ReLU", "Sigmoid", "Split", "Swish", "TanH", "Threshold",
    }
)  # fmt: skip
"""Types whose tops have the channels of their bottom, one by one."""

ENDS = frozenset(
    {
        "Accuracy", "ArgMax", "ContrastiveLoss", "EuclideanLoss", "HDF5Output", "HingeLoss",
        "InfogainLoss", "MultinomialLogisticLoss", "SigmoidCrossEntropyLoss", "Softmax",
        "SoftmaxWithLoss",
    }
)  # fmt: skip
"""Types that judge or report what a net puts out."""


ALONG_ANY_AXIS = (
    (CARRYING - {"Pooling"})
    | ENDS
    | {
        "Bias", "Concat", "Eltwise", "Embed", "Filter", "InnerProduct", "LSTM", "LSTMUnit", "RNN",
        "Scale", "Silence", "Slice",
    }
)  # fmt: skip
"""Types whose rules know of channels along another axis than 1."""


def _blocked(
    trace: ChannelTrace, layer: LayerParameter, bottoms: Flows, _: LayerShapes
) -> list[Flow | None]:
    return stop(trace, layer, bottoms)


def end(
    trace: ChannelTrace, layer: LayerParameter, bottoms: Flows, _: LayerShapes
) -> list[Flow | None]:
    """The rule of a layer that judges or reports what a net puts out."""
    fix_all(
        trace,
        bottoms,
        f"is an output layer (read by '{layer.name}', {layer.type}); the units of an output layer "
        "are never pruned",
    )
    return [None] * len(layer.top)


def carry(
    _: ChannelTrace, layer: LayerParameter, bottoms: Flows, __: LayerShapes
) -> list[Flow | None]:
    """The rule of a layer whose tops have the channels of its bottom, one by one."""
    return [bottoms[0]] * len(layer.top)


def _source(
    trace: ChannelTrace, layer: LayerParameter, _: Flows, shapes: LayerShapes
) -> list[Flow | None]:
    """Channels of the net's input: they have numbers, for Concat to count, and all stay."""
    tops: list[Flow | None] = []
    for name, shape in zip(layer.top, shapes.tops, strict=True):
        if shape is None or len(shape) < 2:
            tops.append(None)
            continue
        ids = trace.new(shape[1])
        trace.fix(ids, f"is joined with the input blob '{name}', which keeps its channels")
        tops.append(Flow(ids))
    return tops


def _spread(layer: LayerParameter, flow: Flow, axis: int, shape: Shape) -> Ids:
    """The channel of each index along an axis of parameters: a flattened map repeats them."""
    extent = shape[axis]
    if extent % len(flow.ids):
        raise SurgeryError(
            f"layer '{layer.name}' reads {len(flow.ids)} channels of blob '{layer.bottom[0]}', but "
            f"its weights are {'x'.join(map(str, shape))}; they belong to different nets"
        )
    return np.repeat(flow.ids, extent // len(flow.ids))


def _inner_product(
    trace: ChannelTrace, layer: LayerParameter, bottoms: Flows, shapes: LayerShapes
) -> list[Flow | None]:
    param = layer.inner_product_param
    if axis_of(param.axis, shapes) != 1 or (bottoms[0] is not None and bottoms[0].axis != 1):
        return inner_product_rule(trace, layer, bottoms, shapes)
    units = trace.units(layer.name, param.num_output)
    inputs: Ids | None = None
    weights = trace.param_shape(layer.name, 0, shapes.params)
    if bottoms[0] is not None:
        trace.read(layer.name, bottoms[0].ids)
        if weights is not None and len(weights) == 2:
            inputs = _spread(layer, bottoms[0], 0 if param.transpose else 1, weights)
    axes = (inputs, units) if param.transpose else (units, inputs)
    trace.bind(layer.name, 0, BlobChannels(axes, reads=0 if param.transpose else 1))
    if param.bias_term:
        trace.bind(layer.name, 1, BlobChannels((units,)))
    return [Flow(units)]


def _convolution(
    trace: ChannelTrace, layer: LayerParameter, bottoms: Flows, shapes: LayerShapes
) -> list[Flow | None]:
    param = layer.convolution_param
    if axis_of(param.axis, shapes) != 1:
        return stop(trace, layer, bottoms, f" with axis {param.axis}")
    units = trace.units(layer.name, param.num_output)
    inputs = _grouped_inputs(trace, layer, bottoms[0], units)
    if inputs is not None and param.group > 1:
        inputs = inputs.reshape(param.group, -1)
    weights = trace.param_shape(layer.name, 0, shapes.params)
    spatial = (None,) * (len(weights) - 2 if weights else 2)
    trace.bind(layer.name, 0, BlobChannels((units, inputs, *spatial), reads=1))
    if param.bias_term:
        trace.bind(layer.name, 1, BlobChannels((units,)))
    return [Flow(units)]


def _grouped_inputs(
    trace: ChannelTrace, layer: LayerParameter, flow: Flow | None, units: Ids
) -> Ids | None:
    """Note what a Convolution or Deconvolution reads, and its groups.

    Returns:
        The channels that its weights read; None where each channel that it reads is one with the
        filters of its group (or is not known).
    """
    group = layer.convolution_param.group
    for extent in (len(units), *([len(flow.ids)] if flow is not None else [])):
        if extent % group:
            raise SurgeryError(
                f"layer '{layer.name}': {extent} channels do not divide into group {group}"
            )
    if flow is not None and group == len(flow.ids) > 1:
        filters = len(units) // group
        # Several filters of each channel may go one by one where the channels cannot.
        if filters == 1 or not trace.all_fixed(flow.ids):
            trace.unite(np.repeat(flow.ids, filters), units)
            trace.group_by(layer.name, flow.ids)
            return None
    if group > 1:
        trace.group(layer.name, units.reshape(group, -1))
    if flow is None:
        return None
    trace.read(layer.name, flow.ids)
    if group > 1:
        trace.group(layer.name, flow.ids.reshape(group, -1))
    return flow.ids


def _deconvolution(
    trace: ChannelTrace, layer: LayerParameter, bottoms: Flows, shapes: LayerShapes
) -> list[Flow | None]:
    param = layer.convolution_param
    if axis_of(param.axis, shapes) != 1:
        return stop(trace, layer, bottoms, f" with axis {param.axis}")
    flow, units = bottoms[0], trace.units(layer.name, param.num_output)
    inputs = _grouped_inputs(trace, layer, flow, units)
    weights = trace.param_shape(layer.name, 0, shapes.params)
    spatial = (None,) * (len(weights) - 2 if weights else 2)
    if flow is not None and inputs is None:
        blob = BlobChannels((flow.ids, None, *spatial))
    else:
        outputs = units.reshape(param.group, -1) if param.group > 1 else units
        blob = BlobChannels((inputs, outputs, *spatial), reads=0)
    trace.bind(layer.name, 0, blob)
    if param.bias_term:
        trace.bind(layer.name, 1, BlobChannels((units,)))
    return [Flow(units)]


def _bottom_by_bottom(rule: Rule) -> Rule:
    """A layer that does to each bottom, with the same weights, what makes the top beside it."""

    def ruled(
        trace: ChannelTrace, layer: LayerParameter, bottoms: Flows, shapes: LayerShapes
    ) -> list[Flow | None]:
        return [rule(trace, layer, [bottom], shapes)[0] for bottom in bottoms]

    return ruled


def per_channel(
    trace: ChannelTrace,
    layer: LayerParameter,
    flow: Flow,
    blobs: Sequence[int],
    shapes: LayerShapes,
) -> Flow:
    """Bind one-dimensional parameters, one value a channel."""
    shape = trace.param_shape(layer.name, blobs[0], shapes.params)
    ids = _spread(layer, flow, 0, shape) if flow.is_flat and shape else flow.ids
    for index in blobs:
        trace.bind(layer.name, index, BlobChannels((ids,)))
    return Flow(ids)


def _batch_norm(
    trace: ChannelTrace, layer: LayerParameter, bottoms: Flows, shapes: LayerShapes
) -> list[Flow | None]:
    return [bottoms[0] and per_channel(trace, layer, bottoms[0], (0, 1), shapes)]


def _prelu(
    trace: ChannelTrace, layer: LayerParameter, bottoms: Flows, shapes: LayerShapes
) -> list[Flow | None]:
    if layer.prelu_param.channel_shared:
        return [bottoms[0]]
    return [bottoms[0] and per_channel(trace, layer, bottoms[0], (0,), shapes)]


def _scale(
    trace: ChannelTrace, layer: LayerParameter, bottoms: Flows, shapes: LayerShapes
) -> list[Flow | None]:
    is_scale = layer.type == "Scale"
    param = layer.scale_param if is_scale else layer.bias_param
    with_bias = is_scale and layer.scale_param.bias_term
    flow, axis = bottoms[0], axis_of(param.axis, shapes)
    if len(bottoms) > 1:
        if flow is not None and _spares(flow.axis, axis, shapes.bottoms[1]):
            fix_all(trace, bottoms[1:], f"has factors for layer '{layer.name}' ({layer.type})")
            return [flow]
        # Factors for each image and channel (squeeze and excitation) have the bottom's channels.
        if param.axis == 0 and not with_bias:
            return joined(trace, layer, bottoms)
        return stop(trace, layer, bottoms, f" with two bottoms and axis {param.axis}")
    if flow is None or param.num_axes == 0:
        return [flow]
    if param.num_axes != 1 or axis != flow.axis:
        return stop(trace, layer, bottoms, f" with axis {param.axis}, num_axes {param.num_axes}")
    made = per_channel(trace, layer, flow, (0, 1) if with_bias else (0,), shapes)
    return [replace(made, axis=flow.axis)]


def _spares(axis: int, first: int, factors: Shape | None) -> bool:
    """Whether a second bottom, beginning at an axis, has nothing of its own for each channel."""
    return factors is not None and first >= 0 and not first <= axis < first + len(factors)


def _eltwise(
    trace: ChannelTrace, layer: LayerParameter, bottoms: Flows, _: LayerShapes
) -> list[Flow | None]:
    return joined(trace, layer, bottoms)


def _lrn(
    trace: ChannelTrace, layer: LayerParameter, bottoms: Flows, _: LayerShapes
) -> list[Flow | None]:
    flow, param = bottoms[0], layer.lrn_param
    if param.norm_region == LRNParameter.ACROSS_CHANNELS and flow is not None:
        if flow.is_flat:
            return stop(trace, layer, bottoms, " on a flattened blob of unknown shape")
        trace.lrn(layer.name, flow.ids, param.local_size)
    return [flow]


def _mvn(
    trace: ChannelTrace, layer: LayerParameter, bottoms: Flows, _: LayerShapes
) -> list[Flow | None]:
    if layer.mvn_param.across_channels:
        return stop(trace, layer, bottoms, " across channels")
    return [bottoms[0]]


def _crop(
    trace: ChannelTrace, layer: LayerParameter, bottoms: Flows, shapes: LayerShapes
) -> list[Flow | None]:
    if axis_of(layer.crop_param.axis, shapes) < 2:
        return stop(trace, layer, bottoms, " along the channel axis")
    return [bottoms[0]]


def _filter(
    trace: ChannelTrace, layer: LayerParameter, bottoms: Flows, _: LayerShapes
) -> list[Flow | None]:
    stop(trace, layer, bottoms[-1:], " as its selector")
    return list(bottoms[:-1])


def _silence(
    _: ChannelTrace, __: LayerParameter, ___: Flows, ____: LayerShapes
) -> list[Flow | None]:
    return []


_RULES: dict[str, Rule] = {
    **dict.fromkeys(CARRYING, carry),
    **dict.fromkeys(ENDS, end),
    "BatchNorm": _batch_norm,
    "Bias": _scale,
    "Concat": concat_rule,
    "Convolution": _bottom_by_bottom(_convolution),
    "Crop": _crop,
    "Deconvolution": _bottom_by_bottom(_deconvolution),
    "Eltwise": _eltwise,
    "Embed": embed_rule,
    "Filter": _filter,
    "Flatten": flatten_rule,
    "Im2col": columns_rule,
    "InnerProduct": _inner_product,
    "LRN": _lrn,
    "LSTM": lstm_rule,
    "LSTMUnit": lstm_unit_rule,
    "MVN": _mvn,
    "PReLU": _prelu,
    "RNN": rnn_rule,
    "Reshape": reshape_rule,
    "SPP": pyramid_rule,
    "Scale": _scale,
    "Silence": _silence,
    "Slice": slice_rule,
    "Tile": tile_rule,
}


def rule_for(layer: LayerParameter) -> Rule:
    """Return the rule of the layer's type; without one, what it reads cannot be deleted."""
    return _RULES.get(layer.type, _blocked if layer.bottom else _source)
