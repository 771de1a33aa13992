from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycaffe_prune.convert.definitions import model_net
from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats import wire
from pycaffe_prune.formats.caffe_pb2 import (
    LayerParameter,
    NetParameter,
    PoolingParameter,
    V0LayerParameter,
    V1LayerParameter,
)
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer, read_caffemodel, write_caffemodel
from pycaffe_prune.formats.carried import carried_fields, own_fields
from pycaffe_prune.formats.clashes import set_apart
from pycaffe_prune.formats.prototxt import write_prototxt
from pycaffe_prune.formats.wire_text import message_bytes, message_of


def field(number: int, value: bytes) -> bytes:
    tag = wire.encode_varint(number << 3 | wire.LENGTH)
    return tag + wire.encode_varint(len(value)) + value


def layer_bytes(layer_type: str, *fields: bytes) -> bytes:
    return LayerParameter(name="a", type=layer_type).SerializeToString() + b"".join(fields)


def model_file(path: Path, *layers: LayerParameter) -> Path:
    write_caffemodel(path, Caffemodel(tuple(map(Layer, layers)), NetParameter()))
    return path


@pytest.mark.parametrize(
    ("layer_type", "number", "value"),
    [
        ("Upsample", 137, b"\x08\x02"),  # SegNet's; all of it would be an EmbedParameter
        ("DenseImageData", 138, b"\x0a\x01/"),
        ("DenseImageData", 138, b"\xff"),  # no message at all
        ("MatWrite", 145, b"\x0a\x03a/b\x12\x01c"),
        ("Interp", 143, b"\x18\x08"),
        ("ReLU", 140, b"\x7a\x01x"),  # of another type of Caffe's, which has no such field in it
        ("CConvolution", 140, b"\x25\x00\x00\x00\x40"),
    ],
)
def test_a_number_of_caffe_s_is_no_field_of_caffe_s_in_a_fork_s_layer(
    tmp_path: Path, layer_type: str, number: int, value: bytes
) -> None:
    data = layer_bytes(layer_type, field(number, value))
    layer = message_of(data, LayerParameter)
    assert [known.name for known, _ in layer.ListFields()] == ["name", "type"]
    assert [(carried.name, carried.text) for carried in own_fields(layer)] == [(str(number), "")]
    assert message_bytes(layer) == data
    again = read_caffemodel(model_file(tmp_path / "a.caffemodel", layer))
    assert again.layers[0].param == layer


@pytest.mark.parametrize(
    ("layer_type", "number", "value"),
    [
        ("Embed", 137, b"\x08\x02\x7a\x01x"),  # a fork may add to it
        ("BatchNorm", 142, b"\x20\x01"),  # a scale_param that the layer does not read
        ("Silence", 140, b""),
        ("DepthwiseConvolution", 106, b"\x08\x02"),  # as old as the forks
    ],
)
def test_a_field_of_caffe_s_own_stays(layer_type: str, number: int, value: bytes) -> None:
    data = layer_bytes(layer_type, field(number, value))
    assert set_apart(data) == data
    name = LayerParameter.DESCRIPTOR.fields_by_number[number].name
    assert message_of(data, LayerParameter).HasField(name)


def test_a_number_that_only_we_write_is_refused() -> None:
    with pytest.raises(FormatError, match="536870910, which no Caffe writes"):
        message_of(layer_bytes("ReLU", field((1 << 29) - 2, b"\x08\x01")), LayerParameter)


def pooling(**settings: PoolingParameter.RoundMode) -> LayerParameter:
    layer = LayerParameter(name="pool", type="Pooling", bottom=["data"], top=["pool"])
    layer.pooling_param.MergeFrom(PoolingParameter(kernel_size=2, **settings))
    return layer


DATA = LayerParameter(name="data", type="Input", top=["data"])
PERMUTE = LayerParameter(name="perm", type="Permute", bottom=["pool"], top=["perm"])


@pytest.mark.parametrize(
    ("mode", "others", "stays"),
    [
        (PoolingParameter.FLOOR, (), True),
        (PoolingParameter.CEIL, (), False),  # the bytes of `ceil_mode: false`
        (PoolingParameter.FLOOR, (PERMUTE,), False),  # or `avg_include_pad: true`
    ],
)
def test_round_mode_is_not_taken_for_what_it_may_not_be(
    tmp_path: Path,
    mode: PoolingParameter.RoundMode,
    others: tuple[LayerParameter, ...],
    stays: bool,
) -> None:
    path = model_file(tmp_path / "p.caffemodel", DATA, pooling(round_mode=mode), *others)
    model = read_caffemodel(path)
    settings = model.layer("pool").param.pooling_param
    assert settings.HasField("round_mode") is stays
    write_caffemodel(tmp_path / "again.caffemodel", model)
    assert (tmp_path / "again.caffemodel").read_bytes() == path.read_bytes()
    if stays:
        assert not carried_fields(settings)
        return
    assert [carried.name for carried in carried_fields(settings)] == ["13"]
    with pytest.raises(FormatError, match=r"layer 'pool' .* has the field 'pooling_param\.13'"):
        write_prototxt(tmp_path / "net.prototxt", model_net(model))


def test_a_pooling_without_it_is_caffe_s_in_a_fork_s_file_too(tmp_path: Path) -> None:
    model = read_caffemodel(model_file(tmp_path / "p.caffemodel", DATA, pooling(), PERMUTE))
    assert model.layer("pool").param == pooling()


KNOWN_NUMBERS = {
    number
    for kind in (LayerParameter, V1LayerParameter, V0LayerParameter)
    for number in kind.DESCRIPTOR.fields_by_number
}
UNKNOWN_NUMBERS = st.integers(43, 1 << 28).filter(lambda number: number not in KNOWN_NUMBERS)


@pytest.mark.usefixtures("no_fsync")
@given(number=UNKNOWN_NUMBERS, value=st.binary(max_size=6), v0=st.booleans())
def test_an_old_layer_s_unknown_fields_are_kept_through_writing_and_reading(
    tmp_path_factory: pytest.TempPathFactory, number: int, value: bytes, v0: bool
) -> None:
    folder = tmp_path_factory.getbasetemp()
    unknown = field(number, value)
    blob = field(5, np.ones(1, np.float32).tobytes()) + field(7, field(1, b"\x01"))
    if v0:
        inner = field(1, b"ip") + field(2, b"innerproduct") + field(50, blob) + unknown
        old = field(1, inner)
    else:
        old = field(4, b"ip") + b"\x28\x0e" + field(6, blob) + unknown
    (folder / "old.caffemodel").write_bytes(field(2, old) + field(1300, b"net"))
    model = read_caffemodel(folder / "old.caffemodel")
    write_caffemodel(folder / "new.caffemodel", model)
    again = read_caffemodel(folder / "new.caffemodel")
    for read in (model, again):
        assert str(number) in [carried.name for carried in own_fields(read.layers[0].param)]
        assert [carried.name for carried in own_fields(read.net)] == ["1300"]
        assert read.layers[0].blobs[0].tolist() == [1]
    assert unknown in (folder / "new.caffemodel").read_bytes()


def test_an_old_layer_s_number_that_is_another_field_today_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "old.caffemodel"
    path.write_bytes(field(2, field(4, b"ip") + b"\x28\x0e" + field(117, b"\x08\x01")))
    with pytest.raises(
        FormatError, match=r"layer 'ip': field 117, .* taken for 'inner_product_par"
    ):
        read_caffemodel(path)
