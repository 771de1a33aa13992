import numpy as np
import pytest
from google.protobuf import text_format

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.pruning.dense_chain import dense_chain
from pycaffe_prune.pruning.units import delete_units
from tests.pruning.conftest import CaffeForward
from tests.pruning.random_nets import random_weights

NET = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: [6, 2, 3, 3] } } }
layer { name: "fc1" type: "InnerProduct" bottom: "data" top: "fc1"
  inner_product_param { num_output: 9 } }
layer { name: "r" type: "ReLU" bottom: "fc1" top: "fc1" }
layer { name: "d" type: "Dropout" bottom: "fc1" top: "fc1" }
layer { name: "fc2" type: "InnerProduct" bottom: "fc1" top: "fc2"
  inner_product_param { num_output: 7 transpose: true } }
layer { name: "s" type: "Sigmoid" bottom: "fc2" top: "s" }
layer { name: "fc3" type: "InnerProduct" bottom: "s" top: "fc3"
  inner_product_param { num_output: 5 bias_term: false } }
layer { name: "t" type: "TanH" bottom: "fc3" top: "fc3" }
layer { name: "fc4" type: "InnerProduct" bottom: "fc3" top: "fc4"
  inner_product_param { num_output: 4 } }
"""


def net_of(text: str) -> NetParameter:
    return text_format.Parse(text, NetParameter())


@pytest.mark.real_caffe
@pytest.mark.parametrize("layers", [["fc1", "fc3"], ["fc2"]])
def test_scores_are_those_of_the_smaller_net_in_caffe(
    caffe_forward: CaffeForward, layers: list[str]
) -> None:
    net, random = net_of(NET), np.random.default_rng(1)
    model = random_weights(net, 6)
    images = random.normal(size=(6, 2, 3, 3)).astype(np.float32)
    chain = dense_chain(net, model, layers, "fc4")
    assert chain.hidden == ["fc1", "fc2", "fc3"][["fc1", "fc2"].index(layers[0]) :]
    sizes = {"fc1": 9, "fc2": 7, "fc3": 5}
    kept = {name: random.permutation(sizes[name]) >= 3 for name in layers}
    ends = {"d": "fc1", "s": "s"}
    cut = NetParameter()
    for layer in net.layer:
        cut.layer.add().CopyFrom(layer)
        if layer.name == chain.activated:
            break
    units = caffe_forward(cut, model, {"data": images})[ends[chain.activated]]
    small_net, small = delete_units(net, model, kept)
    wanted = caffe_forward(small_net, small, {"data": images})["fc4"]
    found = chain.scores(units.T, kept).T
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("old", "new", "layers", "words"),
    [
        ("", "", ["fc4"], "layer 'fc4' is not before the end of the way to 'fc4'"),
        ("", "", ["data"], r"layer 'data' \(Input\) is none of these"),
        ("", "", ["none"], "none of the layers none"),
        ('type: "TanH"', 'type: "BNLL"', ["fc1"], r"layer 't' \(BNLL\) is none of these"),
        ('bottom: "s" top: "fc3"', 'bottom: "fc2" top: "fc3"', ["fc1"], "read by 2 layers"),
        (
            'type: "ReLU"',
            'type: "ReLU" relu_param { negative_slope: 0.1 }',
            ["fc1"],
            "negative_slope",
        ),
        ("num_output: 5 bias", "num_output: 5 axis: 0 bias", ["fc1"], "has axis 0"),
    ],
)
def test_other_nets_are_refused_by_name(old: str, new: str, layers: list[str], words: str) -> None:
    model = random_weights(net_of(NET), 1)
    with pytest.raises(SurgeryError, match=words):
        dense_chain(net_of(NET.replace(old, new) if old else NET), model, layers, "fc4")
