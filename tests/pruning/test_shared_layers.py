import numpy as np
import pytest

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer
from pycaffe_prune.pruning.shared_layers import SharedLayer, share_layers

SAME = {("ip", 0): (("ip", 0), ("twin", 0)), ("twin", 0): (("ip", 0), ("twin", 0))}


def model_of(**blobs: list[float]) -> Caffemodel:
    layers = (
        Layer(
            LayerParameter(name=name, type="InnerProduct"), blobs=(np.array([values], np.float32),)
        )
        for name, values in blobs.items()
    )
    return Caffemodel(tuple(layers))


def test_a_blob_is_told_and_all_that_share_it_get_its_values():
    model = model_of(ip=[1, 1.5, 4, 0, -0.0], twin=[1, 1.5, 4, 0, 0], rest=[7, 8, 9, 1, 2])
    moved, told = share_layers(model, {("ip", 0): 1}, SAME)

    expected = np.array([[1.25, 1.25, 4, 0, 0]], np.float32)
    assert (moved.layer("ip").blobs[0] == expected).all()
    assert (moved.layer("twin").blobs[0] == expected).all()
    assert (moved.layer("rest").blobs[0] == model.layer("rest").blobs[0]).all()
    assert told == [SharedLayer(("ip", 0), 5, 3, 1, 2, pytest.approx(2 * 0.25**2 / 3))]


def test_sharers_that_differ_and_what_is_no_number_are_refused_by_layer():
    with pytest.raises(SurgeryError, match="'ip' and 'twin' share their weights"):
        share_layers(model_of(ip=[1, 2], twin=[1, 3]), {("ip", 0): 1}, SAME)
    with pytest.raises(SurgeryError, match="layer 'ip', blob 0: a weight is NaN"):
        share_layers(model_of(ip=[1, np.nan]), {("ip", 0): 1}, {})
