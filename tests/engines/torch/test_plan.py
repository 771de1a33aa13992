"""Gradients go where Caffe sends them."""

import pytest
from google.protobuf import text_format

from pycaffe_prune.engines.torch.plan import plan_flow
from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import TEST, TRAIN, NetParameter
from pycaffe_prune.net.graph import NetGraph

NET = """
layer { name: "data" type: "Input" top: "data" top: "label" }
layer { name: "ip1" type: "InnerProduct" bottom: "data" top: "ip1" }
layer { name: "relu1" type: "ReLU" bottom: "ip1" top: "ip1" }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2" %s }
layer { name: "side" type: "InnerProduct" bottom: "ip1" top: "side" }
layer { name: "accuracy" type: "Accuracy" bottom: "ip2" bottom: "label" top: "accuracy" }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }
"""


def plan(text: str, *, learning=("ip1", "ip2", "side"), phase=TRAIN):
    net = text_format.Parse(text, NetParameter())
    learns = [layer.name in learning for layer in net.layer]
    flows = plan_flow(net, NetGraph(net.layer), phase, learns)
    return {layer.name: flow for layer, flow in zip(net.layer, flows, strict=True)}


def training(flows) -> set[str]:
    return {name for name, flow in flows.items() if flow.trains}


def test_what_leads_from_something_learnt_to_a_loss_trains():
    flows = plan(NET % "")
    assert training(flows) == {"ip1", "relu1", "ip2", "loss"}  # neither side nor accuracy
    assert flows["ip1"].propagate == (False,)  # data want no gradient
    assert flows["loss"].propagate == (True, False)  # labels neither


def test_frozen_layers_below_the_last_one_learnt_do_not_train():
    assert training(plan(NET % "", learning=("ip2",))) == {"ip2", "loss"}
    flows = plan(NET % "", learning=("ip1",))
    assert training(flows) == {"ip1", "relu1", "ip2", "loss"}


def test_propagate_down_cuts_the_way():
    flows = plan(NET % "propagate_down: false")
    assert training(flows) == {"ip2", "loss"}
    assert flows["ip2"].propagate == (False,)


def test_a_test_net_has_a_backward_pass_only_when_forced():
    assert not training(plan(NET % "", phase=TEST))
    flows = plan("force_backward: true" + NET % "", phase=TEST, learning=())
    assert training(flows) == {"ip1", "relu1", "ip2", "loss"}
    assert flows["ip1"].propagate == (True,)


def test_in_place_is_only_what_nothing_else_reads():
    flows = plan(NET % "")
    assert [name for name, flow in flows.items() if flow.sole_in_place] == ["relu1"]
    before = NET.replace('bottom: "ip1" top: "side"', 'bottom: "data" top: "side"') % ""
    other = 'layer { name: "x" type: "TanH" bottom: "ip1" top: "x" }\nlayer { name: "relu1"'
    assert not plan(before.replace('layer { name: "relu1"', other))["relu1"].sole_in_place


def test_loss_weights_are_caffes():
    net = NET % ""
    assert [weight for _, weight in plan(net)["loss"].loss_weights] == [1.0]
    half = net.replace('top: "loss"', 'top: "loss" loss_weight: 0.5')
    assert [weight for _, weight in plan(half)["loss"].loss_weights] == [0.5]
    none = net.replace('top: "loss"', 'top: "loss" loss_weight: 0')
    assert not training(plan(none))
    any_top = net.replace('top: "side"', 'top: "side" loss_weight: 1')
    assert "side" in training(plan(any_top))


def test_what_contradicts_itself_is_refused():
    with pytest.raises(SurgeryError, match=r"'loss'.*2 loss_weight for 1 tops"):
        plan((NET % "").replace('top: "loss"', 'top: "loss" loss_weight: 1 loss_weight: 1'))
    with pytest.raises(SurgeryError, match=r"'ip2' reads the blob 'ipX'"):
        plan((NET % "").replace('bottom: "ip1" top: "ip2"', 'bottom: "ipX" top: "ip2"'))
