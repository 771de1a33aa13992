import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats import wire
from pycaffe_prune.formats.caffe_pb2 import BlobShape, LayerParameter


@given(st.integers(0, 2**63 - 1))
def test_a_varint_is_written_as_protobuf_writes_it(value: int) -> None:
    encoded = wire.encode_varint(value)
    packed = BlobShape(dim=[value]).SerializeToString()
    assert packed == b"\x0a" + bytes([len(encoded)]) + encoded


@st.composite
def layers(draw: st.DrawFn) -> LayerParameter:
    layer = LayerParameter(
        name=draw(st.text()), bottom=draw(st.lists(st.text(), max_size=3)), phase=draw(st.just(1))
    )
    layer.loss_weight.extend(draw(st.lists(st.floats(width=32), max_size=3)))
    layer.dropout_param.dropout_ratio = draw(st.floats(0, 1, width=32))
    layer.convolution_param.num_output = draw(st.integers(0, 2**32 - 1))
    layer.blobs.add(double_data=draw(st.lists(st.floats(), max_size=3)))
    return layer


@given(layers())
def test_the_fields_of_a_message_follow_each_other_without_gap(layer: LayerParameter) -> None:
    encoded = layer.SerializeToString()
    found = list(wire.fields(memoryview(encoded), 0, len(encoded)))
    assert b"".join(encoded[field.tag : field.end] for field in found) == encoded
    assert all(field.tag < field.start <= field.end for field in found)
    again = LayerParameter()
    for field in found:
        again.MergeFromString(encoded[field.tag : field.end])
    assert again.SerializeToString() == encoded
    numbers = {known.number for known, _ in layer.ListFields()}
    assert {field.number for field in found} == numbers


@given(layers(), st.data())
def test_a_message_cut_inside_a_field_is_refused(
    layer: LayerParameter, data: st.DataObject
) -> None:
    encoded = layer.SerializeToString()
    ends = {field.end for field in wire.fields(memoryview(encoded), 0, len(encoded))} | {0}
    cut = data.draw(st.integers(0, len(encoded)).filter(lambda at: at not in ends))
    with pytest.raises(FormatError, match="truncated"):
        list(wire.fields(memoryview(encoded), 0, cut))


@pytest.mark.parametrize(
    ("damaged", "sentence"),
    [
        (b"\x00\x01", "no valid field number at byte 0"),
        (b"\x08\x01\x0b", "wire type unknown to Caffe at byte 2"),
        (b"\xff" * 11, "number of more than 10 bytes"),
        (b"\x0a\x05abc", "field at byte 0 should end at byte 7, but its message ends at byte 5"),
    ],
)
def test_damage_is_told_with_its_place(damaged: bytes, sentence: str) -> None:
    with pytest.raises(FormatError, match=sentence):
        list(wire.fields(memoryview(damaged), 0, len(damaged)))


@given(
    before=st.binary(max_size=5),
    values=st.lists(st.floats(width=32), min_size=1, max_size=700),
    after=st.binary(max_size=12),
    wide_tag=st.booleans(),
)
def test_a_run_of_unpacked_values_is_read_to_its_last(
    before: bytes, values: list[float], after: bytes, wide_tag: bool
) -> None:
    tag = b"\xad\x00" if wide_tag else b"\x2d"
    if after[: len(tag)] == tag:
        after = b"\x08" + after
    floats = np.array(values, "<f4")
    run = b"".join(tag + value.tobytes() for value in floats)
    buffer = memoryview(before + run + after)
    first = wire.read_field(buffer, len(before), len(buffer))
    found, end = wire.fixed_run(buffer, first, len(buffer))
    assert found.tobytes() == floats.tobytes()
    assert end == len(before) + len(run)


def looked_at(buffer: bytes, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many bytes NumPy is handed while all runs of ``buffer`` are read."""
    handed = 0
    frombuffer = np.frombuffer

    def counting(part: bytes | memoryview, dtype: type[np.uint8]) -> NDArray[np.uint8]:
        nonlocal handed
        handed += len(part)
        return frombuffer(part, dtype)

    monkeypatch.setattr(np, "frombuffer", counting)
    view = memoryview(buffer)
    position = 0
    while position < len(view):
        field = wire.read_field(view, position, len(view))
        position = field.end
        if field.wire_type == wire.FIXED32:
            _, position = wire.fixed_run(view, field, len(view))
    monkeypatch.undo()
    return handed


@pytest.mark.parametrize("run", [1, 63, 64, 65, 400])
def test_runs_between_other_fields_take_work_in_proportion_to_the_bytes(
    run: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit = b"\x2d\0\0\x80\x3f" * run + b"\x08\x01"
    repeats = max(4000 // len(unit), 20)
    once = looked_at(unit * repeats, monkeypatch)
    assert once > 5 * run * repeats
    assert looked_at(unit * repeats * 8, monkeypatch) < 9 * once  # were it quadratic: 64
