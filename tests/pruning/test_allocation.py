from collections.abc import Mapping
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.pruning.allocation import (
    CostCurve,
    allocate,
    cost_curve,
    predicted_cost,
    uniform,
)

RATES = (0.25, 0.5, 0.75, 0.95)

drops = st.floats(-0.05, 1)
curves_of_a_layer = st.builds(
    cost_curve,
    st.integers(1, 10**7),
    st.lists(st.floats(0.01, 1), min_size=1, max_size=6, unique=True).map(sorted),
    st.lists(drops, min_size=6, max_size=6),
).map(lambda curve: CostCurve(curve.weights, curve.rates, curve.costs[: len(curve.rates)]))
nets = st.lists(curves_of_a_layer, min_size=1, max_size=5).map(
    lambda curves: {f"ip{place}": curve for place, curve in enumerate(curves)}
)


def total_of(curves: Mapping[str, CostCurve], rates: Mapping[str, float]) -> float:
    weights = sum(curve.weights for curve in curves.values())
    return sum(curve.weights * rates[name] for name, curve in curves.items()) / weights


def most(curves: Mapping[str, CostCurve]) -> float:
    return total_of(curves, {name: curve.rates[-1] for name, curve in curves.items()})


@settings(max_examples=40)
@given(nets, st.floats(0, 1))
def test_the_total_is_met_within_each_layers_range_and_no_dearer_than_uniform(
    curves: dict[str, CostCurve], part: float
) -> None:
    total = part * most(curves)
    even = uniform(curves, total)
    rates = allocate(curves, total)
    assert list(rates) == list(even) == list(curves)
    for found in (rates, even):
        assert total_of(curves, found) == pytest.approx(total, abs=1e-9)
        for name, rate in found.items():
            assert 0 <= rate <= curves[name].rates[-1]
    assert predicted_cost(curves, rates) <= predicted_cost(curves, even)


@settings(max_examples=20)
@given(
    st.lists(st.lists(drops, min_size=4, max_size=4), min_size=2, max_size=3),
    st.lists(st.integers(1, 50), min_size=3, max_size=3),
    st.floats(0.05, 0.9),
)
def test_no_allocation_of_a_coarse_grid_is_cheaper(
    costs: list[list[float]], weights: list[int], total: float
) -> None:
    curves = {
        f"ip{place}": cost_curve(weights[place], RATES, costs[place]) for place in range(len(costs))
    }
    found = predicted_cost(curves, allocate(curves, total))
    count = len(curves)
    # What rounding down to 1/2000 of the total can cost: so much more to prune, at the dearest.
    slack = count / 2000 * total
    for combination in product(np.linspace(0, 0.95, 21), repeat=count):  # a part of its own grid
        rates = dict(zip(curves, map(float, combination), strict=True))
        if total_of(curves, rates) >= total + slack:
            assert found <= predicted_cost(curves, rates) + 1e-9


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=6, unique=True).map(sorted), st.data())
def test_a_cost_curve_is_the_lowest_that_never_falls_above_the_measured(
    rates: list[float], data: st.DataObject
) -> None:
    costs = data.draw(st.lists(drops, min_size=len(rates), max_size=len(rates)))
    curve = cost_curve(100, rates, costs)
    assert curve.rates == (0.0, *rates)
    for place, cost in enumerate(curve.costs):
        assert cost == max([0.0, *costs[:place]])
        assert curve.cost(curve.rates[place]) == pytest.approx(cost)


@given(curves_of_a_layer, st.floats(0, 1.5))
def test_no_higher_rate_than_the_one_within_a_cost_costs_as_little(
    curve: CostCurve, most: float
) -> None:
    rate = curve.rate_within(most)
    assert curve.cost(rate) <= most + 1e-12
    higher = np.nextafter(rate, 1) + 1e-6
    assert rate == curve.rates[-1] or curve.cost(higher) > most - 1e-12


def test_a_layer_that_costs_nothing_is_pruned_before_one_that_does() -> None:
    curves = {
        "free": cost_curve(1000, RATES, (0, 0, 0, 0)),
        "dear": cost_curve(1000, RATES, (0.1, 0.2, 0.3, 0.4)),
    }
    assert allocate(curves, 0.4) == pytest.approx({"free": 0.8, "dear": 0.0}, abs=1e-3)


def test_of_equal_costs_the_even_allocation_is_taken() -> None:
    curves = {name: cost_curve(n, RATES, (0, 0, 0, 0)) for name, n in [("a", 500), ("b", 40_000)]}
    assert allocate(curves, 0.6) == pytest.approx({"a": 0.6, "b": 0.6}, abs=0.01)


def test_a_cliff_is_not_stepped_over_where_another_layer_has_room() -> None:
    curves = {
        "cliff": cost_curve(1000, RATES, (0, 0, 0.8, 0.8)),
        "slope": cost_curve(1000, RATES, (0, 0.02, 0.04, 0.06)),
    }
    rates = allocate(curves, 0.7)
    assert rates["cliff"] == pytest.approx(0.5, abs=0.01)
    assert rates["slope"] == pytest.approx(0.9, abs=0.01)


def test_a_total_beyond_what_was_measured_is_refused_with_its_end() -> None:
    curves = {"ip1": cost_curve(100, RATES, (0, 0, 0, 0))}
    assert allocate(curves, 0.95) == {"ip1": 0.95}
    for total in (0.96, -0.1):
        with pytest.raises(SurgeryError, match=r"0 to 0\.95.*--rates"):
            allocate(curves, total)
