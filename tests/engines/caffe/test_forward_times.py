"""Times of forward passes in the real Caffe."""

import numpy as np
import pytest
from google.protobuf import text_format

from pycaffe_prune.engines.caffe.engine import CaffeEngine
from pycaffe_prune.errors import EngineError, FormatError
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer, write_caffemodel
from pycaffe_prune.formats.prototxt import write_prototxt

pytestmark = pytest.mark.real_caffe

DEPLOY = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 2 } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
        inner_product_param { num_output: 3 } }
"""


def test_caffe_times_a_net_with_each_number_of_images(tmp_path, caffe_engine: CaffeEngine) -> None:
    net, weights = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    deploy = text_format.Parse(DEPLOY, NetParameter())
    write_prototxt(net, deploy)
    blobs = (np.ones((3, 2), np.float32), np.zeros(3, np.float32))
    write_caffemodel(weights, Caffemodel((Layer(deploy.layer[1], blobs),)))
    times = caffe_engine.forward_times(net, weights, (1, 5_000))
    assert 0 < times[0] < times[1]
    write_caffemodel(weights, Caffemodel((Layer(deploy.layer[1], (blobs[1], blobs[1])),)))
    with pytest.raises(EngineError, match="shape"):
        caffe_engine.forward_times(net, weights, (1,))
    stranger = NetParameter()
    stranger.CopyFrom(deploy)
    stranger.layer.add(name="py", type="Python", bottom=["ip"], top=["py"])
    write_prototxt(net, stranger)
    with pytest.raises(FormatError, match="Python"):
        caffe_engine.forward_times(net, weights, (1,))
