import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats import wire
from pycaffe_prune.formats.caffe_pb2 import LayerParameter, NetParameter
from pycaffe_prune.formats.caffemodel import (
    Caffemodel,
    Layer,
    read_caffemodel,
    write_caffemodel,
)
from pycaffe_prune.formats.compressed.file import (
    MAGIC,
    compressed_size,
    open_compressed,
    read_compressed,
    write_compressed,
)
from pycaffe_prune.formats.files import sha256_of
from pycaffe_prune.formats.outline import outline_bytes

one_folder = settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def blobs(draw: st.DrawFn) -> np.ndarray:
    shape = draw(st.sampled_from([(), (0,), (9,), (12, 5), (2, 3, 4, 5)]))
    draws = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    bits = draws.integers(0, 2**32, shape, np.uint32)
    if draw(st.booleans()):
        bits = np.array([0, 0x80000000, 1, 0x7FC00001, 0x3F800000], np.uint32)[bits % 5]
    zeros = draws.random(shape) < draw(st.sampled_from([0, 0.9]))
    return np.where(zeros, np.uint32(0), bits).view(np.float32)


@st.composite
def layers(draw: st.DrawFn) -> Layer:
    param = LayerParameter(name=draw(st.text()), type=draw(st.sampled_from(["", "InnerProduct"])))
    param.top.extend(draw(st.lists(st.text(), max_size=2)))
    # A field that no Caffe knows: it stays with its layer.
    param.MergeFromString(draw(st.sampled_from([b"", b"\xc2\x3e\x03abc"])))
    return Layer(param, tuple(draw(st.lists(blobs(), max_size=3))))


models = st.builds(
    Caffemodel,
    st.lists(layers(), min_size=1, max_size=3).map(tuple),
    st.builds(NetParameter, name=st.text(), force_backward=st.booleans()),
)


@pytest.mark.usefixtures("no_fsync")
@one_folder
@given(model=models)
def test_what_is_written_is_read_back_and_each_byte_counted_once(
    tmp_path: Path, model: Caffemodel
) -> None:
    path = tmp_path / "a.cpz"
    write_compressed(path, model)
    found = read_compressed(path)
    assert outline_bytes(found) == outline_bytes(model)
    assert [blob.tobytes() for _, blob in found.blobs()] == [
        blob.tobytes() for _, blob in model.blobs()
    ]
    write_caffemodel(tmp_path / "before", model)
    write_caffemodel(tmp_path / "after", found)
    assert (tmp_path / "after").read_bytes() == (tmp_path / "before").read_bytes()
    opened = open_compressed(path)
    sizes = [opened.head.total(), *(section.sizes.total() for section in opened.sections)]
    assert sum(sizes) == path.stat().st_size == compressed_size(model)
    assert [section.key for section in opened.sections] == [key for key, _ in model.blobs()]


def test_files_of_the_zoo_come_back_byte_for_byte(data_dir: Path, tmp_path: Path) -> None:
    files = sorted(data_dir.glob("zoo/**/*.caffemodel"))
    assert files
    for path in files:
        write_compressed(tmp_path / "a.cpz", read_caffemodel(path))
        write_caffemodel(tmp_path / "again", read_compressed(tmp_path / "a.cpz"))
        assert sha256_of(tmp_path / "again") == sha256_of(path), path
        times = path.stat().st_size / (tmp_path / "a.cpz").stat().st_size
        assert times > (9 if "squeezenet" in path.name else 1.15)


def small_model() -> Caffemodel:
    """A layer with a sparse shared blob and a bias, and one with weights of all values."""
    draws = np.random.default_rng(2)
    weights = np.rint(draws.standard_normal((20, 30))).astype(np.float32)
    weights[:, 12:] = 0
    ip1 = Layer(
        LayerParameter(name="ip1", type="InnerProduct"), (weights, np.arange(20, dtype=np.float32))
    )
    floats = draws.standard_normal((12, 11)).astype(np.float32)
    ip2 = Layer(LayerParameter(name="ip2", type="InnerProduct"), (floats,))
    return Caffemodel((Layer(LayerParameter(name="data")), ip1, ip2), NetParameter(name="small"))


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("small") / "a.cpz"
    write_compressed(path, small_model())
    return path.read_bytes()


def sections(content: bytes) -> list[bytes]:
    """What is in each section, without length and checksum."""
    found, at = [], len(MAGIC) + 1
    while at < len(content):
        size, at = wire.read_varint(memoryview(content), at, len(content))
        found.append(content[at + 4 : at + 4 + size])
        at += 4 + size
    return found


def file_of(parts: list[bytes]) -> bytes:
    """A file of the sections, with lengths and checksums that are right."""
    return (
        MAGIC
        + b"\1"
        + b"".join(
            wire.encode_varint(len(part)) + struct.pack("<I", zlib.crc32(part)) + part
            for part in parts
        )
    )


def refused(path: Path, content: bytes) -> str:
    """The sentence, without the file's name."""
    path.write_bytes(content)
    with pytest.raises(
        FormatError, match=f"^{path}: .*; a compressed model .* is needed$"
    ) as found:
        read_compressed(path)
    assert "\n" not in str(found.value)
    return str(found.value).removeprefix(f"{path}: ")


def test_every_file_that_is_cut_short_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.cpz"
    path.write_bytes(content)
    assert file_of(sections(content)) == content
    for length in range(1, len(content), 23):
        refused(path, content[:length])
    assert refused(path, content + b"\0").startswith("has 1 bytes after its end")


def test_every_byte_that_changes_is_seen(tmp_path: Path, content: bytes) -> None:
    pick = random.Random(3)  # noqa: S311 -- no secret
    for at in range(0, len(content), 17):
        harmed = bytearray(content)
        harmed[at] ^= 1 << pick.randrange(8)
        refused(tmp_path / "a.cpz", bytes(harmed))


def test_damage_with_right_checksums_is_read_or_refused(tmp_path: Path, content: bytes) -> None:
    pick = random.Random(4)  # noqa: S311 -- no secret
    path = tmp_path / "a.cpz"
    count = 0
    for _ in range(150):
        parts = [bytearray(part) for part in sections(content)]
        part = pick.choice(parts[1:])
        for at in pick.choices(range(min(len(part), 60)), k=pick.randint(1, 3)):
            part[at] = pick.randrange(256)
        path.write_bytes(file_of([bytes(part) for part in parts]))
        try:
            found = read_compressed(path)
        except FormatError:
            count += 1
        else:
            assert [blob.shape for _, blob in found.blobs()] == [(20, 30), (20,), (12, 11)]
    assert 50 < count < 150


def outline_section(model: Caffemodel) -> bytes:
    outline = outline_bytes(model)
    packer = zlib.compressobj(wbits=-15)
    return wire.encode_varint(len(outline)) + packer.compress(outline) + packer.flush()


def shaped(*shape: int) -> bytes:
    """Definitions of one layer with a blob of that shape."""
    layer = Layer(LayerParameter(name="ip1"), (np.lib.stride_tricks.as_strided(
        np.zeros(1, np.float32), shape, (0,) * len(shape)
    ),))  # fmt: skip
    return outline_section(Caffemodel((layer,)))


ZEROS = b"\1\0\0\0\0"
"""A blob of zeros, of any shape: no value, no token."""


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda _: [b""], "is truncated inside a number"),
        (lambda parts: [b"\5" + parts[0][1:], *parts[1:]], "has definitions that are not of"),
        (lambda parts: [b"\xff\xff\xff\x7f" + parts[0][1:]], "has definitions of an impossible"),
        (lambda parts: parts[:-1], "layer 'ip2', blob 0: is truncated inside a number"),
        (lambda parts: [*parts, b""], "has 5 bytes after its end"),
        (lambda parts: [*parts[:-1], parts[-1] + b"\0"], "layer 'ip2', blob 0: has 1 bytes after"),
        (lambda parts: [parts[0], b"\x09", *parts[2:]], "layer 'ip1', blob 0: has the encoding 9"),
        (lambda parts: [parts[0], b"\0\x09", *parts[2:]], "blob 0: has values in the coding 9"),
        (lambda parts: [*parts[:2], parts[1], parts[3]], "layer 'ip1', blob 1: says that"),
        (lambda _: [shaped(2**31 - 1), ZEROS], "layer 'ip1', blob 0: unpacks to more than 768 MiB"),
        (lambda _: [shaped(2**16, 2**16), ZEROS], "which is too large for Caffe"),
        (lambda _: [shaped(2, 3), ZEROS + b"\0"], "layer 'ip1', blob 0: has 1 bytes after"),
    ],
)
def test_sections_that_do_not_fit_are_refused_with_the_layer(
    tmp_path: Path, content: bytes, change: Callable[[list[bytes]], list[bytes]], sentence: str
) -> None:
    assert sentence in refused(tmp_path / "a.cpz", file_of(change(sections(content))))


def test_a_million_zeros_take_five_bytes_and_no_time(tmp_path: Path) -> None:
    path = tmp_path / "a.cpz"
    path.write_bytes(file_of([shaped(1000, 1000), ZEROS]))
    (blob,) = read_compressed(path).layers[0].blobs
    assert not blob.any()
    assert blob.shape == (1000, 1000)


def test_a_later_version_and_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    later = MAGIC + b"\2" + content[len(MAGIC) + 1 :]
    assert refused(tmp_path / "a", later).startswith(
        "is of version 2, and this caffe-prune reads 1"
    )
    for other in (b"text", MAGIC[:-1], b"PK\3\4"):
        refused(tmp_path / "a", other)


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    no_number = Layer(LayerParameter(name="ip1"), (np.array([object()]),))
    with pytest.raises((TypeError, ValueError)):
        write_compressed(tmp_path / "a.cpz", Caffemodel((no_number,)))
    assert list(tmp_path.iterdir()) == []
