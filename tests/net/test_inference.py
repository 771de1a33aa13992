import pytest
from google.protobuf import text_format

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.prototxt import read_net
from pycaffe_prune.net.inference import inference_net, input_shapes, output_blobs
from pycaffe_prune.net.shapes import infer_shapes
from pycaffe_prune.share import share_root

TRAIN_VAL = """
name: "small"
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TRAIN } }
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TEST } }
layer { name: "ip1" type: "InnerProduct" bottom: "data" top: "ip1"
  inner_product_param { num_output: 5 } }
layer { name: "relu1" type: "ReLU" bottom: "ip1" top: "ip1" include { phase: TEST } }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
  inner_product_param { num_output: 3 } }
layer { name: "aux" type: "InnerProduct" bottom: "ip1" top: "aux" include { phase: TRAIN }
  inner_product_param { num_output: 3 } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip2" bottom: "label" top: "accuracy" }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }
"""
DEPLOY = """
name: "small"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 } } }
layer { name: "ip1" type: "InnerProduct" bottom: "data" top: "ip1"
  inner_product_param { num_output: 5 } }
layer { name: "relu1" type: "ReLU" bottom: "ip1" top: "ip1" }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
  inner_product_param { num_output: 3 } }
layer { name: "prob" type: "Softmax" bottom: "ip2" top: "prob" }
"""


def net_of(text: str) -> NetParameter:
    return text_format.Parse(text, NetParameter())


def names(net: NetParameter) -> list[str]:
    return [layer.name for layer in net.layer]


def test_a_training_net_answers_with_what_its_loss_judges() -> None:
    assert output_blobs(net_of(TRAIN_VAL)) == ["ip2"]


def test_logits_are_compared_beside_the_probabilities_made_of_them() -> None:
    assert output_blobs(net_of(DEPLOY)) == ["ip2", "prob"]


def test_every_deploy_net_here_answers_with_its_probabilities_last() -> None:
    found = sorted(share_root().glob("prototxt/*/deploy*.prototxt"))
    assert found
    for path in found:
        net = read_net(path)
        last = [layer for layer in net.layer if layer.type == "Softmax"][-1]
        assert output_blobs(net)[-2:] == [last.bottom[0], last.top[0]], path


def test_logits_that_the_softmax_overwrites_cannot_be_asked_for() -> None:
    text = DEPLOY.replace('bottom: "ip2" top: "prob"', 'bottom: "ip2" top: "ip2"')
    assert output_blobs(net_of(text)) == ["ip2"]


def test_the_inference_net_of_a_training_net_is_its_test_net_fed_by_an_input() -> None:
    net = inference_net(net_of(TRAIN_VAL), {"data": (7, 4)}, ["ip2"])
    assert names(net) == ["data", "ip1", "relu1", "ip2"]
    assert not any(layer.include for layer in net.layer)
    assert [shapes.tops for shapes in infer_shapes(net.layer)][-1] == ((7, 3),)


def test_what_the_outputs_do_not_need_is_left_out() -> None:
    assert names(inference_net(net_of(DEPLOY), {"data": (1, 3)}, ["ip1"])) == [
        "data",
        "ip1",
        "relu1",
    ]


def test_shapes_of_data_blobs_are_those_given_then_those_told() -> None:
    assert input_shapes(net_of(DEPLOY), ["prob"], {}) == {"data": (1, 3)}
    assert input_shapes(net_of(TRAIN_VAL), ["ip2"], {}) == {"data": None}
    assert input_shapes(net_of(TRAIN_VAL), ["ip2"], {"data": (2, 9)}) == {"data": (2, 9)}


def test_a_net_keeps_the_sources_that_hold_their_values_themselves() -> None:
    text = DEPLOY.replace(
        'layer { name: "relu1"',
        """layer { name: "ones" type: "DummyData" top: "ones"
          dummy_data_param { shape { dim: 1 dim: 5 } data_filler { value: 1 } } }
        layer { name: "sum" type: "Eltwise" bottom: "ip1" bottom: "ones" top: "ip1" }
        layer { name: "relu1\"""",
    )
    net = net_of(text)
    assert list(input_shapes(net, ["prob"], {})) == ["data"]
    assert "ones" in names(inference_net(net, {"data": (1, 3)}, ["prob"]))


@pytest.mark.parametrize(
    ("text", "inputs", "outputs", "message"),
    [
        (DEPLOY, {"data": (1, 3)}, ["ip3"], "no blob 'ip3'; its blobs: data, ip1, ip2, prob"),
        (DEPLOY, {}, ["prob"], "blob 'data' of layer 'data' (Input) is needed"),
        (DEPLOY, {"data": (1, 3), "x": (1, 3)}, ["prob"], "no data blob 'x' (1x3)"),
        (
            DEPLOY.replace('bottom: "data"', 'bottom: "image"'),
            {"data": (1, 3)},
            ["prob"],
            "layer 'ip1' reads the blob 'image', which no layer of the TEST net makes",
        ),
        (TRAIN_VAL, {"data": (1, 3)}, ["loss"], "blob 'label' of layer 'data' (Data) is needed"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    text: str, inputs: dict[str, tuple[int, ...]], outputs: list[str], message: str
) -> None:
    with pytest.raises(SurgeryError) as caught:
        inference_net(net_of(text), inputs, outputs)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
