"""NetSpecs: what is refused and what goes beyond pycaffe; its own prototxts are twins."""

import copy

import pytest
from google.protobuf import text_format

from pycaffe_prune.errors import PruneError
from pycaffe_prune.pycaffe import NetSpec, to_proto
from pycaffe_prune.pycaffe import layers as L  # noqa: N812 (NetSpec's own habit)
from pycaffe_prune.pycaffe import params as P  # noqa: N812 (NetSpec's own habit)
from pycaffe_prune.pycaffe.net_spec import assign_proto
from pycaffe_prune.pycaffe.proto import caffe_pb2


def test_a_bottom_must_be_a_top() -> None:
    both = L.DummyData(ntop=2)
    with pytest.raises(TypeError, match=r"^Silence input 0 is not a Top \(type is <class 'tuple'>"):
        L.Silence(both, ntop=0)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"kernel": 3}, "LayerParameter has no field kernel"),
        ({"weight_filler": {"sd": 0.1}}, "FillerParameter has no field sd"),
        ({"convolution_param": {"kernel": 3}}, "ConvolutionParameter has no field kernel"),
    ],
)
def test_a_field_that_caffe_does_not_know_is_named(
    keywords: dict[str, object], message: str
) -> None:
    with pytest.raises(PruneError, match=message) as raised:
        L.Convolution(**keywords).to_proto()
    assert isinstance(raised.value, AttributeError)  # as pycaffe's


def test_a_net_may_be_deeper_than_pythons_stack() -> None:
    top = L.Input()
    for _ in range(2000):
        top = L.ReLU(top)
    assert [layer.name for layer in to_proto(top).layer][-1] == "ReLU2000"


def test_a_layer_that_two_need_is_there_once() -> None:
    shared = L.Input()
    net = to_proto(L.ReLU(shared), L.TanH(shared), L.Silence(shared, ntop=0))
    assert [layer.type for layer in net.layer] == ["Input", "ReLU", "TanH", "Silence"]


def test_a_blob_that_is_not_there_is_named() -> None:
    spec = NetSpec()
    spec.data = L.Input()
    assert hasattr(spec, "data")
    assert not hasattr(spec, "label")
    with pytest.raises(KeyError, match="has no blob label") as raised:
        spec["label"]
    assert isinstance(raised.value, PruneError)


def test_a_copied_spec_makes_the_same_net() -> None:
    spec = NetSpec()
    spec.data = L.Input(shape={"dim": [1, 2]})
    spec.fc = L.InnerProduct(spec.data, num_output=3)
    assert copy.deepcopy(spec).to_proto() == spec.to_proto()


def test_tuples_are_lists_and_enums_are_numbers() -> None:
    top = L.Pooling(L.Input(shape=({"dim": (1, 2)},)), pool=P.Pooling.STOCHASTIC)
    expected = """
        layer { name: "Input1" type: "Input" top: "Input1"
                input_param { shape { dim: 1 dim: 2 } } }
        layer { name: "Pooling1" type: "Pooling" bottom: "Input1" top: "Pooling1"
                pooling_param { pool: STOCHASTIC } }
    """
    assert top.to_proto() == text_format.Parse(expected, caffe_pb2.NetParameter())


def test_a_repeated_field_takes_one_value() -> None:
    layer = caffe_pb2.LayerParameter()
    assign_proto(layer, "loss_weight", 2)
    assign_proto(layer, "param", {"lr_mult": 3})
    assert list(layer.loss_weight) == [2]
    assert layer.param[0].lr_mult == 3
