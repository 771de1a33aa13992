import pytest
from google.protobuf import text_format

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.caffe_pb2 import NetParameter, V0LayerParameter, V1LayerParameter
from pycaffe_prune.formats.upgrade_v0 import is_v0, upgrade_v0_net

# What becomes of these nets in the real Caffe is asked in test_upgrade.py.


def parse(text: str) -> NetParameter:
    return text_format.Parse(text, NetParameter())


def test_a_padding_layer_becomes_the_pad_of_each_layer_after_it() -> None:
    net = upgrade_v0_net(
        parse("""
            input: "data"
            layers { layer { name: "p" type: "padding" pad: 2 } bottom: "data" top: "padded" }
            layers { layer { name: "c" type: "conv" pad: 1 } bottom: "padded" top: "c" }
            layers { layer { name: "q" type: "pool" } bottom: "padded" top: "q" }
        """)
    )
    assert [layer.name for layer in net.layers] == ["c", "q"]
    assert [list(layer.bottom) for layer in net.layers] == [["data"], ["data"]]
    assert list(net.layers[0].convolution_param.pad) == [2]
    assert net.layers[1].pooling_param.pad == 2


def test_a_parameter_that_its_type_does_not_know_is_dropped() -> None:
    net = upgrade_v0_net(parse('layers { layer { name: "r" type: "relu" num_output: 3 } }'))
    assert list(net.layers) == [V1LayerParameter(name="r", type=V1LayerParameter.RELU)]


def test_every_parameter_of_2013_has_a_place() -> None:
    placeless = set()
    for field in V0LayerParameter.DESCRIPTOR.fields:
        default = getattr(V0LayerParameter(), field.name)
        if field.type == field.TYPE_MESSAGE or field.name == "type":
            continue
        kept = []
        for known in ("conv", "pool", "lrn", "dropout", "data", "images", "window_data", "concat"):
            layer = V0LayerParameter(type=known)
            if hasattr(default, "append"):
                getattr(layer, field.name).append(1)
            else:
                setattr(layer, field.name, default)
            (new,) = upgrade_v0_net(NetParameter(layers=[{"layer": layer}])).layers
            kept += [found.name for found, _ in new.ListFields() if found.name != "type"]
        placeless |= set() if kept else {field.name}
    assert placeless == {"new_num", "new_channels"}  # Caffe gives no type a parameter for these


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('layers { layer { name: "c" type: "convolve" } }', "'c' has the type 'convolve', which"),
        ('layers { layer { name: "c" } }', "layer 'c' has the type '', which Caffe does not know"),
        (
            'layers { layer { name: "c" type: "conv" } bottom: "x" }',
            "layer 'c': no layer or input before it makes its bottom blob 'x'",
        ),
        (
            """input: "data"
            layers { layer { name: "p" type: "padding" } bottom: "data" top: "p" }
            layers { layer { name: "r" type: "relu" } bottom: "p" top: "p" }""",
            "padding layer 'p' cannot become the pad of layer 'r' of type 'relu'",
        ),
        (
            """input: "data"
            layers { layer { name: "p" type: "padding" } bottom: "data" top: "p" }
            layers { layer { name: "c" type: "conv" } bottom: "p" bottom: "data" top: "c" }""",
            "padding layer 'p' cannot become the pad of layer 'c'",
        ),
        (
            """layers { layer { name: "p" type: "padding" } top: "p" }
            layers { layer { name: "c" type: "conv" } bottom: "p" top: "c" }""",
            "padding layer 'p' cannot become the pad of layer 'c'",
        ),
    ],
)
def test_what_cannot_be_upgraded_is_named(text: str, sentence: str) -> None:
    with pytest.raises(FormatError, match=sentence):
        upgrade_v0_net(parse(text))


def test_v0_layers_among_v1_layers_are_refused() -> None:
    old = V1LayerParameter(layer=V0LayerParameter(name="old", type="relu"))
    new = V1LayerParameter(name="new", type=V1LayerParameter.RELU)
    assert is_v0(NetParameter(layers=[old]))
    assert not is_v0(NetParameter(layers=[new]))
    assert not is_v0(NetParameter())
    with pytest.raises(FormatError, match="layer 'new' has the V1 form among layers of the V0"):
        is_v0(NetParameter(layers=[old, new]))
