"""Which rank each layer gets: by the energy that it keeps, or by what all of them may take."""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

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
    """Return the ranks of one energy for all layers, the highest that the budget allows.

    Args:
        decompositions: Of each layer.
        taken: What each takes; one whose two layers would take no less stays whole.
        amount: What all of them may take together.

    Raises:
        SurgeryError: Not even the rank 1 of all of them is within it.
    """

    def total(ranks: Mapping[str, int]) -> int:
        return sum(taken[name].at(rank) for name, rank in ranks.items())

    def at(energy: float) -> dict[str, int]:
        return {name: one.rank_of(energy) for name, one in decompositions.items()}

    least = total(at(0))
    if least > amount:
        raise SurgeryError(f"rank 1 takes {least:,}, more than the {amount:,.0f} of the budget")
    levels = sorted({level for one in decompositions.values() for level in one.energies.tolist()})
    found = bisect_right(levels, amount, key=lambda level: total(at(level)))
    return at(levels[found - 1]) if found else at(0)


def paying_ranks(ranks: Mapping[str, int], taken: Mapping[str, Cost]) -> dict[str, int]:
    """Return the ranks of the layers whose two layers take less than the one that there is."""
    return {name: rank for name, rank in ranks.items() if rank <= taken[name].most}
