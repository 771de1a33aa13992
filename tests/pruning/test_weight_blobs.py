import numpy as np
import pytest

from pycaffe_prune.formats.caffe_pb2 import LayerParameter, NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer
from pycaffe_prune.pruning.weight_blobs import left_out_of_connections, weight_blobs


@pytest.mark.parametrize(
    ("kind", "shapes", "weights"),
    [
        ("Convolution", [(4, 2, 3, 3), (4,)], (0,)),
        ("DepthwiseConvolution", [(4, 1, 3, 3), (4,)], (0,)),
        ("Deconvolution", [(4, 1, 3, 3)], (0,)),
        ("InnerProduct", [(4, 2), (4,)], (0,)),
        ("Embed", [(9, 2), (2,)], (0,)),
        ("LSTM", [(8, 3), (8,), (8, 2)], (0, 2)),
        ("LSTM", [(8, 3), (8,), (8, 5), (8, 2)], (0, 2, 3)),
        ("RNN", [(2, 3), (2,), (2, 2), (2, 2), (2,)], (0, 2, 3)),
        ("InnerProduct", [], ()),
        ("Scale", [(4, 2)], ()),
        ("BatchNorm", [(1, 4, 1, 1), (1, 4, 1, 1), (1,)], ()),
    ],
)
def test_matrices_of_weights_are_told_by_the_type(
    kind: str, shapes: list[tuple[int, ...]], weights: tuple[int, ...]
) -> None:
    assert weight_blobs(kind, [np.ones(shape, np.float32) for shape in shapes]) == weights


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("BatchNorm", "statistics"),
        ("Bias", "no connections"),
        ("PReLU", "slope"),
        ("Parameter", "does not tell"),
        ("Scale", "factor"),
        ("Odd", "stock Caffe does not have"),
    ],
)
def test_every_other_layer_with_blobs_has_a_reason(kind: str, reason: str) -> None:
    params = [LayerParameter(name="x", type=kind), LayerParameter(name="fc", type="InnerProduct")]
    blobs = (np.ones((2, 2), np.float32),)
    model = Caffemodel(tuple(Layer(param, blobs) for param in params))
    found = left_out_of_connections(NetParameter(layer=params), model)
    assert found.keys() == {"x"}
    assert reason in found["x"]
