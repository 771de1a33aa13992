"""Blobs begin with what the prototxt says, or with the defaults of Caffe's layers."""

import numpy as np
import pytest

from pycaffe_prune.engines.torch.net import Net
from pycaffe_prune.errors import FormatError, PruneError
from pycaffe_prune.formats.caffe_pb2 import TRAIN
from pycaffe_prune.net.graph import NetState
from tests.engines.torch.loss_nets import parse

DATA = """
layer { name: "data" type: "Input" top: "data" top: "other" input_param {
  shape { dim: 4 dim: 6 dim: 4 dim: 4 } shape { dim: 6 } } }
"""


def blobs(kind: str, settings: str, bottoms: str = 'bottom: "data"', seed: int = 1) -> list:
    text = f'layer {{ name: "x" type: "{kind}" {bottoms} top: "x" {settings} }}'
    if "data" not in bottoms:
        text = text.replace(bottoms, "")
    net = Net(parse(DATA + text), NetState(TRAIN), seed=seed)
    return [view.data for view in net.params["x"]]


ONE, TWO = 'filler { value: 1.5 }', 'filler { value: 2.5 }'  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "settings", "values"),
    [
        ("InnerProduct", "inner_product_param { num_output: 3 }", [0, 0]),
        (
            "InnerProduct",
            f"inner_product_param {{ num_output: 3 weight_{ONE} bias_{TWO} }}",
            [1.5, 2.5],
        ),
        (
            "Convolution",
            f"convolution_param {{ num_output: 3 kernel_size: 2 weight_{ONE} bias_{TWO} }}",
            [1.5, 2.5],
        ),
        (
            "Deconvolution",
            f"convolution_param {{ num_output: 3 kernel_size: 2 weight_{ONE} bias_{TWO} }}",
            [1.5, 2.5],
        ),
        (
            "Embed",
            f"embed_param {{ num_output: 3 input_dim: 5 weight_{ONE} bias_{TWO} }}",
            [1.5, 2.5],
        ),
        ("Scale", "", [1]),
        ("Scale", "scale_param { bias_term: true }", [1, 0]),
        ("Scale", f"scale_param {{ {ONE} bias_term: true bias_{TWO} }}", [1.5, 2.5]),
        ("Bias", "", [0]),
        ("Bias", f"bias_param {{ {ONE} }}", [1.5]),
        ("PReLU", "", [0.25]),
        ("PReLU", f"prelu_param {{ {ONE} }}", [1.5]),
        ("BatchNorm", "", [0, 0, 0]),
    ],
)
def test_constants_are_those_that_are_stated_or_caffes(kind, settings, values) -> None:
    found = blobs(kind, settings)
    assert len(found) == len(values)
    for blob, value in zip(found, values, strict=True):
        assert blob.size > 0
        np.testing.assert_array_equal(blob, np.full(blob.shape, value, np.float32))


def test_the_bias_of_a_scale_by_another_blob_is_stated_by_its_bias_filler() -> None:
    found = blobs(
        "Scale",
        f"scale_param {{ axis: 1 {ONE} bias_term: true bias_{TWO} }}",
        'bottom: "data" bottom: "other"',
    )
    (bias,) = found
    np.testing.assert_array_equal(bias, np.full(6, 2.5, np.float32))


def test_a_seed_tells_all_values_and_each_blob_has_its_own() -> None:
    settings = """inner_product_param { num_output: 96 weight_filler { type: "gaussian" }
      bias_filler { type: "gaussian" } }"""
    first, again, other = (blobs("InnerProduct", settings, seed=seed) for seed in (1, 1, 2))
    for one, same, else_ in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(one, same)
        assert not np.array_equal(one, else_)
    assert not np.array_equal(first[0][:, 0], first[1])


def test_a_filler_that_is_not_known_is_named_with_its_blob() -> None:
    with pytest.raises(FormatError, match=r"'x'.*'mrsa'"):
        blobs(
            "InnerProduct", 'inner_product_param { num_output: 3 weight_filler { type: "mrsa" } }'
        )


HELD = "blobs { shape { dim: %s } data: [%s] } "
IP = 'layer { name: "x" type: "InnerProduct" bottom: "data" top: "x" %s inner_product_param {'
WEIGHT = HELD % ("2 dim: 96", ", ".join(["0.25"] * 192))


def test_values_that_a_net_holds_are_what_it_begins_with_and_what_shares_them() -> None:
    bias = "blobs { num: 1 channels: 1 height: 1 width: 2 data: [3, 4] }"
    x = IP % (WEIGHT + bias + 'param { name: "w" }') + " num_output: 2 } }"
    text = x + x.replace('"x"', '"y"').replace("0.25", "9")
    net = Net(parse(DATA + text), NetState(TRAIN))
    for name in "xy":
        assert (net.params[name][0].data == 0.25).all()
        assert net.params[name][1].data.tolist() == [3, 4]


@pytest.mark.parametrize(
    ("held", "sentence"),
    [
        (WEIGHT.replace("2 dim: 96", "96 dim: 2"), "blob 0: the net holds .* 96x2 .* it is 2x96"),
        (WEIGHT.replace("2 dim: 96", "192"), "blob 0: the net holds .* 192 .* it is 2x96"),
        (WEIGHT * 2, "holds values of 2 blobs; it has 1 blob"),
    ],
)
def test_values_that_do_not_fit_are_refused(held: str, sentence: str) -> None:
    text = IP % held + " num_output: 2 bias_term: false } }"
    with pytest.raises(PruneError, match=f"layer 'x'.*{sentence}"):
        Net(parse(DATA + text), NetState(TRAIN))
