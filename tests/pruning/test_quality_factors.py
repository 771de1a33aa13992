import numpy as np
import pytest

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer
from pycaffe_prune.pruning.connections import layer_thresholds, prune_connections
from pycaffe_prune.pruning.quality_factors import quality_factors

RANDOM = np.random.default_rng(5)
MODEL = Caffemodel(
    tuple(
        Layer(
            LayerParameter(name=name, type="InnerProduct"),
            (RANDOM.normal(0.1, scale, (20, 30)).astype(np.float32),),
        )
        for name, scale in [("ip1", 1.0), ("ip2", 0.01)]
    )
)


def test_the_papers_rule_prunes_each_layers_rate() -> None:
    rates = {"ip1": 0.92, "ip2": 0.5}
    factors = quality_factors(MODEL, rates)
    _, masks = prune_connections(MODEL, layer_thresholds(MODEL, MODEL, factors))
    for name, rate in rates.items():
        assert (~masks[name, 0]).sum() == round(rate * 600)


def test_a_rate_of_all_is_refused() -> None:
    with pytest.raises(SurgeryError, match="up to but not including 1"):
        quality_factors(MODEL, {"ip1": 1.0})


def test_equal_weights_are_not_pruned_beyond_the_rate() -> None:
    weights = np.repeat(np.float32([1, 2, 3]), 4).reshape(3, 4)
    model = MODEL.with_blobs({("ip1", 0): weights, ("ip2", 0): np.ones((2, 2), np.float32)})
    factors = quality_factors(model, {"ip1": 0.5, "ip2": 0.5})
    _, masks = prune_connections(model, layer_thresholds(model, model, factors))
    np.testing.assert_array_equal(masks["ip1", 0], weights >= 2)
    assert masks["ip2", 0].all()
