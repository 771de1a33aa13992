"""Dead units go without a trace: the real Caffe's verdict, in any net."""

import numpy as np
import pytest
from google.protobuf import text_format
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer
from pycaffe_prune.pruning.dead import delete_dead, unread_inputs
from tests.pruning.conftest import CaffeForward
from tests.pruning.random_nets import SIZE, nets, random_weights, sparse_weights

IMAGES = np.random.default_rng(3).normal(size=(2, 4, SIZE, SIZE)).astype(np.float32)
INPUT = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 4 } } }'


@pytest.mark.real_caffe
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(nets(), st.integers(0, 999))
def test_a_net_without_its_dead_units_puts_out_the_same(
    caffe_forward: CaffeForward, net: NetParameter, seed: int
) -> None:
    model = sparse_weights(net, seed)
    alive = delete_dead(net, model)
    wanted = caffe_forward(net, model, {"data": IMAGES})
    for definition, weights in ((alive.whole_net, alive.whole), (alive.net, alive.model)):
        found = caffe_forward(definition, weights, {"data": IMAGES})
        assert found.keys() == wanted.keys()
        for name, blob in wanted.items():
            size = max(1.0, float(np.abs(blob).max()))
            np.testing.assert_allclose(found[name], blob, atol=2e-5 * size, err_msg=name)


@settings(max_examples=15)
@given(nets(), st.integers(0, 999))
def test_nothing_is_dead_in_what_is_left(net: NetParameter, seed: int) -> None:
    assume(all(layer.convolution_param.group == 1 for layer in net.layer))  # which bind units
    alive = delete_dead(net, sparse_weights(net, seed))
    again = delete_dead(alive.net, alive.model)
    assert all(kept.all() for kept in again.kept.values())
    assert again.net == alive.net


@settings(max_examples=15)
@given(nets(), st.integers(0, 999))
def test_dense_weights_lose_nothing(net: NetParameter, seed: int) -> None:
    model = random_weights(net, seed)
    alive = delete_dead(net, model)
    assert all(kept.all() for kept in alive.kept.values())
    assert alive.net == net
    for key, blob in model.blobs():
        np.testing.assert_array_equal(alive.model.layer(key[0]).blobs[key[1]], blob)


def chain(*widths: int, extra: str = "") -> tuple[NetParameter, Caffemodel]:
    """InnerProduct layers ip1, ip2 … with ReLUs between, and weights 1 with biases 0.5."""
    text, layers, bottom = INPUT, [], "data"
    for number, width in enumerate(widths[1:], start=1):
        name = f"ip{number}"
        text += (
            f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}" {extra}'
            f"inner_product_param {{ num_output: {width} }} }}"
        )
        if number < len(widths) - 1:
            text += f'layer {{ name: "r{number}" type: "ReLU" bottom: "{name}" top: "{name}" }}'
        bottom = name
    net = text_format.Parse(text, NetParameter())
    inner = [layer for layer in net.layer if layer.type == "InnerProduct"]
    for layer, before, width in zip(inner, widths, widths[1:], strict=False):
        blobs = (np.ones((width, before), np.float32), np.full(width, 0.5, np.float32))
        layers.append(Layer(layer, blobs))
    return net, Caffemodel(tuple(layers))


def test_a_constant_goes_into_the_next_bias() -> None:
    net, model = chain(4, 3, 2)
    model.layer("ip1").blobs[0][1] = 0
    alive = delete_dead(net, model)
    assert alive.kept["ip1"].tolist() == [True, False, True]
    np.testing.assert_array_equal(alive.model.layer("ip2").blobs[1], [1, 1])
    assert model.layer("ip2").blobs[1].tolist() == [0.5, 0.5]  # the argument is untouched


def test_a_unit_that_feeds_dead_units_alone_is_dead() -> None:
    net, model = chain(4, 3, 3, 2)
    model.layer("ip3").blobs[0][:, 0] = 0
    model.layer("ip2").blobs[0][1:, 2] = 0
    alive = delete_dead(net, model)
    assert alive.kept["ip2"].tolist() == [False, True, True]
    assert alive.kept["ip1"].tolist() == [True, True, False]


def test_a_layer_keeps_one_unit_and_output_units_stay() -> None:
    net, model = chain(4, 3, 2)
    model.layer("ip1").blobs[0][:] = 0
    model.layer("ip2").blobs[0][:] = 0
    alive = delete_dead(net, model)
    assert alive.kept["ip1"].sum() == 1
    assert alive.kept["ip2"].all()


def test_a_bias_is_made_where_there_is_none() -> None:
    net, model = chain(4, 3, 2, extra="param { lr_mult: 0 }")
    net.layer[-1].inner_product_param.bias_term = False
    one, two = model.layers
    param = two.param
    param.inner_product_param.bias_term = False
    model = Caffemodel((one, Layer(param, two.blobs[:1])))
    model.layer("ip1").blobs[0][1] = 0
    alive = delete_dead(net, model)
    definition = alive.net.layer[-1]
    assert definition.inner_product_param.bias_term
    assert [spec.lr_mult for spec in definition.param] == [0, 0]  # frozen, as the weights are
    np.testing.assert_array_equal(alive.model.layer("ip2").blobs[1], [0.5, 0.5])


def test_what_is_not_finite_is_refused() -> None:
    net, model = chain(4, 3, 2)
    model.layer("ip1").blobs[0][1] = np.nan
    with pytest.raises(SurgeryError, match=r"layer 'ip1', blob 0 .* NaN or infinite"):
        delete_dead(net, model)


def test_inputs_that_no_weight_reads_are_counted() -> None:
    net, model = chain(4, 3, 2)
    model.layer("ip1").blobs[0][:, 2] = 0
    assert unread_inputs(net, model) == {"ip1": (1, 4)}
