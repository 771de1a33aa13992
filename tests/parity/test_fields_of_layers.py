"""What the real Caffe does with fields of LayerParameter that the table of fields speaks of."""

import numpy as np
import pytest
from numpy.typing import NDArray

from pycaffe_prune.formats.caffe_pb2 import TEST, TRAIN, LayerParameter, PoolingParameter
from tests.parity.conftest import CaffeLayer

pytestmark = pytest.mark.real_caffe


def ones() -> NDArray[np.float32]:
    return np.ones((4, 50), np.float32)


@pytest.mark.parametrize(("net", "own"), [(TRAIN, TEST), (TEST, TRAIN)])
def test_a_layer_computes_in_its_own_phase(caffe_layer: CaffeLayer, net: int, own: int) -> None:
    layer = LayerParameter(name="x", type="Dropout", bottom=["data"], top=["x"], phase=own)
    (top,) = caffe_layer(layer, [ones()], phase=net).tops
    assert (top == 1).all() == (own == TEST)


def test_values_in_a_net_are_what_caffe_begins_with(caffe_layer: CaffeLayer) -> None:
    layer = LayerParameter(name="x", type="InnerProduct", bottom=["data"], top=["x"])
    layer.inner_product_param.num_output = 1
    layer.inner_product_param.bias_term = False
    blob = layer.blobs.add()
    blob.shape.dim.extend([1, 50])
    blob.data.extend([2.0] * 50)
    assert (caffe_layer(layer, [ones()]).tops[0] == 100).all()


def test_caffe_has_no_stochastic_pooling_on_a_cpu(caffe_layer: CaffeLayer) -> None:
    layer = LayerParameter(name="x", type="Pooling", bottom=["data"], top=["x"])
    layer.pooling_param.kernel_size = 2
    layer.pooling_param.pool = PoolingParameter.STOCHASTIC
    with pytest.raises(AssertionError, match="Not Implemented Yet"):
        caffe_layer(layer, [np.ones((1, 1, 4, 4), np.float32)])
