from collections.abc import Mapping
from fractions import Fraction

import pytest
from google.protobuf import text_format
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.prototxt import read_net
from pycaffe_prune.net.widths import with_widths
from pycaffe_prune.pruning.budget import Quantity, SizeBudget, dense_amount
from pycaffe_prune.pruning.small_dense import hidden_layers, small_widths
from pycaffe_prune.share import share_root
from tests.pruning.random_nets import nets

PROTOTXT = share_root() / "prototxt"
INPUT = (
    'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 8 '
    "dim: 6 dim: 6 } } }"
)
quantities = st.sampled_from(["parameters", "macs", "bytes"])


def deploy(name: str) -> NetParameter:
    return read_net(PROTOTXT / name / "deploy.prototxt")


def by_one_factor(
    whole: Mapping[str, int], widths: Mapping[str, int], step: int = 1
) -> tuple[Fraction, Fraction]:
    """The factors that give the widths: from the first (included) to the second (not)."""
    low = max(Fraction(0 if one == step else one, whole[name]) for name, one in widths.items())
    high = min(Fraction(one + step, whole[name]) for name, one in widths.items())
    return low, high


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(["lenet", "lenet_300_100"]), quantities, st.floats(0.01, 2.5))
def test_it_is_the_largest_net_of_one_factor_within_the_budget(
    name: str, quantity: Quantity, share: float
) -> None:
    net = deploy(name)
    whole = {
        layer.name: layer.inner_product_param.num_output or layer.convolution_param.num_output
        for layer in net.layer
        if layer.name in hidden_layers(net)
    }
    budget = SizeBudget(quantity, int(share * dense_amount(net, quantity)))
    widths = small_widths(net, budget)
    assert widths.keys() == whole.keys()
    assert min(widths.values()) >= 1
    assert dense_amount(with_widths(net, widths), quantity) <= budget.amount
    low, high = by_one_factor(whole, widths)
    assert low < high  # one factor gives all of these widths
    next_larger = {layer: max(1, int(high * width)) for layer, width in whole.items()}
    assert next_larger != widths
    assert dense_amount(with_widths(net, next_larger), quantity) > budget.amount


@settings(max_examples=15)
@given(nets(), quantities)
def test_a_budget_of_the_whole_net_gives_the_whole_net(
    net: NetParameter, quantity: Quantity
) -> None:
    assume(all(layer.convolution_param.group == 1 for layer in net.layer))
    assume(not any(layer.type in ("Slice", "Reshape") for layer in net.layer))
    assume(hidden_layers(net))
    amount = dense_amount(net, quantity)
    widths = small_widths(net, SizeBudget(quantity, amount))
    assert dense_amount(with_widths(net, widths), quantity) == amount
    assert with_widths(net, widths) == net


def convolutions(first: str, second: str) -> NetParameter:
    text = INPUT + "".join(
        f'layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}" '
        f"convolution_param {{ kernel_size: 1 {settings} }} }}"
        for name, bottom, settings in (
            ("one", "data", first),
            ("two", "one", second),
            ("last", "two", "num_output: 5"),
        )
    )
    return text_format.Parse(text, NetParameter())


def test_layers_whose_channels_come_in_groups_keep_whole_groups() -> None:
    net = convolutions("num_output: 24 group: 2", "num_output: 12 group: 3")
    whole = dense_amount(net, "parameters")
    for share in (0.3, 0.5, 0.8, 1):
        widths = small_widths(net, SizeBudget("parameters", int(share * whole)))
        assert widths["one"] % 6 == 0
        assert widths["two"] % 3 == 0
        assert dense_amount(with_widths(net, widths), "parameters") <= share * whole
    assert widths == {"one": 24, "two": 12}


def test_layers_can_be_chosen_and_the_others_stay() -> None:
    net = deploy("lenet")
    widths = small_widths(net, SizeBudget("parameters", 60_000), ["ip1"])
    assert list(widths) == ["ip1"]
    assert dense_amount(with_widths(net, widths), "parameters") <= 60_000


@pytest.mark.parametrize(
    ("layers", "budget", "said"),
    [
        (["ip2"], 50_000, r"'ip2' is no hidden .*: conv1, conv2, ip1"),
        (["pool1"], 50_000, r"'pool1' is no hidden"),
        (None, 10, r"the narrowest net has 89 parameters, more than the 10 of the budget"),
    ],
)
def test_what_cannot_be_is_refused(layers: list[str] | None, budget: int, said: str) -> None:
    with pytest.raises(SurgeryError, match=said):
        small_widths(deploy("lenet"), SizeBudget("parameters", budget), layers)


def test_widths_that_another_layer_counts_too_are_refused() -> None:
    depthwise = convolutions("num_output: 24", "num_output: 24 group: 24")
    with pytest.raises(SurgeryError, match=r"'one' cannot be narrowed .* 'two' \(Convolution\)"):
        small_widths(depthwise, SizeBudget("parameters", 200))
