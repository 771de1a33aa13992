"""What flows where in a net: which values each layer reads and makes, and where gradients go."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pycaffe_prune.engines.losses import loss_weights
from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import TRAIN, LayerParameter, NetParameter
from pycaffe_prune.net.graph import NetGraph, Top

__all__ = ["Flow", "plan_flow"]

_LABELS = frozenset(
    {"SoftmaxWithLoss", "SigmoidCrossEntropyLoss", "HingeLoss", "InfogainLoss"}
    | {"MultinomialLogisticLoss", "Accuracy"}
)
"""Layers whose second bottom takes no gradient (`LossLayer::AllowForceBackward`)."""

_MARKS: Mapping[str, int] = {"LSTM": 1, "LSTMUnit": 2, "RNN": 1}
"""The bottom that tells where sequences go on: ``force_backward`` wants no gradient of it."""


@dataclass(frozen=True)
class Flow:
    """A layer's place among the values of a net, which are numbered in the order of making."""

    bottoms: tuple[int, ...]
    tops: tuple[int, ...]
    loss_weights: tuple[tuple[int, float], ...]
    """The tops that add to the loss, with their weights other than 0."""
    propagate: tuple[bool, ...]
    """Per bottom, whether a gradient goes on from it."""
    trains: bool
    """Whether the layer takes part in the backward pass."""
    sole_in_place: bool
    """Declared in place (bottom and top of one name) on a value that nothing else reads."""


def plan_flow(net: NetParameter, graph: NetGraph, phase: int, learns: Sequence[bool]) -> list[Flow]:
    """Plan the passes of one state of a net, as `Net::Init` of `src/caffe/net.cpp` does.

    A layer takes part in the backward pass when it is on the way from something to learn (or any
    value, with ``force_backward``) to a loss. Nets of the phase TEST have a backward pass only
    with ``force_backward``.

    Args:
        net: The whole net.
        graph: The layers of the state in question.
        phase: TRAIN or TEST.
        learns: Per layer, whether it has a blob whose gradient is computed.

    Raises:
        SurgeryError: A layer reads a blob that none before it makes, or states loss weights that
            are neither none nor one a top.
    """
    slots = {top: slot for slot, top in enumerate(graph.tops())}
    reads = [_read_slots(graph, place, slots) for place in range(len(graph.layers))]
    makes = [
        tuple(slots[Top(place, number)] for number in range(len(layer.top)))
        for place, layer in enumerate(graph.layers)
    ]
    losses = [
        tuple(
            (slot, weight) for slot, weight in zip(tops, loss_weights(layer), strict=True) if weight
        )
        for layer, tops in zip(graph.layers, makes, strict=True)
    ]
    needing = _needing_gradients(graph.layers, reads, makes, learns)
    may = [
        tuple(
            (slot in needing or (net.force_backward and _MARKS.get(layer.type) != number))
            and _may_propagate(layer, number)
            for number, slot in enumerate(bottoms)
        )
        for layer, bottoms in zip(graph.layers, reads, strict=True)
    ]
    reached = set()
    if phase == TRAIN or net.force_backward:
        reached = _reached(reads, makes, losses, may)
    flows = []
    for place, (layer, bottoms, tops) in enumerate(zip(graph.layers, reads, makes, strict=True)):
        is_reached = bool(reached.intersection(tops))
        propagate = tuple(is_reached and allowed for allowed in may[place])
        flows.append(
            Flow(
                bottoms,
                tops,
                losses[place],
                propagate,
                is_reached and (learns[place] or any(propagate)),
                len(bottoms) == 1
                and list(layer.bottom) == list(layer.top)
                and sum(bottoms[0] in others for others in reads) == 1,
            )
        )
    return flows


def _read_slots(graph: NetGraph, place: int, slots: dict[Top, int]) -> tuple[int, ...]:
    found = []
    for name, top in zip(graph.layers[place].bottom, graph.bottoms[place], strict=True):
        if top is None:
            raise SurgeryError(
                f"layer '{graph.layers[place].name}' reads the blob '{name}', which no layer "
                "before it makes; check its bottom, and include and exclude rules"
            )
        found.append(slots[top])
    return tuple(found)


def _needing_gradients(
    layers: Sequence[LayerParameter],
    reads: Sequence[tuple[int, ...]],
    makes: Sequence[tuple[int, ...]],
    learns: Sequence[bool],
) -> set[int]:
    """The values that depend on something to learn."""
    needing: set[int] = set()
    for layer, bottoms, tops, has_learnable in zip(layers, reads, makes, learns, strict=True):
        flows = (
            slot in needing and _may_propagate(layer, number) for number, slot in enumerate(bottoms)
        )
        if has_learnable or any(flows):
            needing.update(tops)
    return needing


def _may_propagate(layer: LayerParameter, number: int) -> bool:
    if layer.propagate_down:
        return number < len(layer.propagate_down) and layer.propagate_down[number]
    return not (layer.type in _LABELS and number > 0)


def _reached(
    reads: Sequence[tuple[int, ...]],
    makes: Sequence[tuple[int, ...]],
    losses: Sequence[tuple[tuple[int, float], ...]],
    may: Sequence[tuple[bool, ...]],
) -> set[int]:
    """The values that a gradient comes back to, the losses included."""
    reached: set[int] = set()
    for place in reversed(range(len(makes))):
        reached.update(slot for slot, _ in losses[place])
        if reached.intersection(makes[place]):
            reached.update(
                slot for slot, allowed in zip(reads[place], may[place], strict=True) if allowed
            )
    return reached
