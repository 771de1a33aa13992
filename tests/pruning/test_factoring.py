"""Two layers for one compute what the one with their product does: the real Caffe's verdict."""

import numpy as np
import pytest
from google.protobuf import text_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import BlobKey, Caffemodel
from pycaffe_prune.net.fit import require_fitting
from pycaffe_prune.pruning.factoring import (
    Factoring,
    can_be_factored,
    factor_layers,
    left_out_of_factoring,
    weight_matrices,
)
from pycaffe_prune.pruning.low_rank import Factors, Way, decompose
from tests.pruning.conftest import CaffeForward
from tests.pruning.random_nets import SIZE, nets, random_weights

IMAGES = np.random.default_rng(5).normal(size=(2, 4, SIZE, SIZE)).astype(np.float32)
INPUT = """
layer { name: "data" type: "Input" top: "data"
  input_param { shape { dim: 2 dim: 4 dim: 6 dim: 6 } } }
"""


def convolution(name: str, settings_: str, more: str = "") -> str:
    return (
        f'layer {{ name: "{name}" type: "Convolution" bottom: "data" top: "{name}" {more} '
        f"convolution_param {{ {settings_} }} }}\n"
    )


def inner_product(name: str, settings_: str, more: str = "", bottom: str = "data") -> str:
    return (
        f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}" {more} '
        f"inner_product_param {{ {settings_} }} }}\n"
    )


WINDOWS = {
    "plain": "num_output: 6 kernel_size: 3",
    "strided": "num_output: 6 kernel_size: 3 stride: 2 pad: 1 bias_term: false",
    "sides": "num_output: 4 kernel_h: 2 kernel_w: 3 stride_h: 2 stride_w: 1 pad_h: 0 pad_w: 2",
    "lists": "num_output: 4 kernel_size: 3 kernel_size: 2 stride: 1 stride: 2 pad: 2 pad: 1",
    "holes": "num_output: 5 kernel_size: 2 dilation: 3 dilation: 2 pad: 1",
    "groups": "num_output: 6 kernel_size: 3 pad: 1 group: 2",
    "depthwise": "num_output: 4 kernel_size: 3 group: 4",
    "nd": "num_output: 3 kernel_size: 3 force_nd_im2col: true dilation: 2 axis: 1",
    "negative": "num_output: 3 kernel_size: 3 axis: -3 engine: CAFFE",
    "deep": "num_output: 4 kernel_size: 2 axis: 0 group: 2",
    "single": "num_output: 6 kernel_size: 1",
}
DENSE = {
    "ip": "num_output: 5",
    "transposed": "num_output: 5 transpose: true",
    "last": "num_output: 5 axis: -1 bias_term: false",
    "third": "num_output: 5 axis: 2 transpose: true",
}


def parsed(text: str) -> NetParameter:
    return text_format.Parse(INPUT + text, NetParameter())


def factorings(
    net: NetParameter, model: Caffemodel, spatial: bool, share: float
) -> dict[str, Factoring]:
    """One for each layer that can be factored, at a share of its ranks."""
    found = {}
    for name, kind in can_be_factored(net, model):
        has_two_axes = model.layer(name).blobs[0].ndim == 4
        way = Way.SPATIAL if spatial and has_two_axes else Way.FILTERS
        way = Way.MATRIX if kind == "InnerProduct" else way
        one = decompose(weight_matrices(net, model, name, way))
        found[name] = Factoring(way, one.cut(1 + int(share * (one.full_rank - 1))))
    return found


def multiplied(net: NetParameter, model: Caffemodel, made: dict[str, Factoring]) -> Caffemodel:
    """The model at full size whose weights are the products of the factors."""
    changed: dict[BlobKey, np.ndarray] = {}
    for name, one in made.items():
        weights = model.layer(name).blobs[0]
        layer = next(layer for layer in net.layer if layer.name == name)
        transposed = layer.inner_product_param.transpose
        shape = weights.T.shape if transposed else weights.shape
        product = one.factors.second @ one.factors.first
        if one.way is Way.SPATIAL:
            groups = len(product)
            filters, channels, height, width = shape
            product = product.reshape(groups, filters // groups, width, channels, height)
            product = product.transpose(0, 1, 3, 4, 2)
        product = product.reshape(shape).astype(np.float32)
        changed[name, 0] = np.ascontiguousarray(product.T) if transposed else product
    return model.with_blobs(changed)


def check(
    forward: CaffeForward, net: NetParameter, model: Caffemodel, made: dict[str, Factoring]
) -> None:
    small_net, small = factor_layers(net, model, made)
    require_fitting(small_net, small)
    wanted = forward(net, multiplied(net, model, made), {"data": IMAGES})
    found = forward(small_net, small, {"data": IMAGES})
    assert found.keys() == wanted.keys()
    for name, blob in wanted.items():
        size = max(1.0, float(np.abs(blob).max()))
        np.testing.assert_allclose(found[name], blob, atol=2e-5 * size, err_msg=name)


@pytest.mark.real_caffe
@pytest.mark.parametrize("share", [0.4, 1.0])
@pytest.mark.parametrize("spatial", [True, False])
def test_every_window_and_axis(caffe_forward: CaffeForward, spatial: bool, share: float) -> None:
    text = "".join(convolution(name, told) for name, told in WINDOWS.items())
    net = parsed(text + "".join(inner_product(name, told) for name, told in DENSE.items()))
    model = random_weights(net, 7)
    made = factorings(net, model, spatial, share)
    assert made.keys() == WINDOWS.keys() | DENSE.keys()
    check(caffe_forward, net, model, made)
    if share == 1:  # then the product is the weights
        for key, blob in multiplied(net, model, made).blobs():
            np.testing.assert_allclose(blob, model.layer(key[0]).blobs[key[1]], atol=1e-6)


@pytest.mark.real_caffe
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(nets(), st.integers(0, 99), st.booleans(), st.floats(0, 1))
def test_any_net(
    caffe_forward: CaffeForward, net: NetParameter, seed: int, spatial: bool, share: float
) -> None:
    model = random_weights(net, seed)
    check(caffe_forward, net, model, factorings(net, model, spatial, share))


def test_settings_go_to_the_layer_that_they_are_for() -> None:
    specs = 'param { name: "w" lr_mult: 3 decay_mult: 2 } param { name: "b" lr_mult: 4 }'
    fillers = 'weight_filler { type: "xavier" } bias_filler { type: "constant" value: 2 }'
    rest = "propagate_down: false loss_weight: 0.5 include { phase: TRAIN }"
    told = f"num_output: 6 kernel_size: 3 {fillers}"
    net = parsed(
        convolution("conv", told, f"{specs} {rest}")
        + convolution("conv", told, f"{specs} include {{ phase: TEST }}")
    )
    once = NetParameter(layer=net.layer[:2])
    made = factorings(once, random_weights(once, 1), True, 0.5)
    small, model = factor_layers(net, random_weights(once, 1), made)
    assert [layer.name for layer in small.layer] == ["data", *["conv_v", "conv"] * 2]
    assert [layer.name for layer in model.layers] == ["conv_v", "conv"]
    first, second = small.layer[1:3]
    assert [(s.name, s.lr_mult, s.decay_mult) for s in first.param] == [("w_v", 3, 2)]
    assert [(s.name, s.lr_mult) for s in second.param] == [("w", 3), ("b", 4)]
    assert [layer.convolution_param.weight_filler.type for layer in (first, second)] == [
        "xavier",
        "xavier",
    ]
    assert not first.convolution_param.HasField("bias_filler")
    assert second.convolution_param.bias_filler.value == 2
    assert (list(first.propagate_down), list(first.loss_weight)) == ([False], [])
    assert (list(second.propagate_down), list(second.loss_weight)) == ([], [0.5])
    assert [layer.include[0].phase for layer in small.layer[1:]] == [0, 0, 1, 1]
    assert (first.bottom[0], first.top[0]) == ("data", "conv_v")
    assert (second.bottom[0], second.top[0]) == ("conv_v", "conv")


def test_what_does_not_learn_is_fixed_in_the_first_layer_alone() -> None:
    net = parsed(inner_product("ip", "num_output: 5"))
    model = random_weights(net, 1)
    one = decompose(weight_matrices(net, model, "ip", Way.MATRIX))
    small, _ = factor_layers(net, model, {"ip": Factoring(Way.MATRIX, one.cut(2), fixed=True)})
    assert [(s.lr_mult, s.decay_mult) for s in small.layer[1].param] == [(0, 0)]
    assert not small.layer[2].param


def test_names_that_are_taken_are_avoided() -> None:
    net = parsed(
        inner_product("ip", "num_output: 5", 'param { name: "ip_v" }')
        + inner_product("other", "num_output: 2", bottom="ip")
        + 'layer { name: "relu" type: "ReLU" bottom: "other" top: "ip_v" }'
    )
    model = random_weights(net, 1)
    small, _ = factor_layers(net, model, factorings(net, model, True, 1))
    assert [layer.name for layer in small.layer] == [
        "data", "ip_v2", "ip", "other_v", "other", "relu",
    ]  # fmt: skip
    assert small.layer[1].param[0].name == "ip_v_v"
    assert small.layer[2].bottom[0] == small.layer[1].top[0] == "ip_v2"


def test_what_cannot_be_factored_is_named_with_the_reason() -> None:
    shared = 'param { name: "w" }'
    net = parsed(
        convolution("one", "num_output: 4 kernel_size: 3", shared)
        + convolution("two", "num_output: 4 kernel_size: 3", shared)
        + convolution("up", "num_output: 4 kernel_size: 3").replace("Convolution", "Deconvolution")
        + convolution("cube", "num_output: 3 kernel_size: 2 axis: 0")
        + inner_product("ip", "num_output: 5")
    )
    model = random_weights(net, 1)
    assert can_be_factored(net, model) == [("cube", "Convolution"), ("ip", "InnerProduct")]
    reasons = left_out_of_factoring(net, model)
    assert reasons.keys() == {"one", "two", "up"}
    assert "shares its weights with layer 'two'" in reasons["one"]
    assert "is of the type Deconvolution" in reasons["up"]
    for name, way, message in (
        ("cube", Way.SPATIAL, r"layer 'cube' \(Convolution\) has a kernel of 3 axes"),
        ("cube", Way.MATRIX, r"layer 'cube' \(Convolution\) is not factored by the way 'matrix'"),
        ("ip", Way.FILTERS, r"layer 'ip' \(InnerProduct\) is not factored by the way 'filters'"),
    ):
        with pytest.raises(SurgeryError, match=message):
            weight_matrices(net, model, name, way)
    made = Factoring(Way.FILTERS, Factors(np.ones((1, 1, 36)), np.ones((1, 4, 1))))
    with pytest.raises(SurgeryError, match="layer 'one' cannot be factored: it shares"):
        factor_layers(net, model, {"one": made})
