"""Unit pruning: score the units of InnerProduct layers and delete the lowest, physically.

Deleting unit i removes row i of its layer's weights, its bias, and column i of every InnerProduct
layer that reads it, through layers that work on each element alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.blobs import Blob
from pycaffe_prune.formats.caffe_pb2 import LayerParameter, NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer
from pycaffe_prune.net.graph import NetGraph
from pycaffe_prune.pruning.counts import require_finite
from pycaffe_prune.pruning.criteria.units import unit_criterion, units_to_keep

__all__ = [
    "Kept",
    "choose_units",
    "delete_units",
    "following_layers",
    "prunable_layers",
    "unit_weights",
]

Kept = Mapping[str, NDArray[np.bool_]]
"""Per pruned layer, shape (units,), True = kept."""

_INNER_PRODUCT = "InnerProduct"
_ELEMENTWISE = frozenset(
    {
        "AbsVal",
        "BNLL",
        "Dropout",
        "ELU",
        "Exp",
        "Log",
        "Power",
        "ReLU",
        "Sigmoid",
        "TanH",
        "Threshold",
    }
)
_ENDS = frozenset(
    {
        "Accuracy",
        "ArgMax",
        "ContrastiveLoss",
        "EuclideanLoss",
        "HDF5Output",
        "HingeLoss",
        "InfogainLoss",
        "MultinomialLogisticLoss",
        "SigmoidCrossEntropyLoss",
        "Softmax",
        "SoftmaxWithLoss",
    }
)


class _BlockedError(Exception):
    def __init__(self, consumer: LayerParameter) -> None:
        super().__init__(consumer.name)
        self.layer, self.type = consumer.name, consumer.type


def _readers(graph: NetGraph, name: str) -> set[str]:
    """Names of the InnerProduct layers that read layer ``name`` in this graph."""
    found: set[str] = set()
    pending, seen = [name], {name}
    while pending:
        for consumer in graph.consumers(pending.pop()):
            if consumer.name in seen:
                continue
            seen.add(consumer.name)
            if consumer.type == _INNER_PRODUCT:
                found.add(consumer.name)
            elif consumer.type in _ELEMENTWISE:
                pending.append(consumer.name)
            elif consumer.type == "Silence":
                continue
            else:
                raise _BlockedError(consumer)
    return found


def following_layers(net: NetParameter, name: str) -> list[str]:
    """Return the InnerProduct layers that read the units of the InnerProduct layer ``name``.

    Raises:
        SurgeryError: ``name`` is no InnerProduct layer of the net, is an output layer, is read by a
            layer type through which units cannot be deleted, or parameters are shared.
    """
    layer = next((layer for layer in net.layer if layer.name == name), None)
    if layer is None:
        names = ", ".join(item.name for item in net.layer if item.type == _INNER_PRODUCT)
        raise SurgeryError(f"the net has no layer '{name}'; its InnerProduct layers: {names}")
    if layer.type != _INNER_PRODUCT:
        raise SurgeryError(
            f"layer '{name}' is a {layer.type}; units are those of InnerProduct layers"
        )
    found: dict[str, None] = {}
    for graph in NetGraph.of_both_phases(net):
        try:
            found.update(dict.fromkeys(sorted(_readers(graph, name))))
        except _BlockedError as stop:
            if stop.type in _ENDS:
                raise SurgeryError(
                    f"layer '{name}' is an output layer (read by '{stop.layer}', {stop.type}); "
                    "the units of an output layer are never pruned"
                ) from None
            raise SurgeryError(
                f"layer '{name}' is read by layer '{stop.layer}' of type {stop.type}, through "
                "which units cannot be deleted; leave it out with --layers"
            ) from None
    if not found:
        raise SurgeryError(
            f"layer '{name}' is an output layer: no InnerProduct layer reads its units"
        )
    for affected in (name, *found):
        _refuse_shared(net, affected)
    return list(found)


def _refuse_shared(net: NetParameter, name: str) -> None:
    """Refuse a layer whose parameters another layer uses too: that one would not shrink with it."""
    own = {spec.name for spec in _definition(net, name).param if spec.name}
    for other in net.layer:
        shared = own.intersection(spec.name for spec in other.param)
        if other.name != name and shared:
            raise SurgeryError(
                f"layer '{name}' shares its parameter '{min(shared)}' with layer '{other.name}'; "
                "units of layers that share parameters cannot be deleted, leave them out with "
                "--layers"
            )


def prunable_layers(net: NetParameter) -> list[str]:
    """Return the InnerProduct layers whose units can be deleted, in the net's order."""
    names = dict.fromkeys(layer.name for layer in net.layer if layer.type == _INNER_PRODUCT)
    return [name for name in names if _is_prunable(net, name)]


def _is_prunable(net: NetParameter, name: str) -> bool:
    try:
        following_layers(net, name)
    except SurgeryError:
        return False
    return True


def unit_weights(net: NetParameter, model: Caffemodel, name: str) -> Blob:
    """Return the weights of the InnerProduct layer ``name`` as (outputs, inputs), a view.

    ``transpose`` is undone: row i belongs to unit i.

    Raises:
        SurgeryError: The caffemodel's weights are not those of the net's layer.
        FormatError: The caffemodel has no such layer.
    """
    layer = model.layer(name)
    param = _definition(net, name)
    outputs = param.inner_product_param.num_output
    if not layer.blobs or layer.blobs[0].ndim != 2:
        raise SurgeryError(f"layer '{name}' of the caffemodel holds no two-dimensional weights")
    weights = layer.blobs[0].T if param.inner_product_param.transpose else layer.blobs[0]
    if weights.shape[0] != outputs:
        raise SurgeryError(
            f"layer '{name}': the net says num_output {outputs}, the caffemodel's weights are "
            f"{_extents(layer.blobs[0])}; they belong to different nets"
        )
    return weights


def _definition(net: NetParameter, name: str) -> LayerParameter:
    return next(layer for layer in net.layer if layer.name == name)


def choose_units(
    net: NetParameter,
    model: Caffemodel,
    ratios: Mapping[str, float],
    *,
    criterion: str = "onorm",
    seed: int = 0,
) -> dict[str, NDArray[np.bool_]]:
    """Score the units of each layer once and keep all but the lowest (paper section 6).

    Args:
        net: The network's definition.
        model: Its weights.
        ratios: Per layer, the share of its units to delete.
        criterion: A name in `criteria.units.UNIT_CRITERIA`.
        seed: For the criterion ``random``.

    Returns:
        Per layer, shape (units,), True = kept.

    Raises:
        SurgeryError: A layer is none whose units can be deleted, weights are not finite, or net
            and weights do not fit.
    """
    score = unit_criterion(criterion)
    kept = {}
    for name, ratio in ratios.items():
        readers = following_layers(net, name)
        require_finite(model, [name, *readers])
        incoming, outgoing = _weights_around(net, model, name, readers)
        kept[name] = units_to_keep(score(incoming, np.concatenate(outgoing), seed), ratio)
    return kept


def _weights_around(
    net: NetParameter, model: Caffemodel, name: str, readers: Sequence[str]
) -> tuple[Blob, list[Blob]]:
    """The weights of ``name`` and those of its readers, all as (outputs, inputs), that do fit."""
    incoming = unit_weights(net, model, name)
    outgoing = [unit_weights(net, model, reader) for reader in readers]
    for reader, weights in zip(readers, outgoing, strict=True):
        if weights.shape[1] != incoming.shape[0]:
            raise SurgeryError(
                f"layer '{reader}' reads the units of layer '{name}', but its weights are "
                f"{_extents(weights)} (outputs x inputs) and those of '{name}' "
                f"{_extents(incoming)}; they belong to different nets"
            )
    return incoming, outgoing


def _extents(blob: Blob) -> str:
    return "x".join(map(str, blob.shape))


def delete_units(
    net: NetParameter, model: Caffemodel, kept: Kept
) -> tuple[NetParameter, Caffemodel]:
    """Delete the units that ``kept`` does not keep, in the definition and in the weights.

    Returns:
        The smaller net and its smaller caffemodel; both are new, the arguments are untouched.

    Raises:
        SurgeryError: As `choose_units`, or ``kept`` has another length than a layer has units, or
            keeps none of them.
    """
    small_net = NetParameter()
    small_net.CopyFrom(net)
    smaller: dict[str, Layer] = {}
    for name, keep in kept.items():
        readers = following_layers(net, name)
        incoming, _ = _weights_around(net, model, name, readers)
        if keep.shape != incoming.shape[:1] or not keep.any():
            raise SurgeryError(
                f"layer '{name}' has {incoming.shape[0]} units; {int(keep.sum())} of {keep.size} "
                "cannot be kept"
            )
        for definition in small_net.layer:
            if definition.name == name:
                definition.inner_product_param.num_output = int(keep.sum())
        layer = smaller.get(name, model.layer(name))
        smaller[name] = _without_outputs(layer, keep, _transposed(net, name))
        for reader in readers:
            layer = smaller.get(reader, model.layer(reader))
            smaller[reader] = _without_inputs(layer, keep, _transposed(net, reader))
    layers = tuple(smaller.get(layer.name, layer) for layer in model.layers)
    return small_net, replace(model, layers=layers)


def _transposed(net: NetParameter, name: str) -> bool:
    return _definition(net, name).inner_product_param.transpose


def _without_outputs(layer: Layer, keep: NDArray[np.bool_], transposed: bool) -> Layer:
    weights, *bias = layer.blobs
    param = LayerParameter()
    param.CopyFrom(layer.param)
    param.inner_product_param.num_output = int(keep.sum())
    smaller = np.compress(keep, weights, axis=1 if transposed else 0)
    return Layer(param, (smaller, *(blob[keep] for blob in bias)))


def _without_inputs(layer: Layer, keep: NDArray[np.bool_], transposed: bool) -> Layer:
    weights, *bias = layer.blobs
    return Layer(layer.param, (np.compress(keep, weights, axis=0 if transposed else 1), *bias))
