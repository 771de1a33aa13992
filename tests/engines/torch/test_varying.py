"""Behind a Filter a net computes what one of that many images does."""

import numpy as np
import pytest
import torch
from google.protobuf import text_format

from pycaffe_prune.engines.torch.net import Net
from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import TRAIN, NetParameter
from pycaffe_prune.net.graph import NetState

INPUTS = """
layer { name: "in" type: "Input" top: "data" top: "label" top: "pass"
  input_param { shape { dim: 6 dim: 2 dim: 5 dim: 5 } shape { dim: 6 } shape { dim: 6 } } }
"""
FILTER = """layer { name: "filter" type: "Filter" bottom: "conv" bottom: "label" bottom: "pass"
  top: "conv2" top: "label2" }
"""
CONV = """layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 3 kernel_size: 2 weight_filler { type: "xavier" } } }
"""
REST = """
layer { name: "pool" type: "Pooling" bottom: "conv2" top: "pool" pooling_param { kernel_size: 2 } }
layer { name: "flat" type: "Flatten" bottom: "pool" top: "flat" loss_weight: 0.01 }
layer { name: "norm" type: "MVN" bottom: "flat" top: "norm" }
layer { name: "ip" type: "InnerProduct" bottom: "flat" top: "ip"
  inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label2" top: "loss" }
"""


def _built(text: str) -> Net:
    return Net(text_format.Parse(text, NetParameter()), NetState(TRAIN))


def _pass(net: Net, **blobs: torch.Tensor) -> dict[str, torch.Tensor]:
    """The loss, the scores, and all gradients of one pass."""
    net.fetch()
    for name, values in blobs.items():
        net.blobs[name].tensor.copy_(values)
    net.parameters.diff.zero_()
    net.compute()
    found = {name: net.value(name).clone() for name in ("loss", "ip")}
    return found | {"diffs": net.parameters.diff.clone()}


def test_layers_follow_the_images_that_pass_from_batch_to_batch() -> None:
    filtered = _built(INPUTS + CONV + FILTER + REST)
    data, label = torch.rand(6, 2, 5, 5), torch.tensor([0.0, 1, 2, 3, 2, 1])
    for passing in ([0, 2, 3], [1, 5], [0, 1, 2, 3, 4, 5], [0, 2, 3]):
        selector = torch.zeros(6)
        selector[passing] = 1
        found = _pass(filtered, data=data, label=label, **{"pass": selector})
        count = len(passing)
        inputs = INPUTS.replace("dim: 6", f"dim: {count}")
        few = _built(inputs + CONV + REST.replace("conv2", "conv").replace("label2", "label"))
        few.parameters.data.copy_(filtered.parameters.data)
        wanted = _pass(few, data=data[passing], label=label[passing])
        assert found["ip"].shape == (count, 4)
        for name, value in wanted.items():
            torch.testing.assert_close(found[name], value)


def test_where_no_image_passes_scores_are_empty_and_nothing_is_learned() -> None:
    net = _built(INPUTS + CONV + FILTER + REST)
    found = _pass(net, data=torch.rand(6, 2, 5, 5))
    assert found["ip"].shape == (0, 4)
    assert found["loss"] == 0
    assert not found["diffs"].any()


def test_weights_made_for_all_images_are_named() -> None:
    whole = """layer { name: "all" type: "InnerProduct" bottom: "conv2" top: "all"
      inner_product_param { num_output: 1 axis: 0 } }"""
    net = _built(INPUTS + CONV + FILTER + whole)
    net.fetch()
    net.blobs["pass"].data[...] = np.array([1, 1, 0, 0, 1, 1])
    with pytest.raises(SurgeryError, match=r"'all'.* a Filter lets pass .*4x3x4x4.* 1x192.* 1x288"):
        net.forward()
