"""Connections or units pruned at rates, and the rates with which the pruned net is within a budget.

What decides is the count of the pruned net itself: it is never over the budget.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import BlobKey, Caffemodel
from pycaffe_prune.formats.mask import Mask
from pycaffe_prune.net.shapes import Shape
from pycaffe_prune.pruning.allocation import CostCurve
from pycaffe_prune.pruning.budget import Quantity
from pycaffe_prune.pruning.budget_rates import (
    Amount,
    candidate_rates,
    fitted,
    one_rate,
    rates_within,
)
from pycaffe_prune.pruning.connections import apply_masks, prune_to_ratios
from pycaffe_prune.pruning.rate_amounts import (
    amount_dense,
    amount_sparse,
    connection_amount,
    unit_amount,
    whole_units,
)
from pycaffe_prune.pruning.sharing import masks_for_all, shared_blobs
from pycaffe_prune.pruning.sizes import net_size
from pycaffe_prune.pruning.units import Kept, choose_units, delete_units, mask_units

__all__ = [
    "Pruned",
    "Rates",
    "Way",
    "budget_of",
    "own_rates",
    "same_rate",
    "way_of_connections",
    "way_of_units",
]

_DIGITS = 6
"""Of a rate: as many as people are asked to type, so what is measured is what they get."""
_NO_INPUTS: Mapping[str, Shape] = MappingProxyType({})

Rates = Mapping[str, float]


@dataclass(frozen=True)
class Pruned:
    """The net at some rates."""

    model: Caffemodel
    """At full size, with zeros."""
    amount: int
    """What is left."""
    kept: Mapping[str, int]
    """Weights or units left in each layer that has a rate."""
    masks: Mapping[BlobKey, Mask]
    """Of connections."""
    units: Kept
    """Of units: which stay."""


@dataclass(frozen=True)
class Way:
    """How layers are pruned at rates, and what that leaves."""

    amount: Amount
    """Quick; of connections in bytes what is expected only."""
    said: Callable[[Rates], dict[str, float]]
    """The rates as they are said, which prune as much or almost."""
    prune: Callable[[Rates], Pruned]


def budget_of(
    net: NetParameter,
    model: Caffemodel,
    quantity: Quantity,
    wanted: float,
    inputs: Mapping[str, Shape] = _NO_INPUTS,
) -> tuple[int, int]:
    """Return a budget, and what the whole net has, dense.

    Args:
        net: The definition.
        model: Its weights.
        quantity: What is counted.
        wanted: The most that may be left, or below 1 its share of what the whole net has.
        inputs: Shapes of blobs that the prototxt does not tell, as for `infer_shapes`.

    Raises:
        SurgeryError: The count is not known.
    """
    whole = amount_dense(net_size(net, model, inputs), quantity)
    return (int(wanted * whole) if wanted < 1 else int(wanted)), whole


def own_rates(way: Way, curves: Mapping[str, CostCurve], budget: int) -> dict[str, float]:
    """Return a rate for each layer, so that together they cost little within the budget.

    Raises:
        SurgeryError: The highest rates of the curves leave more than the budget.
    """
    candidates = {
        name: sorted(
            {way.said({name: rate})[name] for rate in candidate_rates(curve.rates[-1], curve.rates)}
        )
        for name, curve in curves.items()
    }
    return fitted(
        lambda target: way.said(rates_within(curves, candidates, way.amount, target)),
        lambda rates: way.prune(rates).amount,
        budget,
    )


def same_rate(way: Way, last: Rates, budget: int) -> dict[str, float]:
    """Return the lowest rate for all layers within the budget.

    Args:
        way: How layers are pruned.
        last: The highest rate that each layer may have.
        budget: Of what is left.

    Raises:
        SurgeryError: The highest rates leave more than the budget.
    """
    return fitted(
        lambda target: way.said(one_rate(last, way.amount, target)),
        lambda rates: way.prune(rates).amount,
        budget,
    )


def way_of_connections(
    net: NetParameter,
    model: Caffemodel,
    places: Mapping[str, Sequence[BlobKey]],
    quantity: Quantity,
    inputs: Mapping[str, Shape] = _NO_INPUTS,
) -> Way:
    """Prune the lowest weights of each layer; arguments and errors as `connection_amount`."""
    shared = shared_blobs(net)

    def prune(rates: Rates) -> Pruned:
        own = {key: rates[name] for name in rates for key in places[name]}
        _, masks = prune_to_ratios(model, own)
        everywhere = masks_for_all(shared, model, masks)
        pruned = apply_masks(model, everywhere)
        kept = {name: sum(int(masks[key].sum()) for key in places[name]) for name in rates}
        amount = amount_sparse(net_size(net, pruned, inputs), quantity)
        return Pruned(pruned, amount, kept, everywhere, {})

    def said(rates: Rates) -> dict[str, float]:
        return {name: float(f"{rate:.{_DIGITS}g}") for name, rate in rates.items()}

    return Way(connection_amount(net, model, places, quantity, inputs), said, prune)


def way_of_units(
    net: NetParameter,
    model: Caffemodel,
    counts: Mapping[str, int],
    quantity: Quantity,
    criterion: str = "onorm",
    inputs: Mapping[str, Shape] = _NO_INPUTS,
) -> Way:
    """Delete the lowest units of each layer; arguments and errors as `unit_amount`.

    ``counts`` are the units of each layer that has a rate.
    """

    def prune(rates: Rates) -> Pruned:
        units = choose_units(net, model, rates, criterion=criterion)
        small = net_size(*delete_units(net, model, units), inputs)
        kept = {name: int(units[name].sum()) for name in rates}
        masked = mask_units(net, model, units)
        return Pruned(masked, amount_dense(small, quantity), kept, {}, units)

    def said(rates: Rates) -> dict[str, float]:
        whole = whole_units(counts, rates)
        return {name: float(f"{rate:.{_DIGITS}g}") for name, rate in whole.items()}

    return Way(unit_amount(net, model, quantity, criterion, inputs), said, prune)
