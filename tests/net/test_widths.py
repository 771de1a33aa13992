import pytest
from google.protobuf import text_format

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.net.widths import with_widths

NET = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: [1, 2, 8, 8] } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 2 } }
layer { name: "up" type: "Deconvolution" bottom: "conv" top: "up"
  convolution_param { num_output: 5 kernel_size: 2 } }
layer { name: "pool" type: "Pooling" bottom: "up" top: "pool" pooling_param { kernel_size: 2 } }
layer { name: "ip" type: "InnerProduct" bottom: "pool" top: "ip"
  inner_product_param { num_output: 6 } }
"""


def test_layers_have_the_widths_that_are_told_and_the_net_is_left_as_it_was() -> None:
    net = text_format.Parse(NET, NetParameter())
    changed = with_widths(net, {"conv": 1, "up": 2, "ip": 3})
    expected = NET
    for old, new in (("4", "1"), ("5", "2"), ("6", "3")):
        expected = expected.replace(f"num_output: {old}", f"num_output: {new}")
    assert changed == text_format.Parse(expected, NetParameter())
    assert net == with_widths(net, {}) == text_format.Parse(NET, NetParameter())


@pytest.mark.parametrize("name", ["pool", "other"])
def test_a_layer_without_a_width_is_refused_by_name(name: str) -> None:
    net = text_format.Parse(NET, NetParameter())
    with pytest.raises(SurgeryError, match=f"layer '{name}', whose width"):
        with_widths(net, {name: 3, "ip": 2})
