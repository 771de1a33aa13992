"""Which blobs a net has, which layers read and write them, and where gradients go."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pycaffe_prune.formats.caffe_pb2 import LayerParameter

__all__ = ["Needs", "Wiring", "backward_needs", "wire"]

_AUTOMATIC = "(automatic)"
_NEVER_BACK = {"ContrastiveLoss": 2, "EuclideanLoss": None, "LSTM": 1, "LSTMUnit": 2, "RNN": 1}
"""The bottom that takes no gradient even with ``force_backward``, where it is not a loss's 1."""


@dataclass(frozen=True)
class Wiring:
    """The blobs of a net by their numbers, in the order of making (`Net::Init`)."""

    names: list[str] = field(default_factory=list)
    bottoms: list[list[int]] = field(default_factory=list)
    """Per layer the numbers of the blobs that it reads."""
    tops: list[list[int]] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    """The tops of Input layers."""
    outputs: list[int] = field(default_factory=list)
    """The blobs that no layer reads, in the order of their names."""


def wire(layers: Sequence[LayerParameter]) -> Wiring:
    """Number the blobs of a net.

    Args:
        layers: Those of one state with their Splits, each blob made once other than in place.
    """
    wiring = Wiring()
    numbers: dict[str, int] = {}
    unread: set[str] = set()
    for layer in layers:
        wiring.bottoms.append([numbers[name] for name in layer.bottom])
        unread.difference_update(layer.bottom)
        wiring.tops.append([])
        for place, name in enumerate(layer.top):
            in_place = place < len(layer.bottom) and layer.bottom[place] == name
            if not in_place:
                numbers[name] = len(wiring.names)
                wiring.names.append(name)
            wiring.tops[-1].append(numbers[name])
            if name != _AUTOMATIC:
                unread.add(name)
        if layer.type == "Input":
            wiring.inputs.extend(wiring.tops[-1])
    wiring.outputs.extend(numbers[name] for name in sorted(unread, key=str.encode))
    return wiring


def name_losses(layers: Iterable[LayerParameter]) -> None:
    """Give each loss that names no top the one that Caffe makes for it."""
    for layer in layers:
        if layer.type.endswith("Loss") and not layer.top:
            layer.top.append(_AUTOMATIC)


@dataclass(frozen=True)
class Needs:
    """What the backward pass of a net does."""

    layers: list[bool]
    """Per layer whether it takes part."""
    bottoms: list[list[bool]]
    """Per layer and bottom whether its gradient is computed."""
    params: list[list[bool]]
    """Per layer and blob whether its gradient is computed."""


def backward_needs(
    layers: Sequence[LayerParameter],
    wiring: Wiring,
    losses: Sequence[Sequence[float]],
    blobs: Sequence[int],
    *,
    force: bool,
) -> Needs:
    """Tell what the backward pass does (`Net::Init` of `src/caffe/net.cpp`), in any phase.

    Args:
        layers: With their Splits.
        wiring: Theirs.
        losses: Per layer the loss weights of its tops.
        blobs: Per layer how many blobs it has.
        force: The net's ``force_backward``.
    """
    params = [
        [not number < len(layer.param) or layer.param[number].lr_mult != 0 for number in range(n)]
        for layer, n in zip(layers, blobs, strict=True)
    ]
    needs = _towards_losses(layers, wiring, params)
    _from_losses(wiring, losses, needs)
    if force:
        for layer, bottoms, own in zip(layers, needs.bottoms, params, strict=True):
            bottoms[:] = [
                needed or _may_force(layer, number) for number, needed in enumerate(bottoms)
            ]
            own[:] = [True] * len(own)
        needs.layers[:] = [True] * len(layers)
    return needs


def _towards_losses(
    layers: Sequence[LayerParameter], wiring: Wiring, params: list[list[bool]]
) -> Needs:
    """What depends on something to learn."""
    needing: set[int] = set()
    needs = Needs([], [], params)
    for place, layer in enumerate(layers):
        bottoms = [number in needing for number in wiring.bottoms[place]]
        needs.layers.append(any(bottoms) or any(params[place]))
        if needs.layers[-1]:
            needing.update(wiring.tops[place])
        needs.bottoms.append(list(layer.propagate_down) or bottoms)
    return needs


def _from_losses(wiring: Wiring, losses: Sequence[Sequence[float]], needs: Needs) -> None:
    """Leave out what no loss depends on, and what nothing passes a gradient on to."""
    under_loss: set[int] = set()
    skipped: set[int] = set()
    for place in reversed(range(len(wiring.tops))):
        tops = wiring.tops[place]
        contributes = any(losses[place]) or not under_loss.isdisjoint(tops)
        if needs.layers[place] and skipped.issuperset(tops):
            needs.layers[place] = False
            needs.bottoms[place][:] = [False] * len(needs.bottoms[place])
        if contributes:
            under_loss.update(wiring.bottoms[place])
        else:
            needs.layers[place] = False
            needs.bottoms[place][:] = [False] * len(needs.bottoms[place])
        for number, needed in zip(wiring.bottoms[place], needs.bottoms[place], strict=True):
            if not needed:
                skipped.add(number)


def _may_force(layer: LayerParameter, number: int) -> bool:
    """`Layer::AllowForceBackward`."""
    never = _NEVER_BACK.get(layer.type, 1 if layer.type.endswith("Loss") else None)
    return number != never
