"""When a unit is on: which activation stands behind it, and the layer that tells its state.

He et al. (2014) count a unit of a Sigmoid net as on where it puts out more than 0.5. For a ReLU it
is on where it puts out more than 0, which is our reading.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import TEST, LayerParameter, NetParameter
from pycaffe_prune.net.graph import NetGraph, NetState, Top, layers_in_state

__all__ = ["OnState", "on_states", "with_on_states"]

_THRESHOLDS: Mapping[str, float] = MappingProxyType({"ReLU": 0.0, "Sigmoid": 0.5})
_WITH_UNITS = frozenset({"Convolution", "Deconvolution", "InnerProduct"})
_CHANNEL_BY_CHANNEL = frozenset({"BatchNorm", "Bias", "Dropout", "LRN", "Pooling", "Scale"})
"""Types that put out a channel for each channel that they read, but are no activation."""
_ACTIVATIONS = frozenset(
    {"AbsVal", "BNLL", "ELU", "Exp", "Log", "PReLU", "Power", "Softmax", "Swish", "TanH"}
)


@dataclass(frozen=True)
class OnState:
    """Where the state of a layer's units shows."""

    layer: str
    activation: str
    """The layer whose top is compared with ``threshold``; unit u is channel u along axis 1."""
    threshold: float
    """On where the top is greater."""


def on_states(net: NetParameter, layers: Sequence[str]) -> list[OnState]:
    """Return where the states of the units of ``layers`` show, in their order.

    Raises:
        SurgeryError: The TEST net lacks a layer, or one has no units along axis 1, or no ReLU
            or Sigmoid right behind it, layers between left aside that keep channels apart.
    """
    graph = NetGraph(layers_in_state(net, NetState.of(net, TEST)))
    places = {layer.name: place for place, layer in enumerate(graph.layers)}
    found = []
    for name in layers:
        if name not in places:
            raise SurgeryError(f"the TEST net has no layer '{name}'")
        activation = graph.layers[_activation(graph, places[name])]
        found.append(OnState(name, activation.name, _THRESHOLDS[activation.type]))
    return found


def _activation(graph: NetGraph, place: int) -> int:
    """The place of the activation that the units of the layer at ``place`` go through."""
    start = graph.layers[place]
    if start.type not in _WITH_UNITS or _axis(start) != 1:
        raise _refusal(start, f"is a {start.type} whose units are not those along axis 1")
    while True:
        top = Top(place, 0)
        readers = [
            number
            for number, layer in enumerate(graph.layers)
            if top in graph.bottoms[number] and layer.type != "Silence"
        ]
        if len(readers) != 1:
            named = ", ".join(f"{graph.layers[number].name}" for number in readers) or "no layer"
            raise _refusal(start, f"is read by {named} before any ReLU or Sigmoid")
        (place,) = readers
        layer = graph.layers[place]
        if layer.type in _THRESHOLDS:
            _require_plain(start, layer)
            return place
        if layer.type not in _CHANNEL_BY_CHANNEL or len(layer.bottom) != 1:
            is_other = layer.type in _ACTIVATIONS
            why = ", which has no on and off" if is_other else " before any ReLU or Sigmoid"
            raise _refusal(start, f"leads to '{layer.name}' ({layer.type}){why}")


def _axis(layer: LayerParameter) -> int:
    if layer.type == "InnerProduct":
        return layer.inner_product_param.axis
    return layer.convolution_param.axis


def _require_plain(start: LayerParameter, layer: LayerParameter) -> None:
    if layer.type == "ReLU" and layer.relu_param.negative_slope:
        raise _refusal(
            start,
            f"leads to '{layer.name}' (ReLU) with negative_slope "
            f"{layer.relu_param.negative_slope:g}, behind which no unit is off",
        )


def _refusal(layer: LayerParameter, reason: str) -> SurgeryError:
    return SurgeryError(
        f"layer '{layer.name}' {reason}; a unit is on or off behind a Sigmoid (above 0.5) or a "
        "ReLU (above 0): leave the layer out, or take another criterion"
    )


def with_on_states(
    net: NetParameter, states: Sequence[OnState]
) -> tuple[NetParameter, dict[str, str]]:
    """Return the TEST net with a Threshold layer behind each activation that ``states`` name.

    A Threshold layer puts out 1 where its bottom is greater than its threshold, else 0
    (`src/caffe/layers/threshold_layer.cpp`).

    Returns:
        The net, and for each layer of ``states`` the blob that holds its units' states.
    """
    names = _free_names({blob for layer in net.layer for blob in layer.top})
    blobs: dict[str, str] = {}
    by_activation: dict[str, str] = {}
    for state in states:
        if state.activation not in by_activation:
            by_activation[state.activation] = next(names)
        blobs[state.layer] = by_activation[state.activation]
    thresholds = {state.activation: state.threshold for state in states}
    new = NetParameter(name=net.name)
    new.state.CopyFrom(net.state)
    for layer in layers_in_state(net, NetState.of(net, TEST)):
        new.layer.add().CopyFrom(layer)
        if layer.name in by_activation:
            blob = by_activation[layer.name]
            told = new.layer.add(name=blob, type="Threshold", bottom=[layer.top[0]], top=[blob])
            told.threshold_param.threshold = thresholds[layer.name]
    return new, blobs


def _free_names(taken: set[str]) -> Iterator[str]:
    number = 0
    while True:
        name = f"on_state_{number}"
        if name not in taken:
            yield name
        number += 1
