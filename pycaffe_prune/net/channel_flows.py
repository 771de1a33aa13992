"""What the rules of `net.channel_rules` have in common: what flows, where it ends, what joins."""

from collections.abc import Callable, Sequence

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter
from pycaffe_prune.net.channels import ChannelTrace, Flow
from pycaffe_prune.net.shapes import LayerShapes

__all__ = ["Flows", "Rule", "axis_of", "fix_all", "joined", "stop"]

Flows = Sequence[Flow | None]
Rule = Callable[[ChannelTrace, LayerParameter, Flows, LayerShapes], Flows]


def fix_all(trace: ChannelTrace, bottoms: Flows, reason: str) -> None:
    """Keep all channels of ``bottoms``."""
    for flow in bottoms:
        if flow is not None:
            trace.fix(flow.ids, reason)


def stop(
    trace: ChannelTrace, layer: LayerParameter, bottoms: Flows, detail: str = ""
) -> list[Flow | None]:
    """End the way of the channels that a layer reads; ``detail`` says what of it is the reason."""
    fix_all(
        trace,
        bottoms,
        f"is read by layer '{layer.name}' of type {layer.type}{detail}, through which units "
        "cannot be deleted; leave it out with --layers",
    )
    return [None] * len(layer.top)


def joined(trace: ChannelTrace, layer: LayerParameter, bottoms: Flows) -> list[Flow | None]:
    """Make one channel of those that have the same place in each bottom."""
    known = [flow for flow in bottoms if flow is not None]
    if len(known) < len(bottoms) or len({(flow.is_flat, flow.axis) for flow in known}) > 1:
        return stop(trace, layer, bottoms, " together with a blob whose channels are not known")
    if len({len(flow.ids) for flow in known}) > 1:
        counts = ", ".join(
            f"'{name}' {len(flow.ids)}" for name, flow in zip(layer.bottom, known, strict=True)
        )
        raise SurgeryError(
            f"layer '{layer.name}' ({layer.type}): its bottoms have different numbers of "
            f"channels: {counts}"
        )
    for flow in known[1:]:
        trace.unite(known[0].ids, flow.ids)
    return [known[0]] * len(layer.top)


def axis_of(axis: int, shapes: LayerShapes) -> int:
    """The axis counted from the front, where the bottom's shape allows it."""
    bottom = shapes.bottoms[0]
    return axis + len(bottom) if axis < 0 and bottom is not None else axis
