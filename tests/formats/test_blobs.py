import io
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats import wire
from pycaffe_prune.formats.blobs import (
    Blob,
    mapped_file,
    naming_file,
    read_blob,
    squeeze_legacy,
    write_blob,
    written_size,
)
from pycaffe_prune.formats.caffe_pb2 import BlobProto

blobs = hnp.arrays(np.float32, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))


def read(encoded: bytes) -> tuple[Blob, bool]:
    return read_blob(memoryview(encoded), 0, len(encoded))


@given(blobs, st.integers(1, 200))
def test_what_is_written_is_read_back_and_protobuf_agrees(blob: Blob, number: int) -> None:
    file = io.BytesIO()
    write_blob(file, blob, number)
    encoded = file.getvalue()
    assert len(encoded) == written_size(blob, number)
    field = wire.read_field(memoryview(encoded), 0, len(encoded))
    assert (field.number, field.wire_type, field.end) == (number, wire.LENGTH, len(encoded))

    again, legacy = read_blob(memoryview(encoded), field.start, field.end)
    assert not legacy
    assert again.shape == blob.shape
    assert again.dtype == np.float32
    assert again.tobytes() == blob.tobytes()

    proto = BlobProto(data=blob.reshape(-1).tolist())
    proto.shape.dim.extend(blob.shape)
    assert encoded[field.start :] == proto.SerializeToString()


@given(hnp.arrays(np.float32, (3, 4, 5)))
def test_a_view_that_is_not_contiguous_is_written_in_its_own_order(blob: Blob) -> None:
    file, plain = io.BytesIO(), io.BytesIO()
    view = blob.transpose(2, 0, 1)[::2]
    write_blob(file, view, 7)
    write_blob(plain, view.copy(), 7)
    assert file.getvalue() == plain.getvalue()


def chunk(number: int, values: list[float], *, packed: bool) -> bytes:
    code, wire_type = ("f", wire.FIXED32) if number < 7 else ("d", wire.FIXED64)
    if not packed:
        tag = wire.encode_varint(number << 3 | wire_type)
        return b"".join(tag + struct.pack(f"<{code}", value) for value in values)
    payload = struct.pack(f"<{len(values)}{code}", *values)
    tag = wire.encode_varint(number << 3 | wire.LENGTH)
    return tag + wire.encode_varint(len(payload)) + payload


floats = st.lists(st.floats(width=32), max_size=100)
chunks = st.builds(
    lambda number, values, packed: chunk(number, values, packed=packed),
    st.sampled_from([5, 6, 8, 9]),
    floats,
    st.booleans(),
)
unknown = st.sampled_from([b"\x50\x01", b"\x52\x03abc", b"\x55abcd", b""])


@given(st.lists(st.tuples(chunks, unknown), max_size=8), st.booleans(), st.data())
def test_packed_and_unpacked_chunks_give_what_protobuf_reads(
    parts: list[tuple[bytes, bytes]], legacy: bool, data: st.DataObject
) -> None:
    encoded = [part for pair in parts for part in pair]
    values = BlobProto.FromString(b"".join(encoded))
    expected = np.array(values.double_data or values.data, np.float32)
    if legacy:
        shape = BlobProto(num=1, channels=1, height=1, width=len(expected))
    else:
        shape = BlobProto()
        shape.shape.dim.append(len(expected))
    at = data.draw(st.integers(0, len(encoded)))
    encoded.insert(at, shape.SerializeToString())

    blob, is_legacy = read(b"".join(encoded))
    assert is_legacy == legacy
    assert blob.shape == ((1, 1, 1, len(expected)) if legacy else (len(expected),))
    np.testing.assert_array_equal(blob.reshape(-1), expected)


def test_doubles_that_float32_cannot_hold_become_infinite() -> None:
    proto = BlobProto(double_data=[1e300, -1e300, 1e-300, 0.1])
    proto.shape.dim.append(4)
    blob, _ = read(proto.SerializeToString())
    np.testing.assert_array_equal(blob, np.float32([np.inf, -np.inf, 0, 0.1]))


def test_legacy_extents_count_before_the_shape_as_in_caffe() -> None:
    proto = BlobProto(num=1, channels=2, height=3, width=1, data=range(6))
    proto.shape.dim.append(6)
    blob, legacy = read(proto.SerializeToString())
    assert legacy
    assert blob.shape == (1, 2, 3, 1)


@pytest.mark.parametrize(
    ("dim", "count", "sentence"),
    [
        ((2, 3), 5, r"has shape 2x3 but holds 5 values"),
        ((), 0, r"has shape \(\) but holds 0 values"),
        ((), 2, r"has shape \(\) but holds 2 values"),
        ((-2, -3), 6, r"has shape -2x-3 but holds 6 values"),
        ((-1,), 4, r"has shape -1 but holds 4 values"),
        ((2**40, 2**40), 1, rf"has shape {2**40}x{2**40} but holds 1 values"),
        ((0, 2**62), 0, r"too large for Caffe"),
        ((0, 2**31 - 1, 2**31 - 1, 2**31 - 1), 0, r"too large for Caffe"),
        ((1,) * 33, 1, r"has 33 axes; Caffe's blobs have at most 32"),
        ((2**62,) * 200_000, 1, r"has 200000 axes"),
    ],
)
def test_a_shape_that_its_values_do_not_fill_is_refused(
    dim: tuple[int, ...], count: int, sentence: str
) -> None:
    proto = BlobProto(data=[1.0] * count)
    proto.shape.dim.extend(dim)
    with pytest.raises(FormatError, match=sentence):
        read(proto.SerializeToString())


@given(st.tuples(*[st.integers(-3, 3)] * 4), st.integers(0, 30))
def test_legacy_extents_are_held_to_the_same_count(
    extents: tuple[int, int, int, int], count: int
) -> None:
    num, channels, height, width = extents
    proto = BlobProto(num=num, channels=channels, height=height, width=width, data=[0.0] * count)
    if min(extents) >= 0 and num * channels * height * width == count:
        assert read(proto.SerializeToString())[0].shape == extents
    else:
        with pytest.raises(FormatError, match=f"but holds {count} values"):
            read(proto.SerializeToString())


def test_a_blob_of_32_axes_is_read() -> None:
    proto = BlobProto(data=[1.5])
    proto.shape.dim.extend([1] * 32)
    assert read(proto.SerializeToString())[0].shape == (1,) * 32


@pytest.mark.parametrize(
    ("damaged", "sentence"),
    [
        (b"\x2a\x05abcde", "broken array of floats at byte 2"),
        (b"\x28\x01", "wrong wire type at byte 0"),
        (b"\x41abcdefgh\x2c", "unknown to Caffe at byte 9"),
    ],
)
def test_damaged_arrays_are_told_with_their_place(damaged: bytes, sentence: str) -> None:
    with pytest.raises(FormatError, match=sentence):
        read(damaged)


@pytest.mark.parametrize("length", [2**20, 2**31, 2**40, 2**63, 2**69])
def test_a_length_that_lies_allocates_nothing(length: int) -> None:
    encoded = memoryview(b"\x2a" + wire.encode_varint(length) + b"\0" * 16)
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match="truncated or damaged"):
            read_blob(encoded, 0, len(encoded))
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("layer_type", "index", "legacy", "squeezed"),
    [
        ("InnerProduct", 0, (1, 1, 5, 7), (5, 7)),
        ("InnerProduct", 0, (1, 1, 1, 7), (1, 7)),
        ("InnerProduct", 0, (1, 1, 5, 1), (5, 1)),
        ("InnerProduct", 0, (1, 1, 1, 1), (1, 1)),
        ("InnerProduct", 1, (1, 1, 1, 5), (5,)),
        ("InnerProduct", 1, (1, 1, 1, 1), (1,)),
        ("InnerProduct", 0, (5, 7, 1, 1), (5, 7, 1, 1)),
        ("Convolution", 0, (6, 3, 5, 5), (6, 3, 5, 5)),
        ("Convolution", 0, (1, 1, 1, 1), (1, 1, 1, 1)),
        ("Convolution", 1, (1, 1, 1, 6), (6,)),
        ("Deconvolution", 0, (1, 3, 5, 5), (1, 3, 5, 5)),
        ("Deconvolution", 1, (1, 1, 1, 1), (1,)),
        ("Data", 0, (1, 1, 1, 6), (1, 1, 1, 6)),
    ],
)
def test_the_layer_type_says_how_many_legacy_dimensions_stay(
    layer_type: str, index: int, legacy: tuple[int, ...], squeezed: tuple[int, ...]
) -> None:
    blob = np.arange(np.prod(legacy), dtype=np.float32).reshape(legacy)
    found = squeeze_legacy(blob, layer_type, index)
    assert found.shape == squeezed
    assert np.array_equal(found.reshape(-1), blob.reshape(-1))


def test_a_file_that_cannot_be_mapped_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for path, reason in (
        (tmp_path / "empty", "is empty"),
        (tmp_path, "is a folder"),
        (tmp_path / "none", "no such file"),
        (tmp_path / ("long" * 100), "name too long"),
    ):
        with pytest.raises(FormatError, match=reason) as caught:
            mapped_file(path, "a blob")
        assert str(path) in str(caught.value)


def test_a_sentence_gets_the_files_name_and_what_is_needed() -> None:
    with (
        pytest.raises(FormatError, match=r"^a\.x: is broken; a model is needed$"),
        naming_file(Path("a.x"), "a model"),
    ):
        raise FormatError("is broken")
    with (
        pytest.raises(FormatError, match=r"^a\.x: cannot be decoded \(.*\); a model is needed$"),
        naming_file(Path("a.x"), "a model"),
    ):
        BlobProto.FromString(b"\x0a")
