from collections.abc import Mapping

import numpy as np
import pytest
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel
from pycaffe_prune.pruning.criteria.units import UNIT_CRITERIA
from pycaffe_prune.pruning.unit_choice import (
    by_layer_mean,
    choose_lowest,
    choose_lowest_over_all,
    choose_units,
    units_over_all,
    weight_scores,
)
from tests.pruning.random_nets import random_weights

NET = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: [1, 3, 6, 6] } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 8 kernel_size: 3 } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "a" type: "InnerProduct" bottom: "conv" top: "a"
  inner_product_param { num_output: 10 } }
layer { name: "b" type: "InnerProduct" bottom: "conv" top: "b"
  inner_product_param { num_output: 10 } }
layer { name: "sum" type: "Eltwise" bottom: "a" bottom: "b" top: "sum" }
layer { name: "out" type: "InnerProduct" bottom: "sum" top: "out"
  inner_product_param { num_output: 3 } }
"""
LAYERS = ("conv", "a", "b")


def net_of(text: str) -> NetParameter:
    return text_format.Parse(text, NetParameter())


MODEL = random_weights(net_of(NET), 4)


def scores_of(seed: int, values: int) -> dict[str, np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """Scores with many ties; those of layers that lose their units together are the same."""
    random = np.random.default_rng(seed)
    summed = random.integers(0, values, 10).astype(np.float64)
    return {"conv": random.integers(0, values, 8).astype(np.float64), "a": summed, "b": summed}


@settings(max_examples=40)
@given(st.integers(0, 999), st.integers(1, 20), st.floats(0, 0.88))
def test_over_all_goes_exactly_the_share_that_is_lowest(
    seed: int, values: int, ratio: float
) -> None:
    scores = scores_of(seed, values)
    kept = choose_lowest_over_all(net_of(NET), MODEL, scores, ratio)
    gone = round(ratio * 18)  # a's and b's units go together
    assert (kept["a"] == kept["b"]).all()
    assert int((~kept["conv"]).sum() + (~kept["a"]).sum()) == gone
    ranked = sorted((score, place) for place, score in enumerate([*scores["conv"], *scores["a"]]))
    expected = np.ones(18, np.bool_)
    expected[[place for _, place in ranked[:gone]]] = False
    found = np.concatenate([kept["conv"], kept["a"]])
    if expected[:8].any() and expected[8:].any():
        np.testing.assert_array_equal(found, expected)  # the earlier of equal ones first
    else:
        assert kept["conv"].any()
        assert kept["a"].any()


def test_more_than_can_go_is_refused() -> None:
    net = net_of(NET)
    assert units_over_all(net, MODEL, ["conv", "a"]) == 18
    with pytest.raises(SurgeryError, match="17 of 18 units cannot go, 16 at most"):
        choose_lowest_over_all(net, MODEL, scores_of(1, 5), 0.97)


def permuted(model: Caffemodel, order: list[int]) -> Caffemodel:
    """The same net with the filters of conv in another order."""
    weights, bias = model.layer("conv").blobs
    changed = {("conv", 0): weights[order], ("conv", 1): bias[order]}
    for name in ("a", "b"):
        columns = model.layer(name).blobs[0].reshape(10, 8, -1)
        changed[name, 0] = columns[:, order].reshape(10, -1)
    return model.with_blobs(changed)


@pytest.mark.parametrize("criterion", sorted(set(UNIT_CRITERIA) - {"random"}))
def test_scores_go_with_their_units(criterion: str) -> None:
    order = [3, 1, 7, 0, 2, 6, 5, 4]
    net = net_of(NET)
    before = weight_scores(net, MODEL, LAYERS, criterion=criterion)
    after = weight_scores(net, permuted(MODEL, order), LAYERS, criterion=criterion)
    np.testing.assert_allclose(after["conv"], before["conv"][order], rtol=1e-5)
    np.testing.assert_allclose(after["a"], before["a"], rtol=1e-5)


@pytest.mark.parametrize("criterion", sorted(UNIT_CRITERIA))
def test_choosing_at_once_is_scoring_and_choosing(criterion: str) -> None:
    net, ratios = net_of(NET), {"conv": 0.5, "b": 0.3}
    scores = weight_scores(net, MODEL, ["conv", "b"], criterion=criterion, seed=3)
    assert set(scores) == set(LAYERS)
    kept = choose_lowest(net, MODEL, scores, ratios)
    at_once = choose_units(net, MODEL, ratios, criterion=criterion, seed=3)
    assert {name: of.tolist() for name, of in kept.items()} == {
        name: of.tolist() for name, of in at_once.items()
    }


def test_random_scores_follow_from_the_seed() -> None:
    net = net_of(NET)
    first, again, other = (
        weight_scores(net, MODEL, ["conv"], criterion="random", seed=seed)["conv"]
        for seed in (1, 1, 2)
    )
    assert (first == again).all()
    assert (first != other).any()


@settings(max_examples=10)
@given(st.floats(0.01, 100), st.integers(0, 99))
def test_no_layer_goes_because_its_weights_are_small(factor: float, seed: int) -> None:
    scores = scores_of(seed, 50)
    larger: Mapping[str, np.ndarray[tuple[int], np.dtype[np.float64]]] = {
        **scores,
        "conv": factor * scores["conv"],
    }
    for name, of in by_layer_mean(larger).items():
        np.testing.assert_allclose(of, by_layer_mean(scores)[name])
    zero = {"conv": np.zeros(3)}
    assert by_layer_mean(zero)["conv"].tolist() == [0, 0, 0]


def test_scores_that_cannot_be_followed_are_refused() -> None:
    net, scores = net_of(NET), scores_of(2, 9)
    with pytest.raises(SurgeryError, match="units of 'b' have other scores"):
        choose_lowest(net, MODEL, {**scores, "b": scores["b"] + 1}, {"a": 0.5})
    with pytest.raises(SurgeryError, match="some have no score"):
        choose_lowest(net, MODEL, {"conv": scores["conv"]}, {"a": 0.5})
    with pytest.raises(SurgeryError, match="'conv' has 8 units, not 3"):
        choose_lowest(net, MODEL, {"conv": np.zeros(3)}, {"conv": 0.5})
    grouped = NET.replace(
        'layer { name: "a"',
        'layer { name: "g" type: "Convolution" bottom: "conv" top: "g" '
        "convolution_param { num_output: 4 kernel_size: 1 group: 2 } }"
        'layer { name: "a"',
    ).replace('type: "InnerProduct" bottom: "conv"', 'type: "InnerProduct" bottom: "g"')
    model = random_weights(net_of(grouped), 1)
    with pytest.raises(SurgeryError, match="layer 'g' takes the units of conv in groups"):
        choose_lowest_over_all(net_of(grouped), model, {"conv": np.arange(8.0)}, 0.5)
