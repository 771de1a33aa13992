import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.compressed.blobs import (
    Encoding,
    Hash,
    StoredBlob,
    encode_blob,
    encode_hashed,
    read_blob,
)
from pycaffe_prune.formats.compressed.pieces import Cursor, joined, size_of, sizes_of
from pycaffe_prune.formats.compressed.values import Coding
from pycaffe_prune.formats.hashed import hashed_blob


def stored(blob: np.ndarray) -> StoredBlob:
    """The blob as it stands in a file, from which it has come back to the last bit."""
    pieces = encode_blob(blob)
    cursor = Cursor(memoryview(joined(pieces)))
    found = read_blob(cursor, blob.shape)
    cursor.require_end()
    assert cursor.sizes == sizes_of(pieces)
    assert found.decode().tobytes() == blob.tobytes()
    assert found.decode().shape == blob.shape
    return found


@settings(max_examples=20)
@given(buckets=st.integers(1, 60), seed=st.integers(0, 2**64 - 1))
def test_hashed_weights_are_stored_by_their_buckets(buckets: int, seed: int) -> None:
    values = np.random.default_rng(1).standard_normal(buckets).astype(np.float32)
    blob = hashed_blob(values, (6, 10), seed)
    pieces = encode_hashed(blob, Hash(buckets, seed))
    cursor = Cursor(memoryview(joined(pieces)))
    found = read_blob(cursor, blob.shape)
    cursor.require_end()
    assert cursor.sizes == sizes_of(pieces)
    assert found.encoding is Encoding.HASHED
    assert found.decode().tobytes() == blob.tobytes()
    assert size_of(pieces) <= 4 * buckets + 20
    for told in (Hash(buckets, (seed + 1) % 2**64), Hash(61, seed), Hash(0, seed)):
        if buckets > 1 or told.buckets != 1:
            with pytest.raises(FormatError, match=f"is none of {told.buckets:,} values by the"):
                encode_hashed(blob, told)


def test_buckets_that_cannot_be_are_refused() -> None:
    blob = hashed_blob(np.ones(3, np.float32), (2, 2), 1)
    content = bytearray(joined(encode_hashed(blob, Hash(3, 1))))
    content[1] = 5
    with pytest.raises(FormatError, match="hashed to 5 buckets"):
        read_blob(Cursor(memoryview(bytes(content))), (2, 2))


@st.composite
def blobs(draw: st.DrawFn) -> np.ndarray:
    """Blobs of any shape and share of zeros, of any bits or of few different ones."""
    shape = draw(
        st.sampled_from(
            [(), (0,), (1,), (7,), (0, 3), (3, 0), (1, 60), (60, 1), (30, 40), (6, 5, 9)]
        )
    )
    draws = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    bits = draws.integers(0, 2**32, shape, np.uint32)
    few = draw(st.none() | st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=5))
    if few is not None:
        bits = np.array(few, np.uint32)[bits % len(few)]
    share = draw(st.sampled_from([0, 0.1, 0.6, 0.95, 1]))
    return np.where(draws.random(shape) < share, np.uint32(0), bits).view(np.float32)


@settings(max_examples=40)
@given(blob=blobs())
def test_every_bit_comes_back(blob: np.ndarray) -> None:
    stored(blob)


def test_zeros_with_a_sign_denormals_and_the_payloads_of_nans_are_kept() -> None:
    bits = np.zeros(1000, np.uint32)
    bits[100:107] = 0x80000000, 1, 0x7FC00000, 0xFFC12345, 0x7F800001, 0xFF800000, 0x3F800000
    assert stored(bits.view(np.float32)).values.count == 7


def test_pruned_weights_are_stored_by_what_is_left_of_them() -> None:
    draws = np.random.default_rng(8)
    weights = draws.standard_normal((100, 150)).astype(np.float32)
    weights[draws.random(weights.shape) < 0.9] = 0
    found = stored(weights)
    assert found.encoding is not Encoding.ALL
    assert found.coding is Coding.PLANES
    assert found.values.count == np.count_nonzero(weights)
    levels = np.rint(3 * weights)
    shared = stored(levels)
    assert shared.encoding is not Encoding.ALL
    assert shared.coding is Coding.CODEBOOK
    bits = levels.view(np.uint32)
    assert set(shared.values.book) == set(bits[bits != 0])


def test_dead_inputs_are_stored_by_columns() -> None:
    draws = np.random.default_rng(8)
    weights = np.sign(draws.standard_normal((150, 100))).astype(np.float32)
    weights[:, draws.random(100) < 0.9] = 0
    by_columns = stored(weights)
    assert by_columns.encoding is Encoding.NON_ZERO_COLUMNS
    by_rows = stored(np.ascontiguousarray(weights.T))
    assert by_rows.encoding is Encoding.NON_ZERO
    assert size_of(encode_blob(weights)) == size_of(encode_blob(weights.T))


def test_a_blob_of_one_value_takes_a_few_bytes() -> None:
    for value in (0, 1, -0.0, np.nan):
        assert size_of(encode_blob(np.full((1000, 1000), value, np.float32))) < 16


@settings(max_examples=80)
@given(data=st.binary(max_size=60), shape=st.sampled_from([(), (0,), (0, 4), (9,), (4, 5)]))
def test_any_bytes_are_a_blob_or_refused(data: bytes, shape: tuple[int, ...]) -> None:
    try:
        assert read_blob(Cursor(memoryview(data)), shape).decode().shape == shape
    except FormatError:
        return


def test_positions_past_the_end_are_refused() -> None:
    blob = np.zeros(50, np.float32)
    blob[40] = 1
    content = joined(encode_blob(blob))
    with pytest.raises(FormatError, match="positions up to 40, but its shape holds 30 values"):
        read_blob(Cursor(memoryview(content)), (30,)).decode()
