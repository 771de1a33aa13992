from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format

from pycaffe_prune.engines.caffe.engine import CaffeEngine
from pycaffe_prune.errors import EngineError, SurgeryError
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer, write_caffemodel
from pycaffe_prune.formats.prototxt import write_prototxt
from pycaffe_prune.net.fit import refuse_repeated_names, require_fitting
from pycaffe_prune.net.graph import NetState, layers_in_state
from pycaffe_prune.net.shapes import infer_shapes

DEPLOY = """
name: "small"
layer { name: "data" type: "Input" top: "data"
  input_param { shape { dim: 2 dim: 3 dim: 9 dim: 9 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 4 kernel_size: 3 } }
layer { name: "bn1" type: "BatchNorm" bottom: "conv1" top: "conv1" }
layer { name: "ip1" type: "InnerProduct" bottom: "conv1" top: "ip1"
  inner_product_param { num_output: 5 } }
"""
TRAIN_VAL = DEPLOY.replace(
    """type: "Input" top: "data"
  input_param { shape { dim: 2 dim: 3 dim: 9 dim: 9 } }""",
    'type: "Data" top: "data" top: "label"',
) + """
layer { name: "aux" type: "InnerProduct" bottom: "ip1" top: "aux" include { phase: TRAIN }
  inner_product_param { num_output: 2 } }
"""  # fmt: skip


def net_of(text: str) -> NetParameter:
    return text_format.Parse(text, NetParameter())


def weights_of(net: NetParameter) -> Caffemodel:
    layers = layers_in_state(net, NetState())
    shapes = infer_shapes(layers, {"data": (2, 3, 9, 9)})
    return Caffemodel(
        tuple(
            Layer(layer, tuple(np.ones(shape, np.float32) for shape in around.params))
            for layer, around in zip(layers, shapes, strict=True)
        ),
        NetParameter(name=net.name),
    )


@pytest.mark.parametrize("text", [DEPLOY, TRAIN_VAL])
def test_weights_of_a_net_fit_it(text: str) -> None:
    require_fitting(net_of(text), weights_of(net_of(DEPLOY)))


def changed(name: str, *shapes: tuple[int, ...]) -> Caffemodel:
    model = weights_of(net_of(DEPLOY))
    blobs = tuple(np.ones(shape, np.float32) for shape in shapes)
    return Caffemodel(
        tuple(Layer(layer.param, blobs) if layer.name == name else layer for layer in model.layers)
    )


MISFITS = [
    (changed("ip1", (6, 196), (6,)), "layer 'ip1', blob 0: the net says 5x196, .* holds 6x196"),
    (changed("ip1", (5, 195), (5,)), "layer 'ip1', blob 0: the net says 5x196, .* holds 5x195"),
    (changed("ip1", (5, 196), (4,)), "layer 'ip1', blob 1: the net says 5, .* holds 4"),
    (changed("ip1", (5, 196)), r"'ip1': the net says 2 blobs \(5x196, 5\), .* holds 1 \(5x196\)"),
    (changed("ip1"), "'ip1': the net has it with blobs 5x196, 5, .* holds none .*: conv1, bn1"),
    (changed("bn1", (4,), (4,)), "layer 'bn1': the net says 3 blobs"),
    (changed("conv1", (4, 1, 3, 3), (4,)), "'conv1', blob 0: the net says 4x3x3x3"),
]


@pytest.mark.parametrize(("model", "sentence"), MISFITS)
def test_a_misfit_is_one_sentence_with_layer_and_shapes(model: Caffemodel, sentence: str) -> None:
    with pytest.raises(SurgeryError, match=sentence) as raised:
        require_fitting(net_of(DEPLOY), model)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (changed("ip1", (6, 196), (6,)), r"'ip1', blob 0: the net says 5x\?, .* holds 6x196"),
        (changed("conv1", (4, 3, 5, 5), (4,)), r"'conv1', blob 0: the net says 4x\?x3x3"),
        (changed("ip1"), "'ip1': the net has it with blobs"),
    ],
)
def test_without_the_inputs_shape_the_definitions_alone_are_compared(
    model: Caffemodel, sentence: str
) -> None:
    with pytest.raises(SurgeryError, match=sentence):
        require_fitting(net_of(TRAIN_VAL), model)


def test_with_the_inputs_shape_a_train_val_net_is_compared_in_full() -> None:
    model = changed("ip1", (5, 195), (5,))
    require_fitting(net_of(TRAIN_VAL), model)
    with pytest.raises(SurgeryError, match="5x196"):
        require_fitting(net_of(TRAIN_VAL), model, {"data": (1, 3, 9, 9)})


def test_a_training_head_may_be_missing_but_not_misfit() -> None:
    net, model = net_of(TRAIN_VAL), weights_of(net_of(DEPLOY))
    (aux,) = (layer for layer in net.layer if layer.name == "aux")
    head = Layer(aux, (np.ones((3, 5), np.float32), np.ones(3, np.float32)))
    with pytest.raises(SurgeryError, match=r"'aux', blob 0: the net says 2x\?"):
        require_fitting(net, Caffemodel((*model.layers, head)))


def test_a_shared_blob_may_be_held_by_its_owner_alone() -> None:
    net = net_of(
        DEPLOY.replace('name: "ip1"', 'name: "ip1" param { name: "w" } param { name: "b" }')
        + 'layer { name: "twin" type: "InnerProduct" bottom: "conv1" top: "twin" '
        'param { name: "w" } param { name: "b" } inner_product_param { num_output: 5 } }'
    )
    model = weights_of(net)
    owners = Caffemodel(tuple(layer for layer in model.layers if layer.name != "twin"))
    require_fitting(net, owners)
    with pytest.raises(SurgeryError, match="'ip1'"):
        require_fitting(net, Caffemodel(tuple(x for x in model.layers if x.name != "ip1")))


@pytest.mark.real_caffe
@pytest.mark.parametrize("case", [*range(len(MISFITS)), None])
def test_what_is_refused_for_its_shapes_caffe_refuses_too(
    tmp_path: Path, caffe_python: Path, case: int | None
) -> None:
    net = net_of(DEPLOY)
    model = weights_of(net) if case is None else MISFITS[case][0]
    write_prototxt(tmp_path / "net.prototxt", net)
    write_caffemodel(tmp_path / "w.caffemodel", model)
    images = {"data": np.ones((2, 3, 9, 9), np.float32)}

    def forward() -> None:
        CaffeEngine(caffe_python).forward(
            tmp_path / "net.prototxt", tmp_path / "w.caffemodel", images, ["ip1"]
        )

    if case is None:
        forward()
    else:
        with pytest.raises(EngineError, match=r"shape|blobs"):
            forward()


def test_layers_of_one_name_are_refused_where_one_has_weights() -> None:
    for kind, other in (("InnerProduct", "InnerProduct"), ("BatchNorm", "ReLU")):
        twice = f'''name: "n"
            layer {{ name: "a" type: "{kind}" bottom: "data" top: "a" }}
            layer {{ name: "a" type: "{other}" bottom: "a" top: "b" }}'''
        with pytest.raises(SurgeryError, match=rf"net 'n' .* name 'a' \({kind} and {other}\)"):
            refuse_repeated_names(net_of(twice))


def test_names_may_repeat_without_weights_and_in_states_apart() -> None:
    refuse_repeated_names(
        net_of("""
            layer { name: "r" type: "ReLU" bottom: "a" top: "b" }
            layer { name: "r" type: "TanH" bottom: "b" top: "c" }
            layer { name: "ip" type: "InnerProduct" include { phase: TRAIN } }
            layer { name: "ip" type: "InnerProduct" include { phase: TEST } }""")
    )


@pytest.mark.real_caffe
def test_caffe_loads_weights_of_two_layers_of_one_name_into_the_first(
    caffe_python: Path, tmp_path: Path
) -> None:
    net = net_of("""name: "n" layer { name: "data" type: "Input" top: "data"
        input_param { shape { dim: 1 dim: 2 } } }
      layer { name: "a" type: "InnerProduct" bottom: "data" top: "a"
        inner_product_param { num_output: 2 bias_term: false } }
      layer { name: "a" type: "InnerProduct" bottom: "a" top: "b"
        inner_product_param { num_output: 2 bias_term: false } }""")
    blobs = [np.full((2, 2), value, np.float32) for value in (1, 2)]
    model = Caffemodel(
        tuple(Layer(net.layer[place + 1], (blob,)) for place, blob in enumerate(blobs)),
        NetParameter(name="n"),
    )
    write_prototxt(tmp_path / "net.prototxt", net)
    write_caffemodel(tmp_path / "w.caffemodel", model)
    ones = np.ones((1, 2), np.float32)
    [a, b] = CaffeEngine(caffe_python).forward(
        tmp_path / "net.prototxt", tmp_path / "w.caffemodel", {"data": ones}, ["a", "b"]
    )
    np.testing.assert_array_equal(a, [[4, 4]])  # the second's weights
    np.testing.assert_array_equal(b, [[0, 0]])  # those of its filler
