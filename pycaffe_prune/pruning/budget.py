"""Budgets: how many parameters, multiply-accumulates or bytes a net may have."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

import numpy as np

from pycaffe_prune.errors import FormatError, SurgeryError
from pycaffe_prune.formats.caffe_pb2 import TEST, TRAIN, LayerParameter, NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer, caffemodel_size
from pycaffe_prune.net.counts import count_layers
from pycaffe_prune.net.graph import NetState, layers_in_state
from pycaffe_prune.net.shapes import Shape

__all__ = ["Quantity", "SizeBudget", "dense_amount", "parse_budget"]

Quantity = Literal["parameters", "macs", "bytes"]
"""What a budget counts, as `pruning.sizes.NetSize` counts it."""

_NO_INPUTS: Mapping[str, Shape] = MappingProxyType({})


@dataclass(frozen=True)
class SizeBudget:
    """The most of something that a net may have."""

    quantity: Quantity
    amount: int


def parse_budget(text: str) -> tuple[Quantity, int | float]:
    """Read ``parameters=26000``, or ``macs=0.1`` for a share of what the whole net has.

    Returns:
        The quantity, and a number of 1 or more, or a share above 0 and below 1.

    Raises:
        FormatError: It is neither.
    """
    name, _, value = text.partition("=")
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    for quantity in get_args(Quantity):
        if name == quantity and 0 < number < 1:
            return quantity, number
        if name == quantity and number >= 1 and number.is_integer():
            return quantity, int(number)
    names = ", ".join(get_args(Quantity))
    raise FormatError(
        f"'{text}' is no budget; it is one of {names}, with a whole number or a share of the whole "
        "net, such as parameters=26000 or macs=0.1"
    )


def dense_amount(
    net: NetParameter, quantity: Quantity, inputs: Mapping[str, Shape] = _NO_INPUTS
) -> int:
    """Count a net by its definition, no weight of it zero.

    Args:
        net: The definition; its own level and stages choose the layers, with the phase TEST.
        quantity: What is counted. Bytes are those of the caffemodel of the layers with blobs, with
            the definitions as Caffe saves them while it trains.
        inputs: Shapes of blobs that the prototxt does not tell, as for `infer_shapes`.

    Raises:
        SurgeryError: A shape that the count needs is not known, or the net contradicts itself.
    """
    layers = layers_in_state(net, NetState.of(net, TEST))
    counted = count_layers(layers, inputs)
    for row in counted:
        if row.problem is not None:
            raise SurgeryError(f"the size of the net is not known: {row.problem}")
        if row.macs is None and quantity == "macs":
            raise SurgeryError(f"how often layer '{row.name}' multiplies is no whole number")
    if quantity == "parameters":
        return sum(row.weights + row.biases + row.statistics for row in counted)
    if quantity == "macs":
        return sum(row.macs or 0 for row in counted)
    stored = [
        Layer(
            _as_saved(layer), tuple(np.broadcast_to(np.float32(0), shape) for shape in row.params)
        )
        for layer, row in zip(layers, counted, strict=True)
        if row.params
    ]
    return caffemodel_size(Caffemodel(tuple(stored), NetParameter(name=net.name)))


def _as_saved(layer: LayerParameter) -> LayerParameter:
    """`Net::Init` of `src/caffe/net.cpp` gives each layer the phase of its net."""
    saved = LayerParameter()
    saved.CopyFrom(layer)
    if not saved.HasField("phase"):
        saved.phase = TRAIN
    return saved
