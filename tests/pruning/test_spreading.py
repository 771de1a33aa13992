import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.pruning import spreading
from pycaffe_prune.pruning.spreading import (
    expected_products,
    left_out_of_spreading,
    spread_order,
    spread_units,
)
from pycaffe_prune.pruning.units import delete_units
from tests.pruning.conftest import CaffeForward
from tests.pruning.random_nets import random_weights
from tests.pruning.test_merging import IMAGES, NET, net_of, with_twins

RECTIFIED = NET.replace('name: "tanh" type: "TanH"', 'name: "relu2" type: "ReLU"')


@pytest.mark.parametrize("blank", [[], [1]], ids=["all-read", "one-not-read"])
def test_products_are_means_over_normal_inputs(blank: list[int]) -> None:
    random = np.random.default_rng(0)
    incoming = random.normal(size=(4, 3)).astype(np.float32)
    incoming[:, blank] = 0
    covariance = incoming.T @ incoming
    covariance *= 3 / np.trace(covariance)
    inputs = random.multivariate_normal(np.zeros(3), covariance, 200_000)
    bias = random.normal(size=4).astype(np.float32)
    ones = random.normal(size=(200_000, 1))  # as if the bias had an input of its own
    units = np.maximum(inputs @ incoming.T + ones * bias, 0)
    found = expected_products(incoming, bias) * np.square(np.abs(incoming).max())
    np.testing.assert_allclose(found, units.T @ units / 200_000, rtol=0.03, atol=0.03)


@settings(max_examples=25)
@given(st.integers(2, 9), st.integers(0, 99), st.data())
def test_those_that_stay_take_over_what_is_best_by_least_squares(
    units: int, seed: int, data: st.DataObject
) -> None:
    random = np.random.default_rng(seed)
    count = data.draw(st.integers(0, units - 1))
    incoming = random.normal(size=(units, 12)).astype(np.float32)
    products = expected_products(incoming, np.zeros(units, np.float32))
    kept, takes = spread_order(products, random.normal(size=(3, units)).astype(np.float32), count)
    assert int((~kept).sum()) == count
    ridged = products + 1e-4 * np.trace(products) / units * np.eye(units)
    wanted = ridged[np.ix_(~kept, kept)] @ np.linalg.inv(ridged[np.ix_(kept, kept)])
    np.testing.assert_allclose(takes, wanted, rtol=1e-5, atol=1e-7)


def test_the_unit_that_costs_least_goes_first() -> None:
    random = np.random.default_rng(2)
    products = expected_products(random.normal(size=(6, 9)).astype(np.float32), np.zeros(6))
    outgoing = random.normal(size=(4, 6)).astype(np.float32)
    ridged = products + 1e-4 * np.trace(products) / 6 * np.eye(6)
    costs = []
    for gone in range(6):
        stay = np.delete(np.arange(6), gone)
        takes = ridged[:, stay] @ np.linalg.inv(ridged[np.ix_(stay, stay)])
        lost = outgoing.copy().astype(np.float64)
        lost[:, stay] -= outgoing @ takes
        costs.append(np.trace(lost @ ridged @ lost.T))
    kept, _ = spread_order(products, outgoing, 1)
    assert int(np.flatnonzero(~kept)[0]) == int(np.argmin(costs))


def test_many_units_go_in_the_order_of_one_after_another() -> None:
    random = np.random.default_rng(4)
    products = expected_products(random.normal(size=(200, 90)).astype(np.float32), np.zeros(200))
    outgoing = random.normal(size=(10, 200)).astype(np.float32)
    inverse = np.linalg.inv(products + 1e-4 * np.trace(products) / 200 * np.eye(200))
    leaving, expected = outgoing.astype(np.float64), np.ones(200, np.bool_)
    for _ in range(180):
        left = np.flatnonzero(expected)
        within = inverse[np.ix_(left, left)]
        cost = np.square(leaving[:, left]).sum(axis=0) / np.diag(within)
        gone = int(np.argmin(cost))
        share = within[:, gone] / within[gone, gone]
        leaving[:, left] -= np.outer(leaving[:, left[gone]], share)
        inverse[np.ix_(left, left)] -= np.outer(within[:, gone], share)
        expected[left[gone]] = False
    kept, takes = spread_order(products, outgoing, 180)
    np.testing.assert_array_equal(kept, expected)
    more = outgoing[:, kept] + outgoing[:, ~kept] @ takes
    np.testing.assert_allclose(more, leaving[:, expected], rtol=1e-6)


def test_units_that_cost_alike_go_from_the_first_on() -> None:
    random = np.random.default_rng(4)
    products = expected_products(random.normal(size=(300, 90)).astype(np.float32), np.zeros(300))
    kept, _ = spread_order(products, np.zeros((10, 300), np.float32), 200)  # nobody reads them
    assert kept.tolist() == [False] * 200 + [True] * 100


@pytest.mark.real_caffe
def test_twins_go_nearly_without_a_trace_and_others_cost_less_than_deleted(
    caffe_forward: CaffeForward,
) -> None:
    net = net_of(RECTIFIED)
    model = with_twins(random_weights(net, 3), {"conv": [0, 0], "fc1": [1, 2]})
    wanted = caffe_forward(net, model, {"data": IMAGES})["fc2"]
    changed, kept = spread_units(net, model, {"conv": 2 / 6, "fc1": 2 / 8})
    assert {name: int((~flags).sum()) for name, flags in kept.items()} == {"conv": 2, "fc1": 2}
    found = caffe_forward(*delete_units(net, changed, kept), {"data": IMAGES})["fc2"]
    np.testing.assert_allclose(found, wanted, atol=0.02 * np.abs(wanted).max())
    deleted = caffe_forward(*delete_units(net, model, kept), {"data": IMAGES})["fc2"]
    assert np.abs(found - wanted).max() < np.abs(deleted - wanted).max() / 5


def test_units_without_a_relu_are_left_out_with_the_reason() -> None:
    net = net_of(NET)
    model = random_weights(net, 1)
    assert "has no ReLU behind it" in left_out_of_spreading(net, model)["fc1"]
    with pytest.raises(SurgeryError, match="layer 'fc1' has no ReLU behind it"):
        spread_units(net, model, {"fc1": 0.5})
    with pytest.raises(SurgeryError, match="layer 'other' has no units"):
        spread_units(net, model, {"other": 0.5})


def test_a_layer_that_is_read_in_parts_is_left_out() -> None:
    sliced = RECTIFIED.replace(
        'layer { name: "fc1"',
        'layer { name: "slice" type: "Slice" bottom: "conv" top: "left" top: "right" }'
        'layer { name: "more" type: "InnerProduct" bottom: "right" top: "more" '
        "inner_product_param { num_output: 2 } }"
        'layer { name: "fc1"',
    ).replace('bottom: "conv" top: "fc1"', 'bottom: "left" top: "fc1"')
    net = net_of(sliced)
    assert "is read in parts" in left_out_of_spreading(net, random_weights(net, 1))["conv"]


def test_of_many_units_the_same_go_though_chosen_in_half_the_precision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    random = np.random.default_rng(5)
    incoming = random.normal(size=(200, 90)).astype(np.float32)
    bias = random.normal(size=200).astype(np.float32)
    outgoing = random.normal(size=(10, 200)).astype(np.float32)
    kept, takes = spread_order(expected_products(incoming, bias), outgoing, 100)
    monkeypatch.setattr(spreading, "_MOST_EXACT", 0)
    products = expected_products(incoming, bias)
    assert products.dtype == np.float32
    less_exact, others = spread_order(products, outgoing, 100)
    np.testing.assert_array_equal(less_exact, kept)
    np.testing.assert_allclose(others, takes, atol=1e-4)


@pytest.mark.parametrize("ridge", [3e-7, 3e-6])
def test_of_twins_one_goes_though_half_the_precision_cannot_invert(
    monkeypatch: pytest.MonkeyPatch, ridge: float
) -> None:
    monkeypatch.setattr(spreading, "_MOST_EXACT", 0)
    monkeypatch.setattr(spreading, "_RIDGE", ridge)
    random = np.random.default_rng(6)
    incoming = random.normal(size=(40, 30)).astype(np.float32)
    incoming[20:] = incoming[:20]
    products = expected_products(incoming, np.zeros(40, np.float32))
    assert products.dtype == np.float32
    kept, _ = spread_order(products, random.normal(size=(10, 40)).astype(np.float32), 20)
    assert (kept[:20] ^ kept[20:]).all()


def test_what_no_precision_can_invert_is_refused() -> None:
    with pytest.raises(SurgeryError, match="cannot be told apart"):
        spread_order(-np.eye(3), np.ones((2, 3), np.float32), 1)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("units", [40, 1200])  # in float64, in float32
@pytest.mark.parametrize("weight", [0, 1e-30, 1e-5, 1e30])
def test_takes_are_finite_whatever_the_size_of_weights(units: int, weight: float) -> None:
    random = np.random.default_rng(0)
    incoming = (random.normal(size=(units, 30)) * weight).astype(np.float32)
    outgoing = random.normal(size=(10, units)).astype(np.float32)
    products = expected_products(incoming, np.zeros(units, np.float32))
    kept, takes = spread_order(products, outgoing, units // 2)
    assert kept.sum() == units - units // 2
    assert np.isfinite(takes).all()
    if weight == 0:
        np.testing.assert_array_less(np.abs(takes), 1e-9)
