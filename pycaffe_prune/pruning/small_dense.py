"""Small dense nets by budget: all hidden layers narrowed by one factor, trained from scratch.

The control for every way to shrink a net: what a plain net of the same size reaches.
"""

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from types import MappingProxyType

import numpy as np

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.net.channel_trace import trace_channels
from pycaffe_prune.net.channels import Channels
from pycaffe_prune.net.shapes import Shape
from pycaffe_prune.net.widths import with_widths
from pycaffe_prune.pruning.budget import Quantity, SizeBudget, dense_amount
from pycaffe_prune.pruning.coupled import coupled_layers

__all__ = ["hidden_layers", "least_amount", "small_widths"]

_NO_INPUTS: Mapping[str, Shape] = MappingProxyType({})


def hidden_layers(net: NetParameter) -> list[str]:
    """Return the InnerProduct and Convolution layers whose units could go, in the net's order.

    Raises:
        SurgeryError: The net contradicts itself.
    """
    return list(_hidden(net, trace_channels(net)))


def _hidden(net: NetParameter, channels: Channels) -> dict[str, int]:
    """The hidden layers with their numbers of units."""
    types = {layer.name: layer.type for layer in net.layer}
    return {
        name: ids.size
        for name, ids in channels.units.items()
        if types[name] in ("InnerProduct", "Convolution")
        and not all(channel in channels.fixed for channel in ids.tolist())
    }


def small_widths(
    net: NetParameter,
    budget: SizeBudget,
    layers: Sequence[str] | None = None,
    inputs: Mapping[str, Shape] = _NO_INPUTS,
) -> dict[str, int]:
    """Return how many units each hidden layer has in the largest small net within the budget.

    All widths are the net's own times one factor, rounded down, and at least 1. Where Convolutions
    take channels in groups, they are whole multiples of what the groups need. No net of a larger
    factor is within the budget.

    Args:
        net: The definition of the whole net.
        budget: What the small net may have (`dense_amount`).
        layers: Those that are narrowed; None: all `hidden_layers`.
        inputs: Shapes of blobs that the prototxt does not tell, as for `infer_shapes`.

    Returns:
        The ``num_output`` of each narrowed layer, for `with_widths`.

    Raises:
        SurgeryError: Not even the narrowest net is within the budget, a layer is none that can be
            narrowed, or the count is not known.
    """
    whole, steps = _narrowed(net, layers)

    def is_within(factor: Fraction) -> bool:
        scaled = with_widths(net, _scaled(whole, steps, factor))
        return dense_amount(scaled, budget.quantity, inputs) <= budget.amount

    if not is_within(Fraction(0)):
        least = least_amount(net, budget.quantity, layers, inputs)
        raise SurgeryError(
            f"the narrowest net has {least:,} {budget.quantity}, more than the {budget.amount:,} "
            "of the budget"
        )
    high = Fraction(1)
    while is_within(high):
        high *= 2
    factors = _factors(whole, steps, high)
    # Widths grow with the factor, and the size with the widths: the first one beyond is looked for.
    best = factors[bisect_left(factors, True, key=lambda one: not is_within(one)) - 1]
    return _scaled(whole, steps, best)


def least_amount(
    net: NetParameter,
    quantity: Quantity,
    layers: Sequence[str] | None = None,
    inputs: Mapping[str, Shape] = _NO_INPUTS,
) -> int:
    """Return what the narrowest net has of a quantity; see `small_widths`.

    Raises:
        SurgeryError: A layer is none that can be narrowed, or the count is not known.
    """
    narrowest = _scaled(*_narrowed(net, layers), Fraction(0))
    return dense_amount(with_widths(net, narrowest), quantity, inputs)


def _narrowed(
    net: NetParameter, layers: Sequence[str] | None
) -> tuple[dict[str, int], dict[str, int]]:
    """The layers to narrow with their widths, and of what each layer's width is a multiple."""
    channels = trace_channels(net)
    hidden = _hidden(net, channels)
    for name in layers or ():
        if name not in hidden:
            raise SurgeryError(
                f"layer '{name}' is no hidden InnerProduct or Convolution layer of the net, which "
                f"are: {', '.join(hidden)}"
            )
    whole = {name: width for name, width in hidden.items() if layers is None or name in layers}
    if not whole:
        raise SurgeryError("the net has no hidden layer that could be narrowed")
    _require_free(net, channels, whole)
    return whole, _steps(channels)


def _scaled(whole: Mapping[str, int], steps: Mapping[str, int], factor: Fraction) -> dict[str, int]:
    return {
        name: max(1, math.floor(factor * width / steps[name])) * steps[name]
        for name, width in whole.items()
    }


def _factors(whole: Mapping[str, int], steps: Mapping[str, int], high: Fraction) -> list[Fraction]:
    """Every factor from 0 to ``high`` at which the width of a layer changes."""
    found = {
        Fraction(count * steps[name], width)
        for name, width in whole.items()
        for count in range(math.floor(high * width / steps[name]) + 1)
    }
    return sorted(found)


def _steps(channels: Channels) -> dict[str, int]:
    """Of what each layer's width is a whole multiple: equally many channels make up each group."""
    return {
        name: math.lcm(*(len(grouping.ids) for grouping in coupled.groupings))
        for coupled in coupled_layers(channels)
        for name in coupled.layers
    }


def _require_free(net: NetParameter, channels: Channels, names: Iterable[str]) -> None:
    """Refuse widths that the definition of another layer repeats."""
    types = {layer.name: layer for layer in net.layer}
    told = {**channels.group_of, **channels.reshapes}
    for name, tops in channels.slices.items():
        if types[name].slice_param.slice_point:
            told[name] = np.concatenate(tops)
    for name in names:
        for other, ids in told.items():
            if np.isin(channels.units[name], ids).any():
                raise SurgeryError(
                    f"layer '{name}' cannot be narrowed alone: the definition of layer '{other}' "
                    f"({types[other].type}) counts its units too"
                )
