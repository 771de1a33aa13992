"""Layers whose units lie along another axis than 1: Embed, LSTM, RNN, InnerProduct with an axis.

LSTMUnit is here as well, which has no weights and reads such units.

A hidden unit of LSTM or RNN goes with the rows that make it, in every gate, and with the columns
by which the next time step reads it (`FillUnrolledNet` of `src/caffe/layers/lstm_layer.cpp` and
`rnn_layer.cpp`).
"""

from typing import TypeGuard

import numpy as np

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.axes import Shape, extents
from pycaffe_prune.formats.caffe_pb2 import LayerParameter
from pycaffe_prune.net.channel_flows import Flows, axis_of, fix_all, stop
from pycaffe_prune.net.channels import BlobChannels, ChannelTrace, Flow, Ids
from pycaffe_prune.net.shapes import LayerShapes

__all__ = ["embed_rule", "inner_product_rule", "lstm_rule", "lstm_unit_rule", "rnn_rule"]


def embed_rule(
    trace: ChannelTrace, layer: LayerParameter, bottoms: Flows, shapes: LayerShapes
) -> list[Flow | None]:
    """Make units along a new last axis; its bottom holds indices, not channels."""
    param, bottom = layer.embed_param, shapes.bottoms[0]
    if not param.num_output or not bottom:
        return stop(trace, layer, bottoms, " on a blob of unknown shape")
    stop(trace, layer, bottoms, ", which takes them as indices")
    units = trace.units(layer.name, param.num_output)
    trace.bind(layer.name, 0, BlobChannels((None, units)))
    if param.bias_term:
        trace.bind(layer.name, 1, BlobChannels((units,)))
    return [Flow(units, axis=len(bottom))]


def inner_product_rule(
    trace: ChannelTrace, layer: LayerParameter, bottoms: Flows, shapes: LayerShapes
) -> list[Flow | None]:
    """Make units along an axis behind the first two, or read channels that lie there.

    Channels along an axis before go through, each with units of its own; the units stay then.
    """
    param, flow, bottom = layer.inner_product_param, bottoms[0], shapes.bottoms[0]
    axis = axis_of(param.axis, shapes)
    if axis < 1 or bottom is None:
        return stop(trace, layer, bottoms, f" with axis {param.axis}")
    units = trace.units(layer.name, param.num_output)
    inputs, passing = None, False
    if flow is not None and flow.axis >= axis:
        inputs = _read(trace, layer, flow, axis, bottom)
    elif flow is not None and not trace.all_fixed(flow.ids):
        passing = True
        trace.fix(
            units,
            f"has its units along axis {axis}, behind the channels of blob '{layer.bottom[0]}'; "
            "only the latter are followed",
        )
    axes = (inputs, units) if param.transpose else (units, inputs)
    trace.bind(layer.name, 0, BlobChannels(axes, reads=0 if param.transpose else 1))
    if param.bias_term:
        trace.bind(layer.name, 1, BlobChannels((units,)))
    return [flow if passing else Flow(units, axis=axis)]


def lstm_rule(
    trace: ChannelTrace, layer: LayerParameter, bottoms: Flows, shapes: LayerShapes
) -> list[Flow | None]:
    """Make units of four gates each, which read one another a step later."""
    return _recurrent(trace, layer, bottoms, shapes, gates=4, own_output=False)


def lstm_unit_rule(
    trace: ChannelTrace, layer: LayerParameter, bottoms: Flows, _: LayerShapes
) -> list[Flow | None]:
    """Make one unit of a value of the cell and the sums of its four gates, which lie a cell apart.

    Bottoms and tops: `src/caffe/layers/lstm_unit_layer.cpp`.
    """
    cell, sums, marks = bottoms
    fix_all(trace, [marks], f"tells layer '{layer.name}' where sequences go on")
    if not (_is_along_2(cell) and _is_along_2(sums)):
        what = f" whose cell '{layer.bottom[0]}' or sums '{layer.bottom[1]}' no layer's units make"
        return stop(trace, layer, bottoms[:2], what)
    if len(sums.ids) != 4 * len(cell.ids):
        raise SurgeryError(
            f"layer '{layer.name}' (LSTMUnit): its cell has {len(cell.ids)} units and its sums "
            f"{len(sums.ids)}; they must be four times as many"
        )
    for gate in sums.ids.reshape(4, -1):
        trace.unite(cell.ids, gate)
    return [cell, cell]


def _is_along_2(flow: Flow | None) -> TypeGuard[Flow]:
    return flow is not None and flow.axis == 2 and not flow.is_flat


def rnn_rule(
    trace: ChannelTrace, layer: LayerParameter, bottoms: Flows, shapes: LayerShapes
) -> list[Flow | None]:
    """Make units of a hidden state and of an output that reads it; as many, so they go by twos."""
    return _recurrent(trace, layer, bottoms, shapes, gates=1, own_output=True)


def _recurrent(
    trace: ChannelTrace,
    layer: LayerParameter,
    bottoms: Flows,
    shapes: LayerShapes,
    *,
    gates: int,
    own_output: bool,
) -> list[Flow | None]:
    param, known = layer.recurrent_param, [shape for shape in shapes.bottoms if shape is not None]
    if not param.num_output or len(known) < max(2, len(bottoms)) or len(known[0]) < 3:
        return stop(trace, layer, bottoms, " on blobs of unknown shape")
    units = trace.units(layer.name, param.num_output)
    rows = np.tile(units, gates)
    fix_all(trace, bottoms[1:2], f"tells layer '{layer.name}' where sequences go on")
    static = bottoms[2:]
    if param.expose_hidden:
        states = 2 if layer.type == "LSTM" else 1
        static = bottoms[2 : len(bottoms) - states]
        reason = f"has or makes the hidden states of layer '{layer.name}' (expose_hidden)"
        fix_all(trace, bottoms[len(bottoms) - states :], reason)
        trace.fix(units, reason)
    read = [_read_or_stop(trace, layer, bottoms[0], 2, known[0])]
    read += [
        _read_or_stop(trace, layer, flow, 1, shape)
        for flow, shape in zip(static, known[2:], strict=False)
    ]
    blobs = [BlobChannels((rows, inputs), reads=1) for inputs in read]
    blobs.insert(1, BlobChannels((rows,)))
    blobs.append(BlobChannels((rows, units), reads=1))
    if own_output:
        blobs += [BlobChannels((units, units), reads=1), BlobChannels((units,))]
    for index, blob in enumerate(blobs):
        trace.bind(layer.name, index, blob)
    trace.read(layer.name, units)
    return [Flow(units, axis=2), *[None] * (len(layer.top) - 1)]


def _read_or_stop(
    trace: ChannelTrace, layer: LayerParameter, flow: Flow | None, axis: int, bottom: Shape
) -> Ids | None:
    """The channel of each input where they lie along ``axis`` or behind it; else they all stay."""
    if flow is None:
        return None
    if flow.axis < axis or (flow.is_flat and flow.axis != axis):
        stop(trace, layer, [flow], f", which takes axis {flow.axis} for steps or streams")
        return None
    return _read(trace, layer, flow, axis, bottom)


def _read(trace: ChannelTrace, layer: LayerParameter, flow: Flow, axis: int, bottom: Shape) -> Ids:
    """Note that the layer reads all from ``axis`` on; return the channel of each value of it."""
    count = len(flow.ids)
    if flow.axis >= len(bottom) or bottom[flow.axis] % count:
        raise SurgeryError(
            f"layer '{layer.name}' reads {count} channels along axis {flow.axis} of a blob of "
            f"shape {extents(bottom)}"
        )
    trace.read(layer.name, flow.ids)
    ids = np.repeat(flow.ids, bottom[flow.axis] // count)
    behind = bottom[axis:]
    along = [1] * len(behind)
    along[flow.axis - axis] = len(ids)
    return np.ascontiguousarray(np.broadcast_to(ids.reshape(along), behind)).reshape(-1)
