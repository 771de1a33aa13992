import random
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats import sparse
from pycaffe_prune.formats.caffe_pb2 import LayerParameter, NetParameter
from pycaffe_prune.formats.caffemodel import (
    Caffemodel,
    Layer,
    read_caffemodel,
    write_caffemodel,
)
from pycaffe_prune.formats.files import sha256_of
from pycaffe_prune.formats.npz import read_arrays, write_arrays
from pycaffe_prune.formats.sparse import (
    expected_bytes,
    from_gaps,
    read_sparse,
    to_gaps,
    write_sparse,
)

# The folder is the same for all examples: each one writes its file anew.
one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])

SPECIAL = np.array([0, 0x80000000, 1, 0x7FC00000, 0xFFC12345, 0x7F800001, 0x3F800000], np.uint32)


@st.composite
def sparse_blobs(draw: st.DrawFn) -> np.ndarray:
    """Blobs with long runs of zeros and any bits between them, many at the gap's limits."""
    runs = draw(st.lists(st.sampled_from([0, 1, 254, 255, 256, 257, 511, 512, 700]), max_size=6))
    bits = []
    for run in runs:
        bits += [0] * run + [draw(st.integers(0, 2**32 - 1))]
    bits += [0] * draw(st.sampled_from([0, 1, 255, 256, 600]))
    flat = np.array(bits, np.uint32).view(np.float32)
    return flat.reshape(
        draw(st.sampled_from([(-1,), (1, -1), (-1, 1, 1)])) if flat.size else (2, 0)
    )


dense_blobs = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
    elements=st.floats(width=32) | st.sampled_from([0.0, -0.0]),
)


@st.composite
def layers(draw: st.DrawFn) -> Layer:
    param = LayerParameter(name=draw(st.text()), type=draw(st.sampled_from(["", "InnerProduct"])))
    param.top.extend(draw(st.lists(st.text(), max_size=2)))
    param.propagate_down.extend(draw(st.lists(st.booleans(), max_size=2)))
    return Layer(param, tuple(draw(st.lists(sparse_blobs() | dense_blobs, max_size=3))))


models = st.builds(
    Caffemodel,
    st.lists(layers(), min_size=1, max_size=3).map(tuple),
    st.builds(NetParameter, name=st.text(), force_backward=st.booleans()),
)


def entries_by_hand(flat: np.ndarray) -> list[tuple[int, int]]:
    """Gap and bits of each entry, one value at a time."""
    entries = []
    gap = 0
    for bits in flat.view(np.uint32).tolist():
        if bits == 0 and gap < 255:
            gap += 1
        else:
            entries.append((gap, bits))
            gap = 0
    return entries


@given(blob=sparse_blobs())
def test_gaps_and_fillers_are_those_of_a_plain_loop(blob: np.ndarray) -> None:
    expected = entries_by_hand(blob.reshape(-1))
    found = to_gaps(blob)
    if len(expected) * 5 >= blob.nbytes:
        assert found is None
        return
    assert found is not None
    values, gaps = found
    assert (values.dtype, gaps.dtype) == (np.float32, np.uint8)
    assert list(zip(gaps.tolist(), values.view(np.uint32).tolist(), strict=True)) == expected
    assert from_gaps(values, gaps, blob.shape).tobytes() == blob.tobytes()


@given(blob=sparse_blobs(), block=st.integers(1, 600))
def test_blobs_larger_than_what_is_worked_on_at_once_make_no_difference(
    blob: np.ndarray, block: int
) -> None:
    whole = to_gaps(blob)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sparse, "_BLOCK", block)
        parts = to_gaps(blob)
        assert (parts is None) == (whole is None)
        if whole is None or parts is None:
            return
        assert parts[0].tobytes() == whole[0].tobytes()
        assert parts[1].tobytes() == whole[1].tobytes()
        assert from_gaps(*parts, blob.shape).tobytes() == blob.tobytes()


def test_every_bit_that_is_set_is_kept() -> None:
    blob = np.zeros(1000, np.uint32)
    blob[100:107] = SPECIAL
    entries = to_gaps(blob.view(np.float32))
    assert entries is not None
    assert from_gaps(*entries, (1000,)).view(np.uint32).tolist() == blob.tolist()
    assert np.count_nonzero(entries[0].view(np.uint32)) == 6  # all of them but +0.0


@pytest.mark.usefixtures("no_fsync")
@one_folder
@given(model=models)
def test_what_is_written_is_read_back(tmp_path: Path, model: Caffemodel) -> None:
    write_sparse(tmp_path / "a.sparse.npz", model)
    found = read_sparse(tmp_path / "a.sparse.npz")
    assert found.net == model.net
    assert [layer.param for layer in found.layers] == [layer.param for layer in model.layers]
    for layer, expected in zip(found.layers, model.layers, strict=True):
        assert [blob.shape for blob in layer.blobs] == [blob.shape for blob in expected.blobs]
        assert [blob.tobytes() for blob in layer.blobs] == [
            blob.tobytes() for blob in expected.blobs
        ]
    write_caffemodel(tmp_path / "before", model)
    write_caffemodel(tmp_path / "after", found)
    assert (tmp_path / "after").read_bytes() == (tmp_path / "before").read_bytes()


def test_files_of_the_zoo_come_back_byte_for_byte(data_dir: Path, tmp_path: Path) -> None:
    files = sorted(data_dir.glob("zoo/**/*.caffemodel"))
    assert files
    for path in files:
        write_sparse(tmp_path / "a.sparse.npz", read_caffemodel(path))
        write_caffemodel(tmp_path / "again", read_sparse(tmp_path / "a.sparse.npz"))
        assert sha256_of(tmp_path / "again") == sha256_of(path), path


def test_a_blob_that_would_grow_stays_dense(tmp_path: Path) -> None:
    full = np.ones(1000, np.float32)
    four_fifths = np.where(np.arange(1000) % 5 < 4, full, 0)
    fewer = np.where(np.arange(1000) % 5 < 3, full, 0)
    model = Caffemodel((Layer(LayerParameter(name="a"), (full, four_fifths, fewer)),))
    write_sparse(tmp_path / "a.sparse.npz", model)
    assert set(read_arrays(tmp_path / "a.sparse.npz", "")) == {
        *("definitions", "0/0/dense", "0/1/dense", "0/2/values", "0/2/gaps"),
    }


def test_sixteen_million_values_at_nine_tenths_zeros_come_back() -> None:
    blob = np.zeros((4096, 4096), np.float32)
    blob[:, ::10] = 1
    entries = to_gaps(blob)
    assert entries is not None
    assert np.array_equal(from_gaps(*entries, blob.shape), blob)


def pruned_model() -> Caffemodel:
    """A layer with a sparse and a dense blob, and one without blobs."""
    weights = np.zeros((20, 100), np.float32)
    weights[3, ::7] = 2
    bias = np.arange(20, dtype=np.float32)
    ip = Layer(LayerParameter(name="ip1", type="InnerProduct"), (weights, bias))
    return Caffemodel((Layer(LayerParameter(name="data")), ip), NetParameter(name="small"))


Members = dict[str, np.ndarray]


def rewritten(path: Path, change: str, value: np.ndarray | None) -> None:
    write_sparse(path, pruned_model())
    members = dict(read_arrays(path, ""))
    del members[change]
    if value is not None:
        members[change] = value
    with path.open("wb") as file:
        write_arrays(file, members.items())


def definitions_of(model: Caffemodel, folder: Path) -> np.ndarray:
    write_sparse(folder / "other", model)
    return read_arrays(folder / "other", "")["definitions"]


@pytest.mark.parametrize(
    ("member", "value", "sentence"),
    [
        ("1/0/gaps", None, "layer 'ip1', blob 0: has no member '1/0/gaps' of uint8"),
        ("1/0/values", None, "layer 'ip1', blob 0: has no member '1/0/values' of float32"),
        ("1/1/dense", None, "layer 'ip1', blob 1: has no member '1/1/values'"),
        ("definitions", None, "has no member 'definitions' of uint8"),
        ("1/0/gaps", np.zeros(3, np.uint8), "layer 'ip1', blob 0: has 22 values but 3 gaps"),
        ("1/0/gaps", np.zeros((22, 1), np.uint8), "layer 'ip1', blob 0: has 22 values but"),
        ("1/0/gaps", np.zeros(22, np.int8), "has no member '1/0/gaps' of uint8"),
        ("1/0/gaps", np.full(22, 255, np.uint8), "lead to value 5632, but shape 20x100 holds 2000"),
        ("1/0/gaps", np.zeros(22, np.uint8), "lead to value 22, but shape 20x100 holds 2000"),
        ("1/0/values", np.zeros(22), "has no member '1/0/values' of float32"),
        ("1/1/dense", np.zeros(19, np.float32), r"blob 1: has shape \(20,\) but its values"),
        ("definitions", np.frombuffer(b"\xff\xff", np.uint8), "."),
        ("definitions", np.frombuffer(b"\xa2\x06\x03\x0a\x01\xff", np.uint8), "(UTF|utf)-8"),
        ("definitions", np.frombuffer(b"\xa2\x06\x04\xa2\x09\x00", np.uint8), "."),
        ("definitions", np.zeros(0, np.uint8), "has members that no layer names, 1/0/gaps first"),
    ],
)
def test_members_that_do_not_fit_are_refused_with_the_layer(
    tmp_path: Path, member: str, value: np.ndarray | None, sentence: str
) -> None:
    path = tmp_path / "bad.sparse.npz"
    rewritten(path, member, value)
    with pytest.raises(FormatError, match=f"^{path}: .*{sentence}.*; a sparse model .* is needed"):
        read_sparse(path)


def test_an_absurd_shape_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    proto = NetParameter()
    for extents in ([2**40], [-1], [2**31 - 1]):
        proto.Clear()
        proto.layer.add(name="ip1").blobs.add().shape.dim.extend(extents)
        path = tmp_path / "bad.sparse.npz"
        with path.open("wb") as file:
            write_arrays(
                file,
                {
                    "definitions": np.frombuffer(proto.SerializeToString(), np.uint8),
                    "0/0/values": np.ones(1, np.float32),
                    "0/0/gaps": np.ones(1, np.uint8),
                }.items(),
            )
        with pytest.raises(
            FormatError, match=f"^{path}: layer 'ip1', blob 0: (has (shape|gaps)|unpacks to more)"
        ):
            read_sparse(path)


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.sparse.npz"
    np.savez(path, definitions=np.array([{}], object))
    with pytest.raises(FormatError, match=f"^{path}: member 'definitions.npy' holds no plain numb"):
        read_sparse(path)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.sparse.npz"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=f"^{path}: .*; a sparse model .* is needed$"):
        read_sparse(path)


@pytest.mark.usefixtures("no_fsync")
def test_damaged_bytes_are_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.sparse.npz"
    write_sparse(path, pruned_model())
    content = path.read_bytes()
    pick = random.Random(6)  # noqa: S311 -- no secret
    refused = 0
    for number in range(1500):
        damaged = bytearray(content if number % 2 else content[: pick.randrange(1, len(content))])
        for at in pick.choices(range(len(damaged)), k=pick.randint(0, 3)):
            damaged[at] = pick.randrange(256)
        path.write_bytes(damaged)
        try:
            found = read_sparse(path)
        except FormatError:
            refused += 1
        else:
            write_caffemodel(tmp_path / "again", found)
    assert 700 < refused < 1500


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    no_number = Layer(LayerParameter(name="ip1"), (np.array([object()]),))
    with pytest.raises((TypeError, ValueError)):
        write_sparse(tmp_path / "a.sparse.npz", Caffemodel((no_number,)))
    assert list(tmp_path.iterdir()) == []


def test_numpy_opens_the_archive(tmp_path: Path) -> None:
    write_sparse(tmp_path / "a.sparse.npz", pruned_model())
    with np.load(tmp_path / "a.sparse.npz", allow_pickle=False) as members:
        assert members["1/0/gaps"].dtype == np.uint8
        assert members["1/1/dense"].tolist() == list(range(20))
    with zipfile.ZipFile(tmp_path / "a.sparse.npz") as archive:
        assert archive.testzip() is None


@settings(max_examples=25, deadline=None)
@given(
    weights=st.integers(20_000, 300_000),
    share=st.floats(0.002, 0.9),
    seed=st.integers(0, 2**32 - 1),
)
def test_bytes_are_those_of_a_random_mask_in_the_sparse_form(
    weights: int, share: float, seed: int
) -> None:
    blob = np.zeros(weights, np.float32)
    kept = round(share * weights)
    blob[np.random.default_rng(seed).choice(weights, kept, replace=False)] = 1
    entries = to_gaps(blob)
    stored = blob.nbytes if entries is None else 5 * entries[0].size
    assert expected_bytes(weights, kept) == pytest.approx(stored, rel=0.12)


@given(weights=st.integers(1, 10**8))
def test_the_ends_of_the_sparse_form(weights: int) -> None:
    assert expected_bytes(weights, weights) == 4 * weights
    assert expected_bytes(weights, 0) == 5 * (weights // 256)
