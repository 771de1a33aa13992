import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats import wire
from pycaffe_prune.formats.caffe_pb2 import (
    BlobProto,
    LayerParameter,
    NetParameter,
    V0LayerParameter,
    V1LayerParameter,
)
from pycaffe_prune.formats.caffemodel import (
    BlobKey,
    Caffemodel,
    Layer,
    caffemodel_size,
    read_caffemodel,
    read_diffs,
    write_caffemodel,
)
from pycaffe_prune.formats.carried import carry
from pycaffe_prune.formats.files import sha256_of
from pycaffe_prune.formats.named_model import named_blobs, named_model

# The folder is the same for all examples: each one writes its file anew.
one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])

blobs = hnp.arrays(np.float32, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
names = st.text() | st.sampled_from(["inception_3a/1x1", "Faltung·ü", "层", "", "a/b/c"])


@st.composite
def layers(draw: st.DrawFn) -> Layer:
    param = LayerParameter(name=draw(names), type=draw(st.sampled_from(["", "InnerProduct", "X"])))
    param.top.extend(draw(st.lists(names, max_size=2)))
    if draw(st.booleans()):
        param.inner_product_param.num_output = draw(st.integers(0, 2**32 - 1))
        param.propagate_down.extend(draw(st.lists(st.booleans(), max_size=2)))
    return Layer(param, tuple(draw(st.lists(blobs, max_size=3))))


models = st.builds(
    Caffemodel,
    st.lists(layers(), min_size=1, max_size=4).map(tuple),
    st.builds(NetParameter, name=names, force_backward=st.booleans()),
)


def require_equal(found: Caffemodel, expected: Caffemodel) -> None:
    assert found.net == expected.net
    assert [layer.param for layer in found.layers] == [layer.param for layer in expected.layers]
    for ours, theirs in zip(found.layers, expected.layers, strict=True):
        assert [blob.shape for blob in ours.blobs] == [blob.shape for blob in theirs.blobs]
        assert [blob.tobytes() for blob in ours.blobs] == [blob.tobytes() for blob in theirs.blobs]
        assert all(blob.dtype == np.float32 for blob in ours.blobs)


def small_model() -> Caffemodel:
    random_ = np.random.default_rng(3)
    fc1 = LayerParameter(name="fc1", type="InnerProduct", bottom=["data"], top=["fc1"])
    fc1.inner_product_param.num_output = 3
    arrays = [random_.standard_normal(shape, dtype=np.float32) for shape in ((3, 2), (3,))]
    return Caffemodel(
        (Layer(LayerParameter(name="data", type="Input")), Layer(fc1, tuple(arrays))),
        NetParameter(name="small"),
    )


@pytest.fixture
def small_file(tmp_path: Path) -> Path:
    write_caffemodel(tmp_path / "small.caffemodel", small_model())
    return tmp_path / "small.caffemodel"


@pytest.mark.usefixtures("no_fsync")
@one_folder
@given(model=models)
def test_what_is_written_is_read_back_and_protobuf_agrees(
    tmp_path: Path, model: Caffemodel
) -> None:
    path = tmp_path / "a.caffemodel"
    write_caffemodel(path, model)
    require_equal(read_caffemodel(path), model)

    proto = NetParameter()
    proto.CopyFrom(model.net)
    for layer in model.layers:
        added = proto.layer.add()
        added.CopyFrom(layer.param)
        for blob in layer.blobs:
            added.blobs.add(data=blob.reshape(-1).tolist()).shape.dim.extend(blob.shape)
    assert path.read_bytes() == proto.SerializeToString()


def test_gradients_lie_beside_the_blobs_and_are_read_apart(tmp_path: Path) -> None:
    path = tmp_path / "net.caffemodel"
    weight, bias = np.ones((2, 3), np.float32), np.zeros(2, np.float32)
    layer = Layer(LayerParameter(name="fc"), (weight, bias), (2 * weight, bias - 1))
    model = Caffemodel((Layer(LayerParameter(name="relu")), layer, Layer(LayerParameter(name="x"))))
    write_caffemodel(path, model)
    assert path.stat().st_size == caffemodel_size(model)
    found = NetParameter.FromString(path.read_bytes()).layer[1].blobs
    assert [(*blob.data, *blob.diff) for blob in found] == [(1,) * 6 + (2,) * 6, (0, 0, -1, -1)]
    require_equal(read_caffemodel(path), model)
    diffs = read_diffs(path)
    assert {key: diff.tolist() for key, diff in diffs.items()} == {
        ("fc", 0): [2] * 6,
        ("fc", 1): [-1, -1],
    }
    double = BlobProto(double_data=[1], double_diff=[3])
    double.shape.dim.append(1)
    old = NetParameter()
    old.layers.add(name="v1").blobs.append(double)
    old.layers.add().layer.name = "v0"
    old.layers[1].layer.blobs.append(double)
    path.write_bytes(old.SerializeToString())
    assert read_diffs(path) == {("v1", 0): [3], ("v0", 0): [3]}


def test_files_of_the_zoo_come_out_byte_for_byte(data_dir: Path, tmp_path: Path) -> None:
    files = sorted(data_dir.glob("zoo/**/*.caffemodel"))
    assert files
    for path in files:
        model = read_caffemodel(path)
        assert sum(blob.size for _, blob in model.blobs()) > 100_000
        write_caffemodel(tmp_path / "again", model)
        assert sha256_of(tmp_path / "again") == sha256_of(path), path


@pytest.mark.parametrize("v1", [False, True])
def test_legacy_shapes_are_squeezed_by_layer_type(tmp_path: Path, v1: bool) -> None:
    net = NetParameter()
    types = V1LayerParameter if v1 else None
    added = net.layers if v1 else net.layer
    one_output = added.add(name="one", type=types.INNER_PRODUCT if types else "InnerProduct")
    one_input = added.add(name="thin", type=types.INNER_PRODUCT if types else "InnerProduct")
    conv = added.add(name="conv", type=types.CONVOLUTION if types else "Convolution")
    for layer, shapes in (
        (one_output, [(1, 1, 1, 6), (1, 1, 1, 1)]),
        (one_input, [(1, 1, 6, 1), (1, 1, 1, 6)]),
        (conv, [(1, 2, 1, 1), (1, 1, 1, 1)]),
    ):
        for num, channels, height, width in shapes:
            layer.blobs.add(
                num=num,
                channels=channels,
                height=height,
                width=width,
                data=range(num * channels * height * width),
            )
    (tmp_path / "old").write_bytes(net.SerializeToString())
    shapes_read = {key: blob.shape for key, blob in read_caffemodel(tmp_path / "old").blobs()}
    assert shapes_read == {
        ("one", 0): (1, 6),
        ("one", 1): (1,),
        ("thin", 0): (6, 1),
        ("thin", 1): (6,),
        ("conv", 0): (1, 2, 1, 1),
        ("conv", 1): (1,),
    }


def test_four_dimensions_of_today_stay(tmp_path: Path) -> None:
    weights = np.ones((1, 1, 2, 3), np.float32)
    layer = Layer(LayerParameter(name="ip", type="InnerProduct"), (weights,))
    write_caffemodel(tmp_path / "new", Caffemodel((layer,)))
    assert read_caffemodel(tmp_path / "new").layer("ip").blobs[0].shape == (1, 1, 2, 3)


def test_a_v1_file_comes_upgraded_with_its_blobs(tmp_path: Path) -> None:
    net = NetParameter(name="old")
    old = net.layers.add(name="ip", type=V1LayerParameter.INNER_PRODUCT, blobs_lr=[1, 2])
    old.blobs.add(double_data=[1, 2, 3, 0.1]).shape.dim.extend([2, 2])
    (tmp_path / "old").write_bytes(net.SerializeToString())

    model = read_caffemodel(tmp_path / "old")
    assert model.net == NetParameter(name="old")
    assert (model.layer("ip").type, model.layer("ip").name) == ("InnerProduct", "ip")
    assert [spec.lr_mult for spec in model.layer("ip").param.param] == [1, 2]
    np.testing.assert_array_equal(model.layer("ip").blobs[0], np.float32([[1, 2], [3, 0.1]]))

    write_caffemodel(tmp_path / "new", model)
    require_equal(read_caffemodel(tmp_path / "new"), model)


def test_changed_blobs_replace_and_the_others_are_shared() -> None:
    model = small_model()
    other = np.ones((3, 2), np.float32)
    changed = model.with_blobs({("fc1", 0): other})
    assert changed.layer("fc1").blobs[0] is other
    assert changed.layer("fc1").blobs[1] is model.layer("fc1").blobs[1]
    assert model.layer("fc1").blobs[0] is not other


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        (("fc2", 0), "has no layer 'fc2'; layers with blobs: fc1"),
        (("fc1", 2), "'fc1' has no blob 2"),
        (("fc1", -1), "'fc1' has no blob -1"),
    ],
)
def test_a_place_that_does_not_exist_is_refused(key: tuple[str, int], sentence: str) -> None:
    with pytest.raises(FormatError, match=sentence):
        small_model().with_blobs({key: np.zeros(1, np.float32)})


def test_blobs_are_read_only_views_of_the_file(small_file: Path) -> None:
    weights = read_caffemodel(small_file).layer("fc1").blobs[0]
    with pytest.raises(ValueError, match="read-only"):
        weights[0, 0] = 1
    at = small_file.read_bytes().index(weights.tobytes())
    with small_file.open("rb+") as file:
        file.seek(at)
        file.write(np.float32(42).tobytes())
    assert weights[0, 0] == 42


def test_a_file_can_be_written_over_while_it_is_read(small_file: Path) -> None:
    model = read_caffemodel(small_file)
    bias = model.layer("fc1").blobs[1]
    before = bias.copy()
    for _ in range(3):
        write_caffemodel(small_file, read_caffemodel(small_file).with_blobs({("fc1", 1): bias * 2}))
    assert np.array_equal(bias, before)
    require_equal(read_caffemodel(small_file), model.with_blobs({("fc1", 1): before * 2}))


def test_a_failed_write_keeps_the_file(small_file: Path) -> None:
    content = small_file.read_bytes()
    model = read_caffemodel(small_file)
    no_number = np.array([[object()]])
    with pytest.raises(TypeError):
        write_caffemodel(small_file, model.with_blobs({("fc1", 0): no_number}))
    assert small_file.read_bytes() == content
    assert [path.name for path in small_file.parent.iterdir()] == [small_file.name]


def test_blobs_by_name_and_place_make_a_model_of_names() -> None:
    blobs_by_key = {("b", 1): np.ones(2, np.float32), ("a", 0): np.zeros((3, 1), np.float32)}
    blobs_by_key["b", 0] = np.zeros(4, np.float32)
    model = named_model(blobs_by_key, "small")
    assert model.net == NetParameter(name="small")
    assert [layer.param for layer in model.layers] == [
        LayerParameter(name="b"),
        LayerParameter(name="a"),
    ]
    assert [key for key, _ in model.blobs()] == [("b", 0), ("b", 1), ("a", 0)]
    assert named_blobs(model).keys() == blobs_by_key.keys()
    assert all(named_blobs(model)[key] is blob for key, blob in blobs_by_key.items())


@pytest.mark.parametrize(
    ("blobs_by_key", "sentence"),
    [
        ({}, "holds no blob"),
        ({("a", 1): np.ones(1, np.float32)}, "layer 'a' has blob 1 but lacks blob 0"),
        ({("a", 0): np.ones((1,) * 33, np.float32)}, "layer 'a', blob 0: has 33 axes"),
        ({("\udcff", 0): np.ones(1, np.float32)}, "is not UTF-8 text"),
    ],
)
def test_blobs_that_make_no_model_are_refused(
    blobs_by_key: dict[BlobKey, np.ndarray], sentence: str
) -> None:
    with pytest.raises(FormatError, match=sentence):
        named_model(blobs_by_key)


def incomplete_layer() -> bytes:
    layer = LayerParameter(name="clip1")
    layer.clip_param.min = 1
    return NetParameter(layer=[layer]).SerializePartialToString()


def wrong_count() -> bytes:
    net = NetParameter()
    blob = net.layer.add(name="fc7", type="InnerProduct").blobs.add(data=[1] * 5)
    blob.shape.dim.extend([2, 3])
    return net.SerializeToString()


def v0_layer(layer_type: str) -> bytes:
    old = V1LayerParameter(layer=V0LayerParameter(name="conv", type=layer_type))
    old.layer.blobs.add(data=[1, 2, 3], num=2)
    return NetParameter(layers=[old]).SerializeToString()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (wrong_count(), "layer 'fc7', blob 0: has shape 2x3 but holds 5 values"),
        (NetParameter(name="n").SerializeToString(), "holds no layer"),
        (
            NetParameter(layer=[LayerParameter()], layers=[V1LayerParameter()]).SerializeToString(),
            "holds both 'layer' and 'layers'",
        ),
        (incomplete_layer(), "layer 'clip1': .*clip_param.max"),
        (v0_layer("fold"), "layer 'conv' has the type 'fold'"),
        (v0_layer("conv"), "layer 'conv', blob 0: has shape 2x0x0x0 but holds 3 values"),
        (b"\x12\x03\x22\x01a", "layer 'a' has no type that Caffe knows"),
        (b"\xa2\x06\x07\xfa\xff\xff\xff\x0f\x01a", "field of the number 536870911"),
        (b"layer { name: 'text' }", "at byte"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "at byte"),
    ],
)
def test_what_is_wrong_is_told_with_file_and_layer(
    tmp_path: Path, content: bytes, sentence: str
) -> None:
    path = tmp_path / "bad.caffemodel"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=f"{path}: .*{sentence}.*; a binary .caffemodel is need"):
        read_caffemodel(path)


@pytest.mark.parametrize(
    "content",
    [
        b"\xa2\x06\x04\x0a\x02\xff\xfe",
        b"\x0a\x02\xd6\xd0\xa2\x06\x05\x1a\x03\xff\xc3\xa9",
        b"\xa2\x06\x08\xda\x06\x05\x0a\x03\xe9/\xe9",
        b"\xa2\x06\x07\xa2\x4b\x04\xff\xfe\xfd\xfc",
    ],
    ids=["layer's name", "net's name and a bottom", "nested", "unknown field"],
)
def test_names_and_unknown_fields_of_any_bytes_are_written_as_they_were(
    tmp_path: Path, content: bytes
) -> None:
    path, again = tmp_path / "any.caffemodel", tmp_path / "again.caffemodel"
    path.write_bytes(content)
    write_caffemodel(again, read_caffemodel(path))
    assert again.read_bytes() == content


def test_what_a_layer_carries_as_text_is_not_written(tmp_path: Path) -> None:
    plain = LayerParameter(name="a\U0010ffe9", type="Pooling")
    plain.pooling_param.kernel_size = 3
    carrying = LayerParameter()
    carrying.CopyFrom(plain)
    carry(carrying, "fork { a: 1 }")
    carry(carrying.pooling_param, "ceil_mode: false")
    for name, param in (("plain", plain), ("carrying", carrying)):
        write_caffemodel(tmp_path / name, Caffemodel((Layer(param),), NetParameter()))
    assert (tmp_path / "plain").read_bytes() == (tmp_path / "carrying").read_bytes()
    assert b"\x0a\x02a\xe9" in (tmp_path / "plain").read_bytes()
    assert read_caffemodel(tmp_path / "plain").layers[0].param == plain


def fuzz_seed() -> bytes:
    """A small file of many forms: V2 and V1, legacy, doubles, unpacked floats."""
    net = NetParameter(name="seed", input=["a"], input_dim=[1, 2, 3, 4])
    old = net.layers.add(name="v1", type=V1LayerParameter.CONVOLUTION, param=["w"], blobs_lr=[1])
    old.blobs.add(num=1, channels=1, height=2, width=1, data=[1, 2])
    old.blobs.add(double_data=[1.5]).shape.dim.append(1)
    unpacked = b"\x2d" + np.float32(3).tobytes() + b"\x3a\x02\x0a\x00"
    layer = b"\x22\x03ip2\x28\x0e\x32" + bytes([len(unpacked)]) + unpacked
    return net.SerializeToString() + b"\x12" + bytes([len(layer)]) + layer


def v0_fuzz_seed() -> bytes:
    net = NetParameter(input=["a"], input_dim=[1, 2, 3, 4])
    net.layers.add(bottom=["a"], top=["p"]).layer.type = "padding"
    conv = V0LayerParameter(
        name="c", type="conv", blobs=[BlobProto(num=1, channels=1, height=1, width=1, data=[1])]
    )
    net.layers.add(bottom=["p"]).layer.CopyFrom(conv)
    return net.SerializeToString()


def read_or_refuse(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        model = read_caffemodel(path)
    except FormatError:
        return
    for (name, _), blob in model.blobs():
        assert isinstance(name, str)
        assert blob.dtype == np.float32
        assert blob.nbytes <= len(content)
    write_caffemodel(path.with_suffix(".again"), model)  # what is read can be written


@pytest.mark.usefixtures("no_fsync")
def test_a_file_cut_anywhere_is_read_or_refused(small_file: Path, tmp_path: Path) -> None:
    for content in (small_file.read_bytes(), fuzz_seed(), v0_fuzz_seed()):
        (tmp_path / "whole").write_bytes(content)
        read_caffemodel(tmp_path / "whole")
        for cut in range(len(content)):
            read_or_refuse(tmp_path / "cut", content[:cut])


@pytest.mark.usefixtures("no_fsync")
def test_flipped_bits_are_read_or_refused(small_file: Path, tmp_path: Path) -> None:
    pick = random.Random(11)  # noqa: S311 -- no secret
    for content in (small_file.read_bytes(), fuzz_seed(), v0_fuzz_seed()):
        single = [[bit] for bit in range(len(content) * 8)]
        several = [pick.choices(range(len(content) * 8), k=pick.randint(2, 9)) for _ in range(500)]
        for bits in single + several:
            damaged = bytearray(content)
            for bit in bits:
                damaged[bit // 8] ^= 1 << bit % 8
            read_or_refuse(tmp_path / "flipped", bytes(damaged))


@pytest.mark.usefixtures("no_fsync")
@one_folder
@given(content=st.binary(min_size=1, max_size=200))
def test_random_bytes_are_read_or_refused(tmp_path: Path, content: bytes) -> None:
    read_or_refuse(tmp_path / "random", content)
    header = b"\xa2\x06" + wire.encode_varint(len(content))
    read_or_refuse(tmp_path / "layer", header + content)
    inner = b"\x3a" + wire.encode_varint(len(content)) + content
    read_or_refuse(tmp_path / "blob", b"\xa2\x06" + wire.encode_varint(len(inner)) + inner)
