import numpy as np
import pytest
from google.protobuf import text_format
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel
from pycaffe_prune.pruning.merging import left_out_of_merging, merge_order, merge_units
from pycaffe_prune.pruning.units import delete_units
from tests.pruning.conftest import CaffeForward
from tests.pruning.random_nets import random_weights

NET = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: [2, 3, 4, 4] } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 6 kernel_size: 3 } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "fc1" type: "InnerProduct" bottom: "conv" top: "fc1"
  inner_product_param { num_output: 8 } }
layer { name: "tanh" type: "TanH" bottom: "fc1" top: "fc1" }
layer { name: "fc2" type: "InnerProduct" bottom: "fc1" top: "fc2"
  inner_product_param { num_output: 3 transpose: true } }
"""
IMAGES = np.random.default_rng(0).normal(size=(2, 3, 4, 4)).astype(np.float32)


def net_of(text: str) -> NetParameter:
    return text_format.Parse(text, NetParameter())


def with_twins(model: Caffemodel, copies: dict[str, list[int]]) -> Caffemodel:
    """Let the last units of each layer have the incoming weights of those listed."""
    changed = {}
    for name, like in copies.items():
        for index in (0, 1):
            blob = model.layer(name).blobs[index].copy()
            blob[-len(like) :] = blob[like]
            changed[name, index] = blob
    return model.with_blobs(changed)


@pytest.mark.real_caffe
def test_twins_merge_without_a_trace(caffe_forward: CaffeForward) -> None:
    net = net_of(NET)
    model = with_twins(random_weights(net, 3), {"conv": [0, 0], "fc1": [1, 2]})
    merged, kept = merge_units(net, model, {"conv": 2 / 6, "fc1": 2 / 8})
    assert {name: int((~flags).sum()) for name, flags in kept.items()} == {"conv": 2, "fc1": 2}
    small_net, small = delete_units(net, merged, kept)
    wanted = caffe_forward(net, model, {"data": IMAGES})["fc2"]
    found = caffe_forward(small_net, small, {"data": IMAGES})["fc2"]
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.real_caffe
def test_multiples_merge_without_a_trace_behind_a_relu(caffe_forward: CaffeForward) -> None:
    net = net_of(NET)
    model = with_twins(random_weights(net, 3), {"conv": [0]})
    for blob in model.layer("conv").blobs:
        blob[-1] *= 3
    wanted = caffe_forward(net, model, {"data": IMAGES})["fc2"]
    merged, kept = merge_units(net, model, {"conv": 1 / 6})
    assert (~kept["conv"]).tolist() in ([True, *[False] * 5], [*[False] * 5, True])
    found = caffe_forward(*delete_units(net, merged, kept), {"data": IMAGES})["fc2"]
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.real_caffe
def test_merging_keeps_more_than_deleting(caffe_forward: CaffeForward) -> None:
    net = net_of(NET)
    model = with_twins(random_weights(net, 3), {"fc1": [0, 1, 2]})
    random = np.random.default_rng(1)
    noisy = model.layer("fc1").blobs[0]
    noisy += random.normal(0, 0.01, noisy.shape).astype(np.float32)
    merged, kept = merge_units(net, model, {"fc1": 3 / 8})
    wanted = caffe_forward(net, model, {"data": IMAGES})["fc2"]
    errors = []
    for weights in (merged, model):
        found = caffe_forward(*delete_units(net, weights, kept), {"data": IMAGES})["fc2"]
        errors.append(float(np.abs(found - wanted).max()))
    assert errors[0] < errors[1] / 5


@st.composite
def weights(draw: st.DrawFn) -> tuple[NDArray[np.float32], NDArray[np.float32], int]:
    units, inputs, outputs = (
        draw(st.integers(2, 9)),
        draw(st.integers(1, 5)),
        draw(st.integers(1, 4)),
    )
    random = np.random.default_rng(draw(st.integers(0, 999)))
    rows = random.normal(size=(units, inputs)).astype(np.float32)
    outgoing = random.normal(size=(outputs, units)).astype(np.float32)
    return rows, outgoing, draw(st.integers(0, units - 1))


@settings(max_examples=50)
@given(weights())
def test_each_merge_is_the_one_of_lowest_saliency(
    case: tuple[NDArray[np.float32], NDArray[np.float32], int],
) -> None:
    rows, outgoing, count = case
    left, leaving = list(range(len(rows))), outgoing.T.astype(np.float64)
    found = merge_order(rows, outgoing, count)
    assert len(found) == count
    for gone, into in found:
        saliency = {
            (j, i): np.square(leaving[j]).mean()
            * np.square(rows[i].astype(np.float64) - rows[j]).sum()
            for j in left
            for i in left
            if i != j
        }
        assert saliency[gone, into] == pytest.approx(min(saliency.values()), rel=1e-6, abs=1e-12)
        leaving[into] += leaving[gone]
        left.remove(gone)


@settings(max_examples=20)
@given(st.integers(0, 99), st.floats(0, 0.99))
def test_what_leads_out_of_a_layer_keeps_its_sum(seed: int, ratio: float) -> None:
    net = net_of(NET)
    model = random_weights(net, seed)
    merged, kept = merge_units(net, model, {"fc1": ratio})
    assume(not kept["fc1"].all())
    _, small = delete_units(net, merged, kept)
    before, after = model.layer("fc2").blobs[0], small.layer("fc2").blobs[0]
    np.testing.assert_allclose(after.sum(axis=0), before.sum(axis=0), atol=1e-5)
    np.testing.assert_array_equal(
        small.layer("fc1").blobs[0], model.layer("fc1").blobs[0][kept["fc1"]]
    )


def test_layers_that_cannot_merge_say_why() -> None:
    scaled = NET.replace(
        'layer { name: "tanh"', 'layer { name: "bn" type: "BatchNorm" bottom: "fc1" top: "fc1" }'
        ' layer { name: "tanh"'
    )  # fmt: skip
    net = net_of(scaled)
    reasons = left_out_of_merging(net, random_weights(net, 1))
    assert "layer 'bn', which has values of its own for each unit" in reasons["fc1"]
    assert "is an output layer" in reasons["fc2"]
    assert "conv" not in reasons
    with pytest.raises(SurgeryError, match="layer 'fc1' is followed by layer 'bn'"):
        merge_units(net, random_weights(net, 1), {"fc1": 0.5})
    with pytest.raises(SurgeryError, match="layer 'other' has no units"):
        merge_units(net, random_weights(net, 1), {"other": 0.5})
