import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import text_format
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats import forks, wire
from pycaffe_prune.formats.caffe_pb2 import LayerParameter, NetParameter
from pycaffe_prune.formats.carried import carried_fields, carry, own_fields, parse_text, to_text
from pycaffe_prune.formats.forks import fork_part, is_known, with_names
from pycaffe_prune.formats.prototxt import read_net, write_prototxt
from pycaffe_prune.formats.wire_text import message_of
from pycaffe_prune.share import share_root

FORMATS = Path(forks.__file__).parent


def binary(layer_type: str, number: int, value: bytes) -> LayerParameter:
    """A layer as a caffemodel has it, with a field of a fork."""
    length = wire.encode_varint(len(value))
    tag = wire.encode_varint(number << 3 | wire.LENGTH)
    plain = LayerParameter(name="a", type=layer_type).SerializeToString()
    return message_of(plain + tag + length + value, LayerParameter)


def texts(layer: LayerParameter) -> list[str]:
    return [field.text for field in carried_fields(layer)]


@pytest.mark.parametrize(
    ("layer_type", "number", "value", "text"),
    [
        ("Permute", 202, b"\x08\x00\x08\x02", "permute_param {\n  order: 0\n  order: 2\n}"),
        ("PriorBox", 203, b"\x20\x00", "prior_box_param {\n  flip: false\n}"),
        ("ROIPooling", 8266711, b"\x08\x07", "roi_pooling_param {\n  pooled_h: 7\n}"),
        ("ROIPooling", 154, b"\x08\x07", "roi_pooling_param {\n  pooled_h: 7\n}"),
        ("Upsample", 137, b"\x08\x02", "upsample_param {\n  scale: 2\n}"),
        ("Interp", 143, b"\x18\x08", "interp_param {\n  zoom_factor: 8\n}"),
        ("BN", 152, b"\x1d\x00\x00\x00\x3f", "bn_param {\n  momentum: 0.5\n}"),
        ("BN", 45, b"\x18\x01", "bn_param {\n  bn_mode: INFERENCE\n}"),
        ("MultiBoxLoss", 201, b"\x20\x15", "multibox_loss_param {\n  num_classes: 21\n}"),
        ("CInnerProduct", 151, b"\x48\x01", "cinner_product_param {\n  is_pruning: true\n}"),
        ("CConvolution", 140, b"\x25\x00\x00\x00\x40", "cconvolution_param {\n  c_rate: 2.0\n}"),
    ],
)
def test_a_known_number_gets_its_name_by_the_layer_s_type(
    tmp_path: Path, layer_type: str, number: int, value: bytes, text: str
) -> None:
    layer = with_names(binary(layer_type, number, value))
    assert texts(layer) == [text]
    write_prototxt(tmp_path / "net.prototxt", NetParameter(layer=[layer]))
    assert read_net(tmp_path / "net.prototxt").layer[0] == layer


@pytest.mark.parametrize(
    ("layer_type", "number", "value"),
    [
        ("Own", 202, b"\x08\x00"),  # another fork's 202
        ("Permute", 202, b"\x10\x01"),  # a field that its Permute does not have
        ("Permute", 202, b"\x0a\xff"),  # no message
        ("Permute", 1202, b"\x08\x00"),
        ("ROIPooling", 202, b"\x08\x00"),
    ],
)
def test_an_unknown_number_is_kept_and_refused_where_it_needs_a_name(
    tmp_path: Path, layer_type: str, number: int, value: bytes
) -> None:
    layer = binary(layer_type, number, value)
    assert with_names(layer) == layer
    assert [field.name for field in own_fields(layer)] == [str(number)]
    with pytest.raises(FormatError, match=rf"layer 'a' \({layer_type}\) has the field '{number}'"):
        write_prototxt(tmp_path / "net.prototxt", NetParameter(layer=[layer]))
    assert not (tmp_path / "net.prototxt").exists()


def test_fields_of_caffe_s_own_keep_their_names() -> None:
    layer = LayerParameter(name="a", type="Embed")
    layer.embed_param.num_output = 2
    layer.input_param.shape.add().dim.append(3)
    layer.parameter_param.shape.dim.append(3)
    assert with_names(layer) is layer


@pytest.mark.parametrize("path", sorted((share_root() / "prototxt").glob("*/*.prototxt")), ids=str)
def test_no_field_of_a_stock_net_is_taken_for_a_fork_s(path: Path) -> None:
    for layer in read_net(path).layer:
        assert with_names(layer) is layer


def test_fields_within_a_message_of_caffe_s_get_their_names_too() -> None:
    layer = LayerParameter(name="a", type="BatchNorm")
    layer.batch_norm_param.eps = 0.5
    layer.batch_norm_param.MergeFromString(b"\x2a\x05\x15\x00\x00\x80\x3f\x38\x01")
    layer.MergeFromString(b"\x88\x09\x02")  # NVIDIA's forward_type
    named = with_names(layer)
    assert named.batch_norm_param.eps == 0.5
    assert texts(named) == [
        "forward_type: FLOAT16",
        "scale_filler {\n  value: 1.0\n}",
        "scale_bias: true",
    ]
    assert fork_part(named.batch_norm_param).scale_filler.value == 1


def test_what_a_prototxt_says_is_read_as_the_fork_reads_it() -> None:
    layer = parse_text(
        "layer { type: 'Permute' permute_param { order: [0, 2] } own: 1 permute_param { no: 1 } }",
        NetParameter(),
    ).layer[0]
    assert list(fork_part(layer).permute_param.order) == [0, 2]
    assert [is_known(layer, field) for field in own_fields(layer)] == [True, False, False]
    assert fork_part(layer.relu_param) is None
    carry(layer.pooling_param, "ceil_mode: false")
    assert not fork_part(layer.pooling_param).ceil_mode
    assert fork_part(LayerParameter().pooling_param).ceil_mode


def test_named_fields_mean_the_same() -> None:
    value = b"\x0d\x00\x00\xf0\x41\x1d\x00\x00\x00\x40\x1d\x00\x00\x40\x40"
    box = fork_part(with_names(binary("PriorBox", 203, value))).prior_box_param
    assert (list(box.min_size), list(box.aspect_ratio)) == ([30], [2, 3])
    again = parse_text(
        to_text(NetParameter(layer=[with_names(binary("PriorBox", 203, value))])), NetParameter()
    )
    assert fork_part(again.layer[0]).prior_box_param == box


def test_the_compiled_schema_is_that_of_the_file(tmp_path: Path) -> None:
    out = tmp_path / "forks.fds"
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", f"--descriptor_set_out={out}"]
    subprocess.run([*command, "forks.proto"], cwd=FORMATS, check=True)
    made = FileDescriptorSet.FromString(out.read_bytes())
    assert made == FileDescriptorSet.FromString((FORMATS / "forks.fds").read_bytes())


def test_each_message_that_forks_add_to_is_one_of_caffe_s_or_stands_in_one() -> None:
    (file,) = FileDescriptorSet.FromString((FORMATS / "forks.fds").read_bytes()).file
    used = {
        field.type_name.rpartition(".")[2] for kind in file.message_type for field in kind.field
    }
    stock = LayerParameter.DESCRIPTOR.file.message_types_by_name
    assert {kind.name for kind in file.message_type} <= used | set(stock)
    for kind in file.message_type:
        if kind.name in stock and kind.name != "FillerParameter":
            names = {field.name for field in kind.field}
            assert not names & set(stock[kind.name].fields_by_name)
    assert text_format.MessageToString(LayerParameter()) == ""
