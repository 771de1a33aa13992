import pytest
from google.protobuf import text_format

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.net.graph import NetGraph
from pycaffe_prune.net.on_states import OnState, on_states, with_on_states

START = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: [1, 3, 8, 8] } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 5 kernel_size: 3 } }
"""
END = """
layer { name: "fc" type: "InnerProduct" bottom: "x" top: "fc"
  inner_product_param { num_output: 4 } }
"""


def net_of(*parts: str) -> NetParameter:
    return text_format.Parse("".join(parts), NetParameter())


def step(kind: str, settings: str = "", bottom: str = "conv", top: str = "x") -> str:
    return f'layer {{ name: "{kind}" type: "{kind}" bottom: "{bottom}" top: "{top}" {settings} }}'


@pytest.mark.parametrize(
    ("between", "activation", "threshold"),
    [
        (step("ReLU"), "ReLU", 0.0),
        (step("Sigmoid"), "Sigmoid", 0.5),
        (step("Pooling", top="p") + step("ReLU", bottom="p"), "ReLU", 0.0),
        (
            step("BatchNorm", top="conv") + step("Scale", top="conv") + step("ReLU"),
            "ReLU",
            0.0,
        ),
        (
            step("ReLU", "include { phase: TEST }") + step("TanH", "include { phase: TRAIN }"),
            "ReLU",
            0.0,
        ),
    ],
)
def test_the_state_shows_behind_the_activation(
    between: str, activation: str, threshold: float
) -> None:
    net = net_of(START, between, END)
    assert on_states(net, ["conv"]) == [OnState("conv", activation, threshold)]


@pytest.mark.parametrize(
    ("between", "words"),
    [
        (step("TanH"), r"leads to 'TanH' \(TanH\), which has no on and off"),
        (step("PReLU"), "which has no on and off"),
        (step("ReLU", "relu_param { negative_slope: 0.1 }"), "negative_slope 0.1"),
        (step("Flatten"), r"leads to 'Flatten' \(Flatten\) before any ReLU"),
        (step("ReLU") + step("TanH", top="y"), "is read by ReLU, TanH before any"),
    ],
)
def test_other_ways_are_refused_by_name(between: str, words: str) -> None:
    net = net_of(START, between, END)
    with pytest.raises(SurgeryError, match=words):
        on_states(net, ["conv"])


def test_layers_without_units_or_an_activation_are_refused() -> None:
    net = net_of(START, step("ReLU"), END)
    for name, words in (
        ("fc", "is read by no layer"),
        ("other", "no layer 'other'"),
        ("ReLU", "is a ReLU"),
    ):
        with pytest.raises(SurgeryError, match=words):
            on_states(net, [name])


def test_a_threshold_reads_what_the_activation_puts_out_and_nothing_else_changes() -> None:
    taken = step("Power", bottom="data", top="on_state_0")
    after = step("ReLU", bottom="conv", top="conv") + step("Dropout", bottom="conv", top="conv")
    net = net_of(START, after, step("Power2", bottom="conv"), END, taken)
    states = on_states(net, ["conv"])
    told, blobs = with_on_states(net, [*states, *states])
    assert blobs == {"conv": "on_state_1"}
    graph = NetGraph(told.layer)
    (place,) = [number for number, layer in enumerate(told.layer) if layer.type == "Threshold"]
    (source,) = graph.bottoms[place]
    assert source is not None
    assert told.layer[source.layer].name == "ReLU"
    assert told.layer[place].threshold_param.threshold == 0
    rest = [layer for layer in told.layer if layer.type != "Threshold"]
    assert rest == list(net.layer)
