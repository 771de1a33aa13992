"""Which rank each layer gets: by the energy that it keeps, or by what all of them may take."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import TEST, NetParameter
from pycaffe_prune.net.counts import LayerCounts, count_layers
from pycaffe_prune.net.graph import NetState, layers_in_state
from pycaffe_prune.net.shapes import Shape
from pycaffe_prune.pruning.factoring import Split, with_two_layers
from pycaffe_prune.pruning.low_rank import Decomposition, Way

__all__ = [
    "Cost",
    "mac_costs",
    "paying_ranks",
    "ranks_of_energy",
    "ranks_within",
    "weight_costs",
]

_Array = NDArray[np.float64]
_HALVINGS = 100
_NO_INPUTS: Mapping[str, Shape] = MappingProxyType({})


@dataclass(frozen=True)
class Cost:
    """What a layer takes."""

    whole: int
    """As it is."""
    of_rank: int
    """Both layers in its place, for each rank."""

    @property
    def most(self) -> int:
        """The highest rank with which the two layers take less; 0: none does."""
        return max(0, (self.whole - 1) // self.of_rank)

    def at(self, rank: int) -> int:
        """What is taken at ``rank``: the layer stays whole where two take no less."""
        return self.of_rank * rank if rank <= self.most else self.whole


def weight_costs(decompositions: Mapping[str, Decomposition]) -> dict[str, Cost]:
    """Return the weights of each layer, whole and factored; biases stay as they are."""
    found = {}
    for name, one in decompositions.items():
        groups, rows, _ = one.left.shape
        columns = one.right.shape[2]
        found[name] = Cost(groups * rows * columns, groups * (rows + columns))
    return found


def mac_costs(
    net: NetParameter, ways: Mapping[str, Way], inputs: Mapping[str, Shape] = _NO_INPUTS
) -> dict[str, Cost]:
    """Return the multiply-accumulates of each layer for one image of the TEST net.

    Args:
        net: The definition.
        ways: How each layer is factored.
        inputs: Shapes of blobs that the prototxt does not tell, as for `infer_shapes`.

    Raises:
        SurgeryError: A shape that the count needs is not known, or a layer is not in that net.
    """
    of_rank_1 = {name: Split(way, 1) for name, way in ways.items()}
    whole = {row.name: row for row in _counts(net, inputs)}
    factored = _counts(with_two_layers(net, of_rank_1), inputs)
    places = {row.name: place for place, row in enumerate(factored)}
    found = {}
    for name in ways:
        if name not in whole:
            raise SurgeryError(f"layer '{name}' is not in the TEST net, whose MACs are counted")
        pair = factored[places[name] - 1 : places[name] + 1]
        found[name] = Cost(_macs(whole[name]), sum(map(_macs, pair)))
    return found


def _counts(net: NetParameter, inputs: Mapping[str, Shape]) -> tuple[LayerCounts, ...]:
    return count_layers(layers_in_state(net, NetState.of(net, TEST)), inputs)


def _macs(row: LayerCounts) -> int:
    if row.macs is None:
        raise SurgeryError(
            f"the MACs of layer '{row.name}' are not known: "
            f"{row.problem or 'how often it multiplies is no whole number'}"
        )
    return row.macs


def ranks_of_energy(
    decompositions: Mapping[str, Decomposition], energies: Mapping[str, float]
) -> dict[str, int]:
    """Return for each layer the lowest rank that keeps its share of the squared singular values.

    Raises:
        SurgeryError: A share is not above 0 and at most 1.
    """
    for name, energy in energies.items():
        if not 0 < energy <= 1:
            raise SurgeryError(f"layer '{name}' cannot keep {energy} of its energy; from 0 to 1")
    return {name: decompositions[name].rank_of(energy) for name, energy in energies.items()}


def ranks_within(
    decompositions: Mapping[str, Decomposition], taken: Mapping[str, Cost], amount: float
) -> dict[str, int]:
    """Return the ranks by which the product of the layers' energies is highest for its size.

    Nothing else that takes as much has a higher one: each layer gets what is best at one price of a
    weight (or multiply-accumulate), the lowest price at which all are within the budget.

    Args:
        decompositions: Of each layer.
        taken: What each takes.
        amount: What all of them may take together.

    Returns:
        Ranks of the layers that are factored; the others stay whole.

    Raises:
        SurgeryError: Not even the rank 1 of all of them is within it.
    """
    choices = {name: _choices(one, taken[name]) for name, one in decompositions.items()}

    def at(price: float) -> dict[str, int]:
        return {
            name: int(np.argmax(logarithms - price * costs))
            for name, (costs, logarithms) in choices.items()
        }

    def is_within(chosen: Mapping[str, int]) -> bool:
        return bool(sum(choices[name][0][place] for name, place in chosen.items()) <= amount)

    dear = dict.fromkeys(choices, 0)
    if not is_within(dear):
        least = sum(costs[0] for costs, _ in choices.values())
        raise SurgeryError(f"rank 1 takes {least:,.0f}, more than the {amount:,.0f} of the budget")
    low, high = 0.0, 1 - min(logarithms[0] for _, logarithms in choices.values())
    found = at(low)
    if not is_within(found):
        found = dear  # as at the price `high`: nothing gains so much, and a rank takes 1 at least
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            if is_within(chosen := at(middle)):
                high, found = middle, chosen
            else:
                low = middle
    return {name: place + 1 for name, place in found.items() if place + 1 < len(choices[name][0])}


def _choices(one: Decomposition, cost: Cost) -> tuple[_Array, _Array]:
    """What each rank that pays takes, from 1 on, and the logarithm of what it keeps; last whole."""
    most = min(cost.most, one.full_rank)
    ranks = np.arange(1, most + 1)
    return (
        np.append(ranks * float(cost.of_rank), cost.whole),
        np.log(np.append(one.energies[:most], 1.0)),
    )


def paying_ranks(ranks: Mapping[str, int], taken: Mapping[str, Cost]) -> dict[str, int]:
    """Return the ranks of the layers whose two layers take less than the one that there is."""
    return {name: rank for name, rank in ranks.items() if rank <= taken[name].most}
