"""What is said to be left at some rates is left: the pruned net itself is counted."""

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.prototxt import read_net
from pycaffe_prune.pruning.allocation import CostCurve, cost_curve, predicted_cost
from pycaffe_prune.pruning.budget import Quantity
from pycaffe_prune.pruning.budget_rates import candidate_rates, fitted, one_rate, rates_within
from pycaffe_prune.pruning.connections import apply_masks, prune_to_ratios
from pycaffe_prune.pruning.rate_amounts import (
    amount_dense,
    amount_sparse,
    connection_amount,
    unit_amount,
    whole_units,
)
from pycaffe_prune.pruning.selection import connection_layers
from pycaffe_prune.pruning.sharing import first_of_each, masks_for_all, shared_blobs
from pycaffe_prune.pruning.sizes import net_size
from pycaffe_prune.pruning.units import (
    choose_units,
    delete_units,
    prunable_layers,
    unit_counts,
    units_together,
)
from pycaffe_prune.share import share_root
from tests.pruning.random_nets import nets, random_weights

quantities = st.sampled_from(["parameters", "macs"])
LENET = read_net(share_root() / "prototxt" / "lenet" / "deploy.prototxt")
MODEL = random_weights(LENET, 0)
SHAPES = {"conv1": (0, 0.1, 0.3), "conv2": (0, 0.01, 0.2), "ip1": (0, 0, 0.1), "ip2": (0, 0.1, 0.4)}
PLACES = {name: ((name, 0),) for name in SHAPES}


def curves_of(layers: Mapping[str, int]) -> dict[str, CostCurve]:
    return {name: cost_curve(size, (0.5, 0.9, 0.99), SHAPES[name]) for name, size in layers.items()}


@settings(max_examples=10, deadline=None)
@given(nets(), st.integers(0, 99), quantities, st.data())
def test_connections_that_are_left_are_those_of_the_pruned_net(
    net: NetParameter, seed: int, quantity: Quantity, data: st.DataObject
) -> None:
    model, shared = random_weights(net, seed), shared_blobs(net)
    keys = first_of_each(shared, [(name, 0) for name, _ in connection_layers(net, model)])
    rates = {name: data.draw(st.floats(0, 0.99)) for name, _ in keys}
    places = {name: ((name, index),) for name, index in keys}
    amount = connection_amount(net, model, places, quantity)
    _, masks = prune_to_ratios(model, {key: rates[key[0]] for key in keys})
    pruned = apply_masks(model, masks_for_all(shared, model, masks))
    assert amount(rates) == amount_sparse(net_size(net, pruned), quantity)


@settings(max_examples=8, deadline=None)
@given(nets(), st.integers(0, 99), st.sampled_from(["parameters", "macs", "bytes"]), st.data())
def test_units_that_are_left_are_those_of_the_smaller_net(
    net: NetParameter, seed: int, quantity: Quantity, data: st.DataObject
) -> None:
    model = random_weights(net, seed)
    free = set(prunable_layers(net, model))
    first = [names[0] for names in units_together(net, model) if free.issuperset(names)]
    assume(first)
    asked = {name: data.draw(st.floats(0, 0.9)) for name in first}
    rates = whole_units(unit_counts(net, model), asked)
    amount = unit_amount(net, model, quantity)
    small = net_size(*delete_units(net, model, choose_units(net, model, rates)))
    assert amount(asked) == amount(rates)
    assert amount(rates) == pytest.approx(amount_dense(small, quantity), abs=8)  # of lengths


@pytest.mark.parametrize("quantity", ["bytes"])
def test_connections_fit_a_budget_that_the_pruned_net_is_within(quantity: Quantity) -> None:
    curves = curves_of({name: MODEL.layer(name).blobs[0].size for name in SHAPES})
    candidates = {name: candidate_rates(0.99, (0.5, 0.9, 0.99)) for name in curves}
    amount = connection_amount(LENET, MODEL, PLACES, quantity)
    budget = amount(dict.fromkeys(curves, 0.0)) // 10

    def exact(rates: Mapping[str, float]) -> int:
        masked = prune_to_ratios(MODEL, {(name, 0): rate for name, rate in rates.items()})[0]
        return amount_sparse(net_size(LENET, masked), quantity)

    own = fitted(lambda target: rates_within(curves, candidates, amount, target), exact, budget)
    single = fitted(
        lambda target: one_rate(dict.fromkeys(curves, 0.99), amount, target), exact, budget
    )
    for rates in (own, single):
        assert 0.99 * budget <= exact(rates) <= budget
    assert predicted_cost(curves, own) < predicted_cost(curves, single)


@pytest.mark.parametrize("quantity", ["macs"])
def test_units_fit_a_budget_that_the_smaller_net_is_within(quantity: Quantity) -> None:
    units = {"conv1": 20, "conv2": 50, "ip1": 500}
    curves = curves_of(units)
    amount = unit_amount(LENET, MODEL, quantity)
    budget = amount(dict.fromkeys(curves, 0.0)) // 5
    last = dict.fromkeys(curves, 0.95)
    every = candidate_rates(0.95, ())
    candidates = {
        name: sorted({whole_units(units, {name: rate})[name] for rate in every}) for name in units
    }
    own = rates_within(curves, candidates, amount, budget)
    single = one_rate(last, amount, budget)
    for rates in (own, single):
        kept = choose_units(LENET, MODEL, whole_units(units, rates))
        left = amount_dense(net_size(*delete_units(LENET, MODEL, kept)), quantity)
        assert 0.9 * budget <= left <= budget
    assert predicted_cost(curves, own) < predicted_cost(curves, single)


def test_what_was_zero_before_is_not_counted_twice() -> None:
    half, _ = prune_to_ratios(MODEL, {("ip1", 0): 0.5})
    amount = connection_amount(LENET, half, PLACES, "parameters")
    rates = dict.fromkeys(PLACES, 0.0)
    assert amount({**rates, "ip1": 0.3}) == amount(rates) == amount({**rates, "ip1": 0.5})
    assert amount({**rates, "ip1": 0.75}) == amount(rates) - 100_000


def test_macs_of_images_of_unknown_size_are_refused() -> None:
    net = read_net(share_root() / "prototxt" / "lenet" / "train_val.prototxt")
    for measure in (
        lambda: connection_amount(net, MODEL, PLACES, "macs"),
        lambda: unit_amount(net, MODEL, "macs"),
    ):
        with pytest.raises(SurgeryError, match="budget of parameters or bytes"):
            measure()
    known = connection_amount(net, MODEL, PLACES, "macs", {"data": (1, 1, 28, 28)})
    assert known(dict.fromkeys(PLACES, 0.0)) == 2_293_000


def test_a_layer_that_is_used_twice_multiplies_twice() -> None:
    net = NetParameter()
    net.CopyFrom(LENET)
    first = next(layer for layer in net.layer if layer.name == "conv1")
    del first.param[:]
    first.param.add(name="w")
    first.param.add(name="b")
    twin = net.layer.add()
    twin.CopyFrom(first)
    twin.name = twin.top[0] = "conv1b"
    model = random_weights(net, 0)
    amount = connection_amount(net, model, {"conv1": (("conv1", 0),)}, "macs")
    assert amount({"conv1": 0.0}) - amount({"conv1": 0.5}) == 2 * 250 * 24 * 24
    assert np.isclose(amount({"conv1": 0.0}), 2_293_000 + 500 * 24 * 24)
