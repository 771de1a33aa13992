from collections.abc import Mapping, Sequence
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.pruning import budget_rates
from pycaffe_prune.pruning.allocation import CostCurve, cost_curve, predicted_cost
from pycaffe_prune.pruning.budget_rates import (
    Amount,
    Options,
    candidate_rates,
    cheapest_within,
    one_rate,
    rates_within,
)

RATES = (0.25, 0.5, 0.75, 0.95)
GRID = (0.0, 0.25, 0.5, 0.75, 0.9, 0.95)

options = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 100)), min_size=1, max_size=6).map(
    lambda pairs: Options([cost for cost, _ in pairs], [size for _, size in pairs])
)
layers = st.lists(options, min_size=1, max_size=4).map(
    lambda found: {f"ip{place}": one for place, one in enumerate(found)}
)
drops = st.lists(st.floats(-0.05, 1), min_size=4, max_size=4)
chains = st.lists(st.tuples(st.integers(2, 60), drops), min_size=2, max_size=3)


@settings(max_examples=60)
@given(layers, st.integers(0, 400))
def test_no_choice_within_the_budget_is_cheaper(layers: dict[str, Options], budget: int) -> None:
    possible = {}
    for choice in product(*(range(len(option.sizes)) for option in layers.values())):
        rows = list(zip(layers.values(), choice, strict=True))
        if sum(option.sizes[place] for option, place in rows) <= budget:
            possible[choice] = sum(option.costs[place] for option, place in rows)
    found = cheapest_within(layers, budget)
    if found is None:
        assert not possible
    else:
        assert list(found) == list(layers)
        assert possible[tuple(found.values())] == min(possible.values())


def test_many_choices_are_thinned_out_to_within_a_small_part_of_the_budget(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    random = np.random.default_rng(0)
    many = {
        f"ip{place}": Options(
            sorted(random.random(120).tolist(), reverse=True),
            sorted(random.integers(0, 10**6, 120).tolist()),
        )
        for place in range(4)
    }
    budget = 1_700_000

    def cost(within: int) -> float:
        found = cheapest_within(many, within)
        assert found is not None
        assert sum(many[name].sizes[place] for name, place in found.items()) <= within
        return sum(many[name].costs[place] for name, place in found.items())

    thinned = cost(budget)
    monkeypatch.setattr(budget_rates, "_MOST_CHOICES", 10**7)
    assert cost(budget) <= thinned <= cost(budget - len(many) * budget // 2000)


def curves_of(chain: Sequence[tuple[int, list[float]]]) -> dict[str, CostCurve]:
    return {
        f"ip{place}": cost_curve(width, RATES, costs) for place, (width, costs) in enumerate(chain)
    }


def weights_left(curves: Mapping[str, CostCurve]) -> Amount:
    """Sizes that add up."""
    return lambda rates: sum(
        round(curve.weights * (1 - rates[name])) for name, curve in curves.items()
    )


def units_left(curves: Mapping[str, CostCurve]) -> Amount:
    """The weights between neighbours: a unit's size is what is left of both."""

    def amount(rates: Mapping[str, float]) -> int:
        widths = [20, *(max(1, round(c.weights * (1 - rates[n]))) for n, c in curves.items()), 10]
        return sum(one * other for one, other in pairwise(widths))

    return amount


@settings(max_examples=20, deadline=None)
@given(chains, st.floats(0.02, 1.1))
def test_where_sizes_add_up_no_rates_of_the_candidates_are_cheaper(
    chain: list[tuple[int, list[float]]], share: float
) -> None:
    curves = curves_of(chain)
    amount = weights_left(curves)
    least, whole = (amount(dict.fromkeys(curves, rate)) for rate in (0.95, 0.0))
    budget = max(least, int(share * whole))
    found = rates_within(curves, dict.fromkeys(curves, GRID), amount, budget)
    assert amount(found) <= budget
    for choice in product(GRID, repeat=len(curves)):
        rates = dict(zip(curves, choice, strict=True))
        if amount(rates) <= budget:
            assert predicted_cost(curves, found) <= predicted_cost(curves, rates) + 1e-12


@settings(max_examples=20, deadline=None)
@given(chains, st.floats(0.02, 1.1))
def test_where_a_unit_is_as_large_as_its_neighbours_let_it_no_layer_alone_can_do_better(
    chain: list[tuple[int, list[float]]], share: float
) -> None:
    curves = curves_of(chain)
    amount = units_left(curves)
    least, whole = (amount(dict.fromkeys(curves, rate)) for rate in (0.95, 0.0))
    budget = max(least, int(share * whole))
    found = rates_within(curves, dict.fromkeys(curves, GRID), amount, budget)
    assert amount(found) <= budget
    cost = predicted_cost(curves, found)
    assert cost <= predicted_cost(curves, one_rate(dict.fromkeys(curves, 0.95), amount, budget))
    for name in curves:
        for rate in GRID:
            other = {**found, name: rate}
            if amount(other) <= budget:
                assert cost <= predicted_cost(curves, other) + 1e-12


@given(st.floats(0.05, 0.999), st.lists(st.floats(0.01, 0.99), max_size=5))
def test_candidates_rise_from_nothing_to_the_last_and_have_the_measured_ones(
    last: float, measured: list[float]
) -> None:
    rates = candidate_rates(last, measured)
    assert (rates[0], rates[-1]) == (0, last)
    assert all(one < other for one, other in pairwise(rates))
    assert {rate for rate in measured if rate <= last} <= set(rates)


def test_one_rate_is_the_lowest_within_the_budget_and_ends_where_a_layers_curve_does() -> None:
    curves = {"a": cost_curve(1000, (0.5,), (0,)), "b": cost_curve(1000, (0.9,), (0,))}
    amount = weights_left(curves)
    last = {"a": 0.5, "b": 0.9}
    assert one_rate(last, amount, 2000) == {"a": 0, "b": 0}
    assert one_rate(last, amount, 1400) == pytest.approx({"a": 0.3, "b": 0.3}, abs=1e-3)
    assert one_rate(last, amount, 700) == pytest.approx({"a": 0.5, "b": 0.8}, abs=1e-3)
    with pytest.raises(SurgeryError, match=r"budget of 599 .* leave \(600\).*--rates"):
        one_rate(last, amount, 599)
