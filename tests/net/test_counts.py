from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.caffe_pb2 import TRAIN, NetParameter
from pycaffe_prune.formats.caffemodel import read_caffemodel
from pycaffe_prune.net.counts import LayerCounts, count_file, count_layers
from pycaffe_prune.net.state_wish import StateWish

PROTOTXT = Path(__file__).parents[2] / "prototxt"


def counts_of(text: str) -> Mapping[str, LayerCounts]:
    layers = text_format.Parse(text, NetParameter()).layer
    return {layer.name: layer for layer in count_layers(layers)}


def input_layer(*shape: int) -> str:
    dims = " ".join(f"dim: {extent}" for extent in shape)
    return (
        f'layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ {dims} }} }} }}\n'
    )


def layer(kind: str, settings: str = "", bottom: str = "data", name: str = "x") -> str:
    return (
        f'layer {{ name: "{name}" type: "{kind}" bottom: "{bottom}" top: "{name}" {settings} }}\n'
    )


@given(
    batch=st.integers(1, 3),
    group=st.integers(1, 2),
    inputs=st.integers(1, 3),
    outputs=st.integers(1, 3),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 2),
    pad=st.integers(0, 1),
    size=st.integers(3, 6),
)
def test_macs_of_a_convolution_are_those_of_its_loops(
    batch: int,
    group: int,
    inputs: int,
    outputs: int,
    kernel: int,
    stride: int,
    pad: int,
    size: int,
) -> None:
    settings = (
        f"convolution_param {{ num_output: {outputs * group} kernel_size: {kernel} "
        f"stride: {stride} pad: {pad} group: {group} }}"
    )
    found = counts_of(
        input_layer(batch, inputs * group, size, size + 1) + layer("Convolution", settings)
    )
    places = [range(0, extent + 2 * pad - kernel + 1, stride) for extent in (size, size + 1)]
    one_image = sum(
        inputs * kernel**2 for _ in range(outputs * group) for _ in places[0] for _ in places[1]
    )
    assert found["x"].macs == one_image
    assert found["x"].activations == outputs * group * len(places[0]) * len(places[1])
    assert found["x"].weights == outputs * group * inputs * kernel**2
    assert found["x"].biases == outputs * group


def test_macs_of_a_deconvolution_are_those_of_the_convolution_that_it_turns_round() -> None:
    settings = "convolution_param { num_output: 6 kernel_size: 4 stride: 2 pad: 1 }"
    up = counts_of(input_layer(2, 3, 8, 8) + layer("Deconvolution", settings))["x"]
    assert up.tops[0].shape == (2, 6, 16, 16)
    down = settings.replace("6", "3")
    convolution = counts_of(input_layer(2, 6, 16, 16) + layer("Convolution", down))["x"]
    assert convolution.tops[0].shape == (2, 3, 8, 8)
    assert (up.macs, up.weights) == (convolution.macs, convolution.weights)


@pytest.mark.parametrize(
    ("shape", "axis", "macs"),
    [((5, 3, 4), 1, 7 * 12), ((5, 3, 4), 2, 3 * 7 * 4), ((5, 3, 4), -1, 3 * 7 * 4), ((6,), 0, 42)],
)
def test_an_inner_product_multiplies_each_weight_once_per_place_before_its_axis(
    shape: Sequence[int], axis: int, macs: int
) -> None:
    settings = f"inner_product_param {{ num_output: 7 axis: {axis} }}"
    assert counts_of(input_layer(*shape) + layer("InnerProduct", settings))["x"].macs == macs


def test_macs_of_recurrent_layers_are_those_of_the_products_that_they_are_unrolled_to() -> None:
    steps, streams, outputs = 2, 4, 5
    inputs = "".join(
        input_layer(*shape).replace('"data"', f'"{name}"')
        for name, shape in {
            "data": (steps, streams, 3),
            "cont": (steps, streams),
            "static": (streams, 6),
            "hidden": (1, streams, outputs),
        }.items()
    )

    def product(rows: int, bottom: str, axis: int) -> int:
        told = f"inner_product_param {{ num_output: {rows} axis: {axis} }}"
        return counts_of(inputs + layer("InnerProduct", told, bottom))["x"].macs or 0

    settings = f'bottom: "cont" recurrent_param {{ num_output: {outputs} }}'
    for kind, rows, output in (("LSTM", 4 * outputs, 0), ("RNN", outputs, outputs**2 * streams)):
        of_a_step = product(rows, "data", 2) + product(rows, "hidden", 2) + output
        plain = counts_of(inputs + layer(kind, settings))["x"]
        assert plain.macs == of_a_step
        more = settings.replace("recurrent_param", 'bottom: "static" recurrent_param')
        static = counts_of(inputs + layer(kind, more))["x"]
        assert static.macs == of_a_step + product(rows, "static", 1) * streams // steps
        odd = inputs.replace(f"dim: {steps} ", "dim: 3 ")  # 4 / 3 times a step
        assert counts_of(odd + layer(kind, settings))["x"].macs == of_a_step
        assert counts_of(odd + layer(kind, more))["x"].macs is None


def test_embed_multiplies_nothing() -> None:
    settings = "embed_param { num_output: 4 input_dim: 9 }"
    found = counts_of(input_layer(2, 3) + layer("Embed", settings))["x"]
    assert (found.weights, found.macs) == (36, 0)


@pytest.mark.parametrize(
    ("kind", "settings", "weights", "biases", "statistics"),
    [
        ("BatchNorm", "", 0, 0, 2 * 3 + 1),
        ("Scale", "", 3, 0, 0),
        ("Scale", "scale_param { bias_term: true }", 3, 3, 0),
        ("Scale", 'bottom: "data" scale_param { bias_term: true axis: 0 }', 0, 5 * 3 * 2, 0),
        ("Bias", "", 0, 3, 0),
        ("PReLU", "", 3, 0, 0),
        ("PReLU", "prelu_param { channel_shared: true }", 1, 0, 0),
        ("InnerProduct", "inner_product_param { num_output: 4 bias_term: false }", 24, 0, 0),
        ("Embed", "embed_param { num_output: 4 input_dim: 9 }", 36, 4, 0),
        ("LSTM", 'bottom: "cont" recurrent_param { num_output: 4 }', 16 * 2 + 16 * 4, 16, 0),
        ("RNN", 'bottom: "cont" recurrent_param { num_output: 4 }', 4 * 2 + 4 * 4 * 2, 4 + 4, 0),
        ("ReLU", "", 0, 0, 0),
    ],
)
def test_weights_biases_and_statistics_are_told_apart(
    kind: str, settings: str, weights: int, biases: int, statistics: int
) -> None:
    marks = input_layer(5, 3).replace('"data"', '"cont"')
    found = counts_of(input_layer(5, 3, 2) + marks + layer(kind, settings))["x"]
    assert (found.weights, found.biases, found.statistics) == (weights, biases, statistics)


def test_a_shared_parameter_counts_once_and_multiplies_twice() -> None:
    shared = 'param { name: "w" } param { name: "b" } inner_product_param { num_output: 4 }'
    found = counts_of(
        input_layer(2, 3)
        + layer("InnerProduct", shared, name="one")
        + layer("InnerProduct", shared, name="two")
    )
    assert (found["one"].weights, found["one"].biases) == (12, 4)
    assert (found["two"].weights, found["two"].biases) == (0, 0)
    assert found["one"].macs == found["two"].macs == 12


def test_what_is_written_in_place_is_no_new_activation() -> None:
    in_place = 'layer { name: "r" type: "ReLU" bottom: "data" top: "data" }'
    found = counts_of(input_layer(4, 3, 2) + layer("ReLU") + in_place)
    assert (found["data"].activations, found["x"].activations) == (6, 6)
    assert found["r"].activations == 0


def test_what_an_unknown_layer_makes_is_not_known() -> None:
    found = counts_of(input_layer(4, 3) + layer("Foo") + layer("ReLU", bottom="x", name="y"))
    assert (found["x"].macs, found["x"].activations, found["y"].macs) == (None, None, None)
    assert "type 'Foo'" in (found["x"].problem or "")
    assert found["data"].macs == 0


def test_sums_are_over_the_layers_whose_counts_are_known() -> None:
    path = PROTOTXT / "lenet_300_100" / "train_val.prototxt"
    unknown = count_file(path, StateWish(TRAIN))
    assert (unknown.parameters, unknown.macs) == (0, 0)
    assert "blob 'data'" in unknown.problems[0]
    known = count_file(path, StateWish(TRAIN), {"data": (3, 1, 28, 28)})
    assert known.problems == ()
    assert (known.name, known.phase, known.path) == ("LeNet-300-100", "TRAIN", str(path))
    assert known.weights == known.macs == sum(layer.weights for layer in known.layers) == 266_200
    assert known.parameters == known.weights + known.biases == 266_610


@pytest.mark.parametrize(
    ("network", "weights"),
    [
        ("lenet/deploy", "lenet/lenet_iter_10000"),
        ("squeezenet_v1.0/deploy_firenet", "squeezenet/squeezenet_v1.0_pruned"),
    ],
)
def test_parameters_are_all_values_of_the_caffemodel(
    data_dir: Path, network: str, weights: str
) -> None:
    model = read_caffemodel(data_dir / "zoo" / f"{weights}.caffemodel")
    found = count_file(PROTOTXT / f"{network}.prototxt", StateWish())
    blobs = dict(model.blobs())
    assert found.parameters == sum(blob.size for blob in blobs.values())
    assert found.biases == sum(blob.size for (_, index), blob in blobs.items() if index == 1)


def test_a_file_that_is_no_net_is_named(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text("laier { }")
    with pytest.raises(FormatError, match=str(path)):
        count_file(path, StateWish())
