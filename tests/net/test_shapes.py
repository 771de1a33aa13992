from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from google.protobuf import text_format

from pycaffe_prune.formats.caffe_pb2 import TEST, TRAIN, LayerParameter, NetParameter, Phase
from pycaffe_prune.formats.caffemodel import read_caffemodel
from pycaffe_prune.formats.carried import parse_text
from pycaffe_prune.formats.prototxt import read_net
from pycaffe_prune.net.graph import NetState, layers_in_state
from pycaffe_prune.net.shapes import LayerShapes, Shape, infer_shapes
from tests.net.layer_nets import input_layer, net_around

PROTOTXT = Path(__file__).parents[2] / "prototxt"
Built = Mapping[str, Mapping[str, Sequence[Sequence[int]]]]


def layers_of(text: str) -> Sequence[LayerParameter]:
    return text_format.Parse(text, NetParameter()).layer


def networks() -> list[tuple[NetParameter, Phase]]:
    """The deploy nets, without fillers: random numbers would only take time."""
    nets: list[tuple[NetParameter, Phase]] = []
    for path in sorted(PROTOTXT.glob("*/deploy*.prototxt")):
        net = read_net(path)
        for layer in net.layer:
            layer.convolution_param.ClearField("weight_filler")
            layer.inner_product_param.ClearField("weight_filler")
        phases = (TRAIN, TEST) if any(layer.include for layer in net.layer) else (TEST,)
        nets += [(net, phase) for phase in phases]
    return nets


@pytest.mark.real_caffe
def test_the_published_networks_have_the_shapes_that_the_real_caffe_gives_them(
    built_by_caffe: Callable[..., list[Built]], require_equal: Callable[..., None]
) -> None:
    nets = networks()
    assert len(nets) >= 11
    for (net, phase), built in zip(nets, built_by_caffe(nets), strict=True):
        layers = layers_in_state(net, NetState(phase))
        require_equal(layers, infer_shapes(layers), built)
        assert len(built["params"]) == sum(bool(shapes.params) for shapes in infer_shapes(layers))


INPUTS: Mapping[str, Shape] = {
    "lenet/lenet_iter_10000": (64, 1, 28, 28),
    "cifar10_quick/cifar10_quick_iter_4000": (100, 3, 32, 32),
    "cifar10_quick/cifar10_quick_iter_5000": (100, 3, 32, 32),
    "squeezenet/squeezenet_v1.0_pruned": (10, 3, 227, 227),
}


@pytest.mark.parametrize("name", INPUTS)
def test_the_definitions_in_real_caffemodels_give_the_shapes_of_their_blobs(
    data_dir: Path, name: str
) -> None:
    model = read_caffemodel(data_dir / "zoo" / f"{name}.caffemodel")
    found = infer_shapes([layer.param for layer in model.layers], {"data": INPUTS[name]})
    for layer, shapes in zip(model.layers, found, strict=True):
        assert shapes.problem is None
        assert shapes.params == tuple(blob.shape for blob in layer.blobs)
    assert found[-1].tops[0] in ((), (10, 1000, 1, 1))


def test_a_blob_that_is_written_in_place_keeps_its_shape_and_a_new_one_gets_its_own() -> None:
    layers = layers_of(
        input_layer("data", (2, 3, 8, 8))
        + """
layer { name: "c" type: "Convolution" bottom: "data" top: "x"
        convolution_param { num_output: 5 kernel_size: 3 } }
layer { name: "r" type: "ReLU" bottom: "x" top: "x" }
layer { name: "p" type: "Pooling" bottom: "x" top: "y" pooling_param { global_pooling: true } }
layer { name: "ip" type: "InnerProduct" bottom: "y" top: "x" inner_product_param { num_output: 7 } }
layer { name: "s" type: "Softmax" bottom: "x" top: "z" }
"""
    )
    tops = [shapes.tops[0] for shapes in infer_shapes(layers)]
    assert tops[1:] == [(2, 5, 6, 6), (2, 5, 6, 6), (2, 5, 1, 1), (2, 7), (2, 7)]


LENET = PROTOTXT / "lenet_300_100" / "train_val.prototxt"


@pytest.mark.parametrize("batch", [1, 64])
def test_given_shapes_of_a_data_layer_lead_to_all_others(batch: int) -> None:
    layers = layers_in_state(read_net(LENET), NetState(TRAIN))
    data, *_, ip3, loss = infer_shapes(layers, {"data": (batch, 1, 28, 28)})
    assert data.tops == ((batch, 1, 28, 28), (batch,))
    assert (ip3.tops, ip3.params) == (((batch, 10),), ((10, 100), (10,)))
    assert (loss.bottoms, loss.tops) == (((batch, 10), (batch,)), ((),))


def test_what_the_prototxt_does_not_tell_is_unknown_and_said_so() -> None:
    data, ip1, *_, loss = infer_shapes(layers_in_state(read_net(LENET), NetState(TRAIN)))
    assert data.tops == (None, (64,))
    assert data.problem is not None
    assert "shape of the blob 'data' of layer 'mnist' (Data)" in data.problem
    assert (ip1.bottoms, ip1.tops, ip1.params) == ((None,), (None,), ())
    assert ip1.problem == (
        "layer 'ip1' (InnerProduct) reads the blob 'data', whose shape is not known"
    )
    assert loss.bottoms == (None, (64,))


def test_shapes_of_a_layer_with_unknown_fields_are_unknown() -> None:
    text = (
        input_layer("data", (2, 3, 8, 8))
        + """
layer { name: "c" type: "Convolution" bottom: "data" top: "x"
        convolution_param { num_ouput: 5 kernel_size: 3 } }
layer { name: "r" type: "ReLU" bottom: "x" top: "x" fork: 1 }
"""
    )
    _, convolution, relu = infer_shapes(parse_text(text, NetParameter()).layer)
    assert (convolution.tops, convolution.params) == ((None,), ())
    assert convolution.problem == (
        "layer 'c' (Convolution) has the field 'convolution_param.num_ouput' (did you mean "
        "'num_output'?), which stock Caffe does not know, so its shapes are not known"
    )
    assert relu.tops == (None,)


def test_a_given_shape_comes_before_that_of_the_prototxt() -> None:
    layers = layers_of(net_around("ReLU", [(64, 3)], ""))
    assert infer_shapes(layers, {"in0": (5, 3)})[-1].tops == ((5, 3),)
    assert infer_shapes(layers, {"out0": (5, 3)})[-1].tops == ((64, 3),)


def test_an_unknown_type_is_no_error_and_only_what_reads_it_is_unknown() -> None:
    layers = layers_of(
        net_around("Foo", [(2, 3)], "")
        + 'layer { name: "a" type: "ReLU" bottom: "in0" top: "a" }'
        + 'layer { name: "b" type: "ReLU" bottom: "out0" top: "b" }'
    )
    _, foo, known, unknown = infer_shapes(layers)
    assert foo == LayerShapes(((2, 3),), (None,), (), foo.problem)
    assert foo.problem == "layer 'x' is of type 'Foo', whose shapes are not known"
    assert (known.tops, known.problem) == (((2, 3),), None)
    assert (unknown.tops, unknown.bottoms) == ((None,), (None,))
    assert "reads the blob 'out0'" in (unknown.problem or "")
