"""From a net to its channels: every state of it, layer by layer, by the rules of the types."""

from pycaffe_prune.formats.caffe_pb2 import TEST, NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel
from pycaffe_prune.formats.field_table import refuse_unhonoured
from pycaffe_prune.formats.forks import STOCK_TYPES
from pycaffe_prune.net.channel_flows import Flows, stop
from pycaffe_prune.net.channel_rules import ALONG_ANY_AXIS
from pycaffe_prune.net.channels import Channels, ChannelTrace, Flow
from pycaffe_prune.net.fork_channels import rule_for
from pycaffe_prune.net.graph import NetGraph, NetState, Top, layers_in_state
from pycaffe_prune.net.shapes import infer_shapes

__all__ = ["trace_channels"]

_WITH_UNITS = frozenset({"Convolution", "Deconvolution", "InnerProduct"})


def trace_channels(net: NetParameter, model: Caffemodel | None = None) -> Channels:
    """Follow the channels of a net through all its states.

    Args:
        net: The definition, in today's form.
        model: Its weights; where given, their shapes tell what the prototxt does not (the pixels
            of an LMDB, say), and must fit. Layers of the training net alone that have no weights
            here are passed over.

    Raises:
        FormatError: A layer has a field that units cannot be deleted with.
        SurgeryError: Net and weights do not fit together, or the net contradicts itself.
    """
    for layer in net.layer:
        refuse_unhonoured(layer, "channels")
    trace = ChannelTrace(net, model)
    passed_over = _without_weights(net, model) if model else frozenset()
    graphs = list(NetGraph.of_all_states(net))
    # A state in which a bottom is missing is none that Caffe would build.
    whole = [graph for graph in graphs if not any(None in row for row in graph.bottoms)]
    for graph in whole or graphs:
        _trace_graph(trace, graph, passed_over)
    return trace.finish()


def _without_weights(net: NetParameter, model: Caffemodel) -> frozenset[str]:
    """Layers that only a training net has and the weights leave out, as published ones often do.

    Auxiliary heads, say: what they read may shrink, since they have no weights to shrink with it.
    """
    held = {layer.name for layer in model.layers if layer.blobs}
    in_use = {layer.name for layer in layers_in_state(net, NetState.of(net, TEST))}
    return frozenset(
        layer.name
        for layer in net.layer
        if STOCK_TYPES.get(layer.type, layer.type) in _WITH_UNITS
        and layer.name not in held | in_use
    )


def _trace_graph(trace: ChannelTrace, graph: NetGraph, passed_over: frozenset[str]) -> None:
    flows: dict[Top, Flow | None] = {}
    for place, (layer, shapes) in enumerate(
        zip(graph.layers, infer_shapes(graph.layers), strict=True)
    ):
        bottoms = [top and flows.get(top) for top in graph.bottoms[place]]
        if layer.name in passed_over:
            continue
        elsewhere = [flow.axis for flow in bottoms if flow is not None and flow.axis != 1]
        if elsewhere and layer.type not in ALONG_ANY_AXIS:
            tops: Flows = stop(trace, layer, bottoms, f" along axis {elsewhere[0]}")
        else:
            tops = rule_for(layer)(trace, layer, bottoms, shapes)
        flows.update((Top(place, number), flow) for number, flow in enumerate(tops))
    for top in graph.tops():
        flow = flows.get(top)
        if flow is not None and not graph.readers(top):
            name = graph.layers[top.layer].top[top.number]
            trace.fix(
                flow.ids,
                f"is an output layer: its blob '{name}' is an output of the net, whose units are "
                "never pruned",
            )
