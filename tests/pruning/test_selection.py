from fnmatch import fnmatchcase

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter, NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer
from pycaffe_prune.pruning.selection import connection_layers, select_layers

LENET = [
    ("conv1", "Convolution"),
    ("conv2", "Convolution"),
    ("ip1", "InnerProduct"),
    ("ip2", "InnerProduct"),
]
SQUEEZENET = [("conv1", "Convolution"), ("fire2/squeeze1x1", "Convolution")]

names = st.text("abc12/_", min_size=1, max_size=6).map(lambda name: f"n{name}")
types = st.sampled_from(["InnerProduct", "Convolution"])
nets = st.lists(st.tuples(names, types), min_size=1, max_size=8, unique_by=lambda pair: pair[0])


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("ip2", ["ip2"]),
        ("ip2, conv1", ["conv1", "ip2"]),
        ("conv*", ["conv1", "conv2"]),
        ("*1", ["conv1", "ip1"]),
        ("ip?,conv[!1]", ["conv2", "ip1", "ip2"]),
        ("Convolution", ["conv1", "conv2"]),
        ("InnerProduct,conv2", ["conv2", "ip1", "ip2"]),
        ("all", ["conv1", "conv2", "ip1", "ip2"]),
        (None, ["conv1", "conv2", "ip1", "ip2"]),
    ],
)
def test_names_patterns_and_types_choose_in_the_nets_order(
    text: str | None, chosen: list[str]
) -> None:
    assert select_layers(LENET, text) == chosen


def test_a_pattern_reaches_over_the_slash_in_a_name() -> None:
    assert select_layers(SQUEEZENET, "fire2*") == ["fire2/squeeze1x1"]


def test_a_layers_name_comes_before_what_it_could_mean_besides() -> None:
    odd = [("all", "Convolution"), ("InnerProduct", "Convolution"), ("ip[1]", "InnerProduct")]
    assert select_layers(odd, "all") == ["all"]
    assert select_layers(odd, "InnerProduct") == ["InnerProduct"]
    assert select_layers(odd, "ip[1]") == ["ip[1]"]


@given(nets, st.data())
def test_a_choice_is_each_of_its_parts_together(
    net: list[tuple[str, str]], data: st.DataObject
) -> None:
    picked = data.draw(st.lists(st.sampled_from([name for name, _ in net]), min_size=1))
    whole = select_layers(net, ",".join(picked))
    assert whole == [name for name, _ in net if name in picked]
    assert select_layers(net, None) == select_layers(net, "all") == [name for name, _ in net]


@given(nets, st.sampled_from(["n*", "*1", "na?*", "*"]))
def test_a_pattern_chooses_what_a_shell_would(net: list[tuple[str, str]], pattern: str) -> None:
    matching = [name for name, _ in net if fnmatchcase(name, pattern)]
    if matching:
        assert select_layers(net, pattern) == matching
    else:
        with pytest.raises(SurgeryError, match="can be pruned so"):
            select_layers(net, pattern)


@pytest.mark.parametrize("text", ["ip9", "fc*", "Deconvolution", "", "ip1,", "ip1,ip9", "IP1"])
def test_a_part_that_chooses_nothing_is_refused_with_what_there_is(text: str) -> None:
    with pytest.raises(SurgeryError, match=r"no layer '.*' can be pruned so") as refusal:
        select_layers(LENET, text)
    assert "conv1 (Convolution)" in str(refusal.value)
    assert "ip2 (InnerProduct)" in str(refusal.value)


def test_a_net_without_candidates_is_refused() -> None:
    with pytest.raises(SurgeryError, match="no layer that can be pruned"):
        select_layers([], "all")


def test_connections_are_those_of_layers_that_the_net_has_and_the_model_holds() -> None:
    def definition(name: str, layer_type: str) -> LayerParameter:
        return LayerParameter(name=name, type=layer_type)

    net = NetParameter(
        layer=[
            definition("conv1", "Convolution"),
            definition("bn1", "BatchNorm"),
            definition("conv1", "Convolution"),  # as for another phase
            definition("ip1", "InnerProduct"),
            definition("ip2", "InnerProduct"),
        ]
    )
    names = ["ip1", "conv1", "bn1", "gone"]  # without types, as some formats have them
    blobs = (np.ones((1, 1), np.float32),)
    model = Caffemodel(tuple(Layer(LayerParameter(name=name), blobs) for name in names))
    assert connection_layers(net, model) == [("conv1", "Convolution"), ("ip1", "InnerProduct")]
