"""The shape of weights: known distributions have their known figures."""

import numpy as np
import pytest
from google.protobuf import text_format

from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer
from pycaffe_prune.reports.transfer.weights import kurtosis, net_shape, unit_spread

NET = """
layer { name: "d" type: "Input" top: "d" input_param { shape { dim: 1 dim: 300 } } }
layer { name: "a" type: "InnerProduct" bottom: "d" top: "a"
  inner_product_param { num_output: 200 } }
layer { name: "b" type: "InnerProduct" bottom: "a" top: "b"
  inner_product_param { num_output: 100 } }
"""


def test_kurtosis_of_known_distributions_at_any_scale_and_place() -> None:
    random = np.random.default_rng(1)
    for values, known in (
        (random.normal(size=400_000), 3.0),
        (random.uniform(-1, 1, 400_000), 1.8),
        (np.tile([-1.0, 1.0], 1000), 1.0),
    ):
        for scaled in (values, 0.01 * values, values + 2):
            assert kurtosis(scaled.astype(np.float32)) == pytest.approx(known, abs=0.05)
    assert kurtosis(np.ones((3, 4), np.float32)) == 0


def test_shares_are_those_that_connection_pruning_would_take() -> None:
    random = np.random.default_rng(2)
    first = random.normal(size=(200, 300)).astype(np.float32)
    second = random.uniform(-1, 1, (100, 200)).astype(np.float32)
    net = text_format.Parse(NET, NetParameter())
    params = {layer.name: layer for layer in net.layer}
    model = Caffemodel((Layer(params["a"], (first,)), Layer(params["b"], (second,))))
    shape = net_shape(net, model, ["a", "b"], ["a"], [0.5, 1.0, 2.0])
    normal, uniform = shape.layers
    assert list(normal.below.values()) == pytest.approx([0.383, 0.683, 0.954], abs=0.01)
    assert list(uniform.below.values()) == pytest.approx([0.289, 0.577, 1.0], abs=0.01)
    assert uniform.sigma == pytest.approx(1 / np.sqrt(3), rel=0.01)
    (units,) = shape.units
    means = np.abs(second).mean(axis=0)
    assert units.variation == pytest.approx(means.std() / means.mean(), rel=1e-5)


def test_units_that_are_alike_have_no_spread_and_one_that_is_all_holds_all() -> None:
    alike = unit_spread("a", np.full(50, 0.3))
    assert (alike.variation, alike.top_tenth) == (pytest.approx(0, abs=1e-12), pytest.approx(0.1))
    single = unit_spread("a", np.eye(50)[7])
    assert single.top_tenth == 1
    assert single.variation == pytest.approx(7)
    assert unit_spread("a", np.zeros(5)).top_tenth == 0
