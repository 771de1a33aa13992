from pathlib import Path

import pytest
from google.protobuf import text_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter, NetParameter
from pycaffe_prune.formats.carried import (
    carried_fields,
    copy_unknown,
    own_fields,
    parse_text,
    to_text,
)
from pycaffe_prune.formats.prototxt import read_net, write_prototxt

SSD = """
layer {
  name: "perm"
  type: "Permute"
  bottom: "a"
  top: "b"
  permute_param { # as SSD has it
    order: 0
    order: [2, 3, 1]
  }
}
layer {
  name: "pool"
  type: "Pooling"
  bottom: "b"
  top: "c"
  pooling_param {
    pool: MAX
    kernel_size: 2
    ceil_mode: false
  }
}
"""

words = st.text("abcxyz_", min_size=1, max_size=4).map(lambda word: "fork_" + word)
strings = st.text(st.characters(codec="utf-8", exclude_characters="\0")).map(
    lambda text: '"' + text_format.text_encoding.CEscape(text, True).replace("'", "\\'") + '"'
)
scalars = st.integers().map(str) | st.floats(allow_nan=False).map(str) | words | strings
spaces = st.sampled_from([" ", "\n  ", "\n\t# } {\n", " # ' \"\n    "])


@st.composite
def field_texts(draw: st.DrawFn, depth: int = 2) -> str:
    """A field of a name that no message of Caffe has."""
    name, space = draw(words), draw(spaces)
    kind = draw(st.sampled_from(["scalar", "list", "block"]))
    if kind == "scalar" or not depth:
        return f"{name}:{space}{draw(scalars)}"
    if kind == "list":
        return f"{name}: [{space}" + f",{space}".join(draw(st.lists(scalars, max_size=3))) + "]"
    inner = draw(st.lists(field_texts(depth=depth - 1), max_size=3))
    opening, closing = draw(st.sampled_from(["{}", "<>"]))
    colon = draw(st.sampled_from(["", ":"]))
    return f"{name}{colon} {opening}{space}" + space.join(inner) + f"{space}{closing}"


def _trace(text: str) -> list[str]:
    """A carried text without its indentation."""
    return [line.lstrip() for line in text.split("\n")]


@settings(deadline=None)
@given(
    outer=st.lists(field_texts(), max_size=2),
    layer=st.lists(field_texts(), max_size=2),
    inner=st.lists(field_texts(), max_size=2),
)
def test_any_unknown_field_is_kept_and_written_back(
    outer: list[str], layer: list[str], inner: list[str]
) -> None:
    text = "\n".join(
        [
            *(outer[:1]),
            'layer { name: "first" }\nlayer { name: "second"',
            *layer,
            "pooling_param { kernel_size: 3",
            *inner,
            "} type: 'Pooling' }",
            *(outer[1:]),
        ]
    )
    net = parse_text(text, NetParameter())
    assert [field.place for field in carried_fields(net)] == (
        [""] * len(outer) + ["layer."] * len(layer) + ["layer.pooling_param."] * len(inner)
    )
    texts = [_trace(field.text) for field in carried_fields(net)]
    assert texts == [_trace(field) for field in [*outer, *layer, *inner]]
    stock = NetParameter(layer=[LayerParameter(name="first"), LayerParameter(name="second")])
    stock.layer[1].type, stock.layer[1].pooling_param.kernel_size = "Pooling", 3
    assert text_format.MessageToString(net) == text_format.MessageToString(stock)
    written = to_text(net)
    again = parse_text(written, NetParameter())
    assert again == net
    assert to_text(again) == written


def test_fields_go_where_their_message_goes(tmp_path: Path) -> None:
    net = parse_text(SSD, NetParameter())
    other = NetParameter()
    other.layer.extend(net.layer)
    copied = other.layer.add()
    copied.CopyFrom(net.layer[1])
    copied.pooling_param.kernel_size = 3
    write_prototxt(tmp_path / "net.prototxt", other)
    again = read_net(tmp_path / "net.prototxt")
    assert [field.full_name for layer in again.layer for field in carried_fields(layer)] == [
        "permute_param",
        *["pooling_param.ceil_mode"] * 2,
    ]
    assert (tmp_path / "net.prototxt").read_text().startswith(SSD.lstrip())


def test_a_net_of_caffe_s_own_carries_nothing() -> None:
    net = parse_text('layer { name: "a" convolution_param { num_output: 3 } }', NetParameter())
    assert carried_fields(net) == []
    assert to_text(net) == text_format.MessageToString(net)


def test_a_misspelt_name_is_told_with_the_right_one() -> None:
    net = parse_text("layer { convolution_param { num_ouput: 3 bananas: 1 } }", NetParameter())
    misspelt, unknown = carried_fields(net.layer[0])
    assert str(misspelt) == "'convolution_param.num_ouput' (did you mean 'num_output'?)"
    assert str(unknown) == "'convolution_param.bananas'"


def test_a_value_that_an_enum_does_not_have_is_carried() -> None:
    net = parse_text("layer { lrn_param { engine: MKL2017 local_size: 3 } }", NetParameter())
    (field,) = carried_fields(net)
    assert (field.full_name, field.text) == ("layer.lrn_param.engine", "engine: MKL2017")
    assert not field.nearest
    assert net.layer[0].lrn_param.local_size == 3
    assert not net.layer[0].lrn_param.HasField("engine")


def test_a_field_of_a_binary_file_has_its_number_for_a_name() -> None:
    layer = LayerParameter.FromString(b"\xa2\x4b\x02\x08\x01")
    (field,) = own_fields(layer)
    assert (field.name, field.text) == ("1204", "")
    copy = LayerParameter()
    copy_unknown(layer, copy)
    assert copy == layer


@pytest.mark.parametrize(
    ("v1", "v2"),
    [("ROI_POOLING", "ROIPooling"), ("UPSAMPLE", "Upsample"), ("MY_OWN", "MY_OWN")],
)
def test_a_v1_layer_of_an_unknown_type_comes_upgraded_with_its_fields(
    tmp_path: Path, v1: str, v2: str
) -> None:
    path = tmp_path / "v1.prototxt"
    path.write_text(f"""
        fork: 1
        layers {{ name: "a" type: {v1} bottom: "x" top: "y" blobs_lr: 2 my_param {{ scale: 2 }} }}
    """)
    net = read_net(path)
    (layer,) = net.layer
    assert (layer.type, layer.param[0].lr_mult) == (v2, 2)
    assert [field.text for field in carried_fields(layer)] == ["my_param { scale: 2 }"]
    assert [field.text for field in own_fields(net)] == ["fork: 1"]


def test_a_v0_net_keeps_what_is_unknown(tmp_path: Path) -> None:
    path = tmp_path / "v0.prototxt"
    path.write_text("""
        fork: 1 input: "x" input_dim: [1, 1, 4, 4]
        layers { layer { name: "a" type: "conv" num_output: 2 inner: 1 } bottom: "x" outer: 2 }
    """)
    net = read_net(path)
    assert [field.full_name for field in carried_fields(net)] == [
        "fork",
        "layer.outer",
        "layer.inner",
    ]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(text=st.text("ab:{}[]<>'\"\\#,;- \n1.") | field_texts())
def test_any_text_is_carried_or_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "any.prototxt"
    path.write_text("layer { " + text + "\n}")
    try:
        net = read_net(path)
    except FormatError:
        return
    assert parse_text(to_text(net), NetParameter()) == net
