"""Laws of the choice of ranks: the most energy for what is taken, and counts that are the net's."""

from itertools import product
from math import prod

import numpy as np
import pytest
from google.protobuf import text_format

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.net.counts import count_layers
from pycaffe_prune.pruning.factoring import Split, decompose_layers, ways_of, with_two_layers
from pycaffe_prune.pruning.low_rank import Way
from pycaffe_prune.pruning.ranks import (
    Cost,
    mac_costs,
    paying_ranks,
    ranks_of_energy,
    ranks_within,
    weight_costs,
)
from tests.pruning.random_nets import random_weights

NET = text_format.Parse(
    """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: [3, 4, 9, 7] } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 8 kernel_size: 3 stride: 2 pad: 1 group: 2 } }
layer { name: "ip1" type: "InnerProduct" bottom: "conv" top: "ip1"
  inner_product_param { num_output: 30 } }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
  inner_product_param { num_output: 10 } }
""",
    NetParameter(),
)
MODEL = random_weights(NET, 3)
LAYERS = ["conv", "ip1", "ip2"]


@pytest.mark.parametrize("way", [Way.SPATIAL, Way.FILTERS])
def test_a_rank_costs_what_the_factored_net_has_of_it(way: Way) -> None:
    ways = ways_of(NET, LAYERS, way)
    found = decompose_layers(NET, MODEL, ways)
    weights, macs = weight_costs(found), mac_costs(NET, ways)
    before = {row.name: row for row in count_layers(list(NET.layer))}
    for rank in (1, 2):
        net = with_two_layers(NET, {name: Split(one, rank) for name, one in ways.items()})
        rows = {row.name: row for row in count_layers(list(net.layer))}
        for name in LAYERS:
            pair = (rows[f"{name}_v"], rows[name])
            assert weights[name].of_rank * rank == sum(row.weights for row in pair)
            assert macs[name].of_rank * rank == sum(row.macs or 0 for row in pair)
            assert (weights[name].whole, macs[name].whole) == (
                before[name].weights,
                before[name].macs,
            )


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.9, 1.0])
def test_nothing_that_takes_as_much_keeps_more(share: float) -> None:
    found = decompose_layers(NET, MODEL, ways_of(NET, LAYERS, Way.SPATIAL))
    taken = weight_costs(found)
    amount = share * sum(cost.whole for cost in taken.values())
    ranks = ranks_within(found, taken, amount)
    total = sum(taken[name].at(ranks.get(name, 10**9)) for name in LAYERS)
    assert total <= amount
    assert paying_ranks(ranks, taken) == ranks

    def kept(chosen: dict[str, int]) -> float:
        return prod(found[name].energy(chosen[name]) if name in chosen else 1.0 for name in LAYERS)

    def choices(name: str) -> list[dict[str, int]]:
        return [{}, *({name: rank} for rank in range(1, taken[name].most + 1))]

    for one, two, three in product(*map(choices, LAYERS)):
        other = one | two | three
        if sum(taken[name].at(other.get(name, 10**9)) for name in LAYERS) <= total:
            assert kept(other) <= kept(ranks) + 1e-12


def test_a_budget_below_rank_1_is_refused() -> None:
    found = decompose_layers(NET, MODEL, ways_of(NET, LAYERS, Way.SPATIAL))
    with pytest.raises(SurgeryError, match="more than the 5 of the budget"):
        ranks_within(found, weight_costs(found), 5)


@pytest.mark.parametrize("energy", [0, -1, 1.1, np.nan])
def test_an_energy_is_a_share(energy: float) -> None:
    found = decompose_layers(NET, MODEL, {"ip1": Way.MATRIX})
    with pytest.raises(SurgeryError, match="layer 'ip1' cannot keep"):
        ranks_of_energy(found, {"ip1": energy})


def test_unknown_macs_are_refused_with_the_reason() -> None:
    net = NetParameter()
    net.CopyFrom(NET)
    net.layer[0].input_param.Clear()
    with pytest.raises(SurgeryError, match="MACs of layer 'conv' are not known: "):
        mac_costs(net, {"conv": Way.SPATIAL})
    net.layer[1].include.add(phase=0)
    with pytest.raises(SurgeryError, match="layer 'conv' is not in the TEST net"):
        mac_costs(net, {"conv": Way.SPATIAL})


def test_a_layer_stays_whole_where_two_take_no_less() -> None:
    cost = Cost(100, 25)
    assert (cost.most, cost.at(3), cost.at(4), cost.at(9)) == (3, 75, 100, 100)
