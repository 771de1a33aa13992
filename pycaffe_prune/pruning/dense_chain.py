"""The fully connected end of a net in NumPy: which answers stay right when units go.

InnerProduct layers one after another, with activations between that take each value by itself. What
the first of them puts out is computed once; then a set of units is judged in milliseconds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.blobs import Blob
from pycaffe_prune.formats.caffe_pb2 import TEST, LayerParameter, NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel
from pycaffe_prune.net.graph import NetGraph, NetState, Top, layers_in_state

__all__ = ["DenseChain", "dense_chain"]

Flags = NDArray[np.bool_]
_Activation = Callable[[Blob], Blob]


def _sigmoid(values: Blob) -> Blob:
    # As Caffe computes it (`src/caffe/layers/sigmoid_layer.cpp`).
    return np.asarray(0.5 * np.tanh(0.5 * values) + 0.5, np.float32)


_ACTIVATIONS: Mapping[str, _Activation] = MappingProxyType(
    {
        "Dropout": lambda values: values,  # of the phase TEST
        "ReLU": lambda values: np.maximum(values, 0),
        "Sigmoid": _sigmoid,
        "TanH": np.tanh,
    }
)


@dataclass(frozen=True)
class _Dense:
    name: str
    weights: Blob
    """Outputs × inputs."""
    bias: Blob
    activations: tuple[_Activation, ...]


@dataclass(frozen=True)
class DenseChain:
    """InnerProduct layers from one whose units may go to the scores."""

    first: str
    activated: str
    """The layer whose top has the units of ``first`` as the next layer reads them."""
    rest: tuple[_Dense, ...]

    @property
    def hidden(self) -> list[str]:
        """The layers whose units may go, in order."""
        return [self.first, *(layer.name for layer in self.rest[:-1])]

    def scores(self, units: Blob, kept: Mapping[str, Flags]) -> Blob:
        """Compute the scores of the smaller net.

        Args:
            units: What ``activated`` puts out: units of ``first`` × images, the quicker way round.
            kept: Per layer of ``hidden`` that loses units, shape (units,), True = kept.

        Returns:
            Classes × images, float32.
        """
        reading = kept.get(self.first)
        values = units if reading is None else units[reading]
        for layer in self.rest:
            weights, bias = layer.weights, layer.bias
            if reading is not None:
                weights = weights[:, reading]
            reading = kept.get(layer.name)
            if reading is not None:
                weights, bias = weights[reading], bias[reading]
            values = weights @ values + bias[:, None]
            for activation in layer.activations:
                values = activation(values)
        return values


def dense_chain(
    net: NetParameter, model: Caffemodel, layers: Sequence[str], scores: str
) -> DenseChain:
    """Follow the TEST net from the first of ``layers`` to its scores.

    Args:
        net: In the V2 form.
        model: Its weights.
        layers: Those whose units are to go; all must lie on the way.
        scores: The blob that the net is judged by.

    Raises:
        SurgeryError: A layer of the way is no InnerProduct or activation, the way forks, it does
            not end at the scores, or one of ``layers`` is not on it before its end.
        FormatError: The caffemodel lacks a layer.
    """
    graph = NetGraph(layers_in_state(net, NetState.of(net, TEST)))
    places = {layer.name: place for place, layer in enumerate(graph.layers)}
    wanted = [name for name in places if name in layers]
    if not wanted:
        raise SurgeryError(f"the TEST net has none of the layers {', '.join(layers)}")
    place = places[wanted[0]]
    _require_dense(graph.layers[place])
    final = Top(max(at for at, layer in enumerate(graph.layers) if scores in layer.top), 0)
    place, _ = _through_activations(graph, place, final)
    activated = graph.layers[place].name
    rest: list[_Dense] = []
    while Top(place, 0) != final:
        place = _only_reader(graph, place)
        layer = graph.layers[place]
        _require_dense(layer)
        place, activations = _through_activations(graph, place, final)
        rest.append(_dense(layer, model, activations))
    chain = DenseChain(wanted[0], activated, tuple(rest))
    for name in wanted:
        if name not in chain.hidden or not rest:
            raise SurgeryError(f"layer '{name}' is not before the end of the way to '{scores}'")
    return chain


def _through_activations(
    graph: NetGraph, place: int, final: Top
) -> tuple[int, tuple[_Activation, ...]]:
    """The place of the last activation behind an InnerProduct layer, and all of them."""
    found: list[_Activation] = []
    while Top(place, 0) != final:
        reader = _only_reader(graph, place)
        layer = graph.layers[reader]
        if layer.type not in _ACTIVATIONS:
            break
        if layer.type == "ReLU" and layer.relu_param.negative_slope:
            raise _refusal(layer, "has a negative_slope")
        found.append(_ACTIVATIONS[layer.type])
        place = reader
    return place, tuple(found)


def _only_reader(graph: NetGraph, place: int) -> int:
    top = Top(place, 0)
    readers = [
        at
        for at, layer in enumerate(graph.layers)
        if top in graph.bottoms[at] and layer.type != "Silence"
    ]
    if len(readers) != 1:
        raise _refusal(graph.layers[place], f"is read by {len(readers)} layers")
    return readers[0]


def _require_dense(layer: LayerParameter) -> None:
    if layer.type != "InnerProduct" or len(layer.bottom) != 1:
        raise _refusal(layer, "is none of these")
    if layer.inner_product_param.axis != 1:
        raise _refusal(layer, f"has axis {layer.inner_product_param.axis}")


def _refusal(layer: LayerParameter, reason: str) -> SurgeryError:
    return SurgeryError(
        f"layer '{layer.name}' ({layer.type}) {reason}: sets of units are judged by InnerProduct "
        "layers one after another, with ReLU, Sigmoid, TanH or Dropout between; choose --layers of "
        "that end of the net"
    )


def _dense(
    layer: LayerParameter, model: Caffemodel, activations: tuple[_Activation, ...]
) -> _Dense:
    blobs = model.layer(layer.name).blobs
    if not blobs:
        raise SurgeryError(f"layer '{layer.name}' of the caffemodel holds no weights")
    weights = blobs[0].reshape(blobs[0].shape[-2:])  # old files have 1 x 1 before
    weights = weights.T if layer.inner_product_param.transpose else weights
    bias = blobs[1].reshape(-1) if len(blobs) > 1 else np.zeros(len(weights), np.float32)
    return _Dense(layer.name, np.ascontiguousarray(weights), bias, activations)
