import numpy as np
import pytest

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer
from pycaffe_prune.pruning.connections import prune_to_ratios
from pycaffe_prune.pruning.rewinding import rewind


def weights(seed: int, units: int = 5) -> Caffemodel:
    random = np.random.default_rng(seed)
    blobs = tuple(random.normal(0, 1, shape).astype(np.float32) for shape in ((units, 7), (units,)))
    return Caffemodel((Layer(LayerParameter(name="ip", type="InnerProduct"), blobs),))


def test_survivors_have_their_earlier_values_and_the_others_are_zero() -> None:
    trained, first = weights(1), weights(2)
    _, masks = prune_to_ratios(trained, {"ip": 0.6})
    back = rewind(trained, first, masks)
    kept = masks["ip", 0]
    (values, bias), (earlier, earlier_bias) = back.layer("ip").blobs, first.layer("ip").blobs
    np.testing.assert_array_equal(values[kept], earlier[kept])
    assert not values[~kept].any()
    np.testing.assert_array_equal(bias, earlier_bias)


def test_weights_of_another_net_are_refused() -> None:
    with pytest.raises(SurgeryError, match="layer 'ip', blob 0 is not the same"):
        rewind(weights(1), weights(2, units=6), {})
