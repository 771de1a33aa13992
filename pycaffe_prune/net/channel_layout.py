"""Layers that lay channels out anew: side by side, apart, flattened, repeated."""

import math

import numpy as np

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter
from pycaffe_prune.net.channel_flows import Flows, axis_of, joined, stop
from pycaffe_prune.net.channels import ChannelTrace, Flow
from pycaffe_prune.net.shape_pyramid import levels
from pycaffe_prune.net.shape_windows import convolution_window
from pycaffe_prune.net.shapes import LayerShapes

__all__ = [
    "columns_rule",
    "concat_rule",
    "flatten_rule",
    "pyramid_rule",
    "reshape_rule",
    "slice_rule",
    "tile_rule",
]


def concat_rule(
    trace: ChannelTrace, layer: LayerParameter, bottoms: Flows, shapes: LayerShapes
) -> list[Flow | None]:
    """Put the channels of all bottoms one after the other, or join them along another axis."""
    param = layer.concat_param
    axis = param.concat_dim if param.HasField("concat_dim") else axis_of(param.axis, shapes)
    if len(bottoms) == 1:
        return [bottoms[0]]
    if axis < 0:
        return stop(trace, layer, bottoms, f" with axis {axis} of a blob of unknown shape")
    if axis not in {flow.axis for flow in bottoms if flow is not None} | {1}:
        return joined(trace, layer, bottoms)
    parts = [flow.ids for flow in bottoms if flow and not flow.is_flat and flow.axis == axis]
    if len(parts) < len(bottoms):
        return stop(trace, layer, bottoms, " together with a blob whose channels are not known")
    return [Flow(np.concatenate(parts), axis=axis)]


def slice_rule(
    trace: ChannelTrace, layer: LayerParameter, bottoms: Flows, shapes: LayerShapes
) -> list[Flow | None]:
    """Deal the channels out to the tops."""
    param, flow = layer.slice_param, bottoms[0]
    axis = param.slice_dim if param.HasField("slice_dim") else axis_of(param.axis, shapes)
    if flow is None:
        return [None] * len(layer.top)
    if axis < 0 or (axis == flow.axis and flow.is_flat):
        return stop(trace, layer, bottoms, " on a blob of unknown shape")
    if axis != flow.axis:
        return [flow] * len(layer.top)
    points = list(param.slice_point)
    if not points:
        if len(flow.ids) % len(layer.top):
            raise SurgeryError(
                f"layer '{layer.name}': {len(flow.ids)} channels do not divide into "
                f"{len(layer.top)} equal tops"
            )
        step = len(flow.ids) // len(layer.top)
        points = list(range(step, len(flow.ids), step))
    parts = tuple(np.split(flow.ids, points))
    trace.slice(layer.name, parts)
    return [Flow(ids, axis=axis) for ids in parts]


def _flattened(flow: Flow | None, bottom: tuple[int, ...] | None) -> Flow | None:
    if flow is None or (bottom is not None and len(bottom) == 2):
        return flow
    if bottom is None or flow.is_flat:
        return Flow(flow.ids, is_flat=True)
    return Flow(np.repeat(flow.ids, int(np.prod(bottom[2:]))))


def flatten_rule(
    trace: ChannelTrace, layer: LayerParameter, bottoms: Flows, shapes: LayerShapes
) -> list[Flow | None]:
    """Repeat each channel for every place of its map."""
    param = layer.flatten_param
    axis, bottom = axis_of(param.axis, shapes), shapes.bottoms[0]
    if axis > 1:
        return [bottoms[0]]
    to_the_end = param.end_axis == -1 or (bottom is not None and param.end_axis == len(bottom) - 1)
    if axis != 1 or not to_the_end:
        return stop(trace, layer, bottoms, f" with axis {param.axis}, end_axis {param.end_axis}")
    return [_flattened(bottoms[0], bottom)]


def reshape_rule(
    trace: ChannelTrace, layer: LayerParameter, bottoms: Flows, shapes: LayerShapes
) -> list[Flow | None]:
    """Carry or flatten the channels where the new shape keeps them whole."""
    param = layer.reshape_param
    dims, flow = list(param.shape.dim), bottoms[0]
    top, bottom = shapes.tops[0], shapes.bottoms[0]
    if flow is None:
        return [None]
    if param.axis == 0 and dims[1:2] > [0] and top is not None and bottom is not None:
        if top[:2] == (bottom[0], len(flow.ids)) and bottom[1] == len(flow.ids):
            trace.reshape(layer.name, flow.ids)
            return [flow]
        if top[0] == bottom[0] and math.prod(top[1:]) == top[1]:
            flat = _flattened(flow, bottom)
            if flat is not None and len(flat.ids) == top[1]:
                trace.reshape(layer.name, flat.ids)
                return [flat]
    if param.axis == 0 and param.num_axes == -1:
        if dims[:2] == [0, 0]:
            return [bottoms[0]]
        if dims[:2] == [0, -1] and all(extent == 1 for extent in dims[2:]):
            return [_flattened(bottoms[0], shapes.bottoms[0])]
    return stop(trace, layer, bottoms)


def columns_rule(
    trace: ChannelTrace, layer: LayerParameter, bottoms: Flows, shapes: LayerShapes
) -> list[Flow | None]:
    """Repeat each channel for every place of the kernel of an Im2col."""
    param, flow, bottom = layer.convolution_param, bottoms[0], shapes.bottoms[0]
    if flow is None:
        return [None]
    axis = axis_of(param.axis, shapes)
    if axis > 1:
        return [flow]
    if axis != 1 or bottom is None:
        return stop(trace, layer, bottoms, f" with axis {param.axis}")
    kernel = convolution_window(param, len(bottom) - 2).kernel
    return [Flow(np.repeat(flow.ids, math.prod(kernel)))]


def pyramid_rule(
    trace: ChannelTrace, layer: LayerParameter, bottoms: Flows, shapes: LayerShapes
) -> list[Flow | None]:
    """Repeat each channel for every window of a level, level after level."""
    flow, bottom = bottoms[0], shapes.bottoms[0]
    if flow is None or layer.spp_param.pyramid_height == 1:
        return [flow]
    if bottom is None:
        return stop(trace, layer, bottoms, " on a blob of unknown shape")
    parts = [np.repeat(flow.ids, math.prod(top[2:])) for _, top in levels(layer, bottom)]
    return [Flow(np.concatenate(parts))]


def tile_rule(
    trace: ChannelTrace, layer: LayerParameter, bottoms: Flows, shapes: LayerShapes
) -> list[Flow | None]:
    """Repeat all channels, one row of them after the other."""
    axis, flow = axis_of(layer.tile_param.axis, shapes), bottoms[0]
    if flow is None or axis < 0 or (axis == 1 and flow.is_flat):
        return stop(trace, layer, bottoms, " on a blob of unknown shape")
    if axis != 1:
        return [flow]
    return [Flow(np.tile(flow.ids, layer.tile_param.tiles))]
