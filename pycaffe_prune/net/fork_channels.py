"""How the layer types that common forks of Caffe add carry channels (`net.channel_rules`)."""

from collections.abc import Mapping

from pycaffe_prune.formats.caffe_pb2 import LayerParameter
from pycaffe_prune.formats.forks import fork_part
from pycaffe_prune.net import channel_rules
from pycaffe_prune.net.channel_flows import Flows, Rule, fix_all, joined, stop
from pycaffe_prune.net.channel_rules import carry, end, per_channel
from pycaffe_prune.net.channels import BlobChannels, ChannelTrace, Flow
from pycaffe_prune.net.fork_forms import has_own_scale, open_fields, stock_form
from pycaffe_prune.net.shapes import LayerShapes

__all__ = ["rule_for"]


def _not_understood(
    trace: ChannelTrace, layer: LayerParameter, bottoms: Flows, _: LayerShapes
) -> list[Flow | None]:
    field = open_fields(layer)[0]
    return stop(trace, layer, bottoms, f" with the field {field}, which stock Caffe does not know")


def _permute(trace: ChannelTrace, layer: LayerParameter, bottoms: Flows, _: LayerShapes) -> Flows:
    order = list(fork_part(layer).permute_param.order)
    whole = [*order, *(axis for axis in range(len(order) + 2) if axis not in order)]
    if whole[1] == 1:
        return [bottoms[0]]
    return stop(trace, layer, bottoms, f" with order {order}")


def _normalize(trace: ChannelTrace, layer: LayerParameter, bottoms: Flows, _: LayerShapes) -> Flows:
    """A channel's values depend on those of all others: a sum of squares over them."""
    return stop(trace, layer, bottoms, " over all channels")


def _batch_norm(
    trace: ChannelTrace, layer: LayerParameter, bottoms: Flows, shapes: LayerShapes
) -> Flows:
    return [bottoms[0] and per_channel(trace, layer, bottoms[0], (0, 1, 3, 4), shapes)]


def _bn(trace: ChannelTrace, layer: LayerParameter, bottoms: Flows, shapes: LayerShapes) -> Flows:
    if bottoms[0] is None or not shapes.params:
        return stop(trace, layer, bottoms, " on a blob of unknown shape")
    for index in range(len(shapes.params)):
        trace.bind(layer.name, index, BlobChannels((None, bottoms[0].ids, None, None)))
    return [bottoms[0]]


def _regions(trace: ChannelTrace, layer: LayerParameter, bottoms: Flows, _: LayerShapes) -> Flows:
    """The maps' channels go on; the regions are numbers with a meaning each."""
    fix_all(trace, bottoms[1:], f"makes the regions that layer '{layer.name}' ({layer.type}) reads")
    return [bottoms[0]]


def _position_sensitive(
    trace: ChannelTrace, layer: LayerParameter, bottoms: Flows, _: LayerShapes
) -> Flows:
    """R-FCN's: each output has maps of its own for each place of the region."""
    size = fork_part(layer).psroi_pooling_param.group_size
    return stop(trace, layer, bottoms, f", which takes {size}x{size} maps for each of its outputs")


def _shuffle(trace: ChannelTrace, layer: LayerParameter, bottoms: Flows, _: LayerShapes) -> Flows:
    """Deal out the channels of each group in turn.

    Those of one place in all groups go together: then what is left is shuffled as it was before.
    """
    flow, group = bottoms[0], fork_part(layer).shuffle_channel_param.group
    if flow is None or flow.is_flat or not group or len(flow.ids) % group:
        return stop(trace, layer, bottoms, f" with group {group}")
    rows = flow.ids.reshape(group, -1)
    for row in rows[1:]:
        trace.unite(rows[0], row)
    return [Flow(rows.T.reshape(-1))]


def _nothing_read(_: ChannelTrace, layer: LayerParameter, __: Flows, ___: LayerShapes) -> Flows:
    """The layer looks at its bottoms' sizes only."""
    return [None] * len(layer.top)


def _upsample(trace: ChannelTrace, layer: LayerParameter, bottoms: Flows, _: LayerShapes) -> Flows:
    """SegNet's second bottom says where each maximum was, channel by channel."""
    return joined(trace, layer, bottoms)


_RULES: Mapping[str, Rule] = {
    "BN": _bn,
    "DetectionEvaluate": end,
    "DetectionOutput": end,
    "Interp": carry,
    "MultiBoxLoss": end,
    "Normalize": _normalize,
    "Permute": _permute,
    "PSROIPooling": _position_sensitive,
    "PriorBox": _nothing_read,
    "ROIPooling": _regions,
    "ReLU6": carry,
    "ShuffleChannel": _shuffle,
    "SmoothL1Loss": end,
    "Upsample": _upsample,
}


def rule_for(layer: LayerParameter) -> Rule:
    """Return the rule of the layer's type, Caffe's own or a fork's.

    Without one, or with a field that is not understood, what the layer reads cannot be deleted.
    """
    if layer.bottom and open_fields(layer):
        return _not_understood
    if has_own_scale(layer):
        return _batch_norm
    if layer.type in _RULES:
        return _RULES[layer.type]
    stock = stock_form(layer)
    rule = channel_rules.rule_for(stock)
    return lambda trace, _, bottoms, shapes: rule(trace, stock, bottoms, shapes)
