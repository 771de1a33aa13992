import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.compressed.pieces import Cursor, joined, size_of, sizes_of
from pycaffe_prune.formats.compressed.values import Coding, encode_values, measure, read_values

few = hnp.arrays(np.uint32, st.integers(0, 300), elements=st.sampled_from([0, 1, 2**31, 2**32 - 1]))
any_bits = hnp.arrays(np.uint32, st.integers(0, 40), elements=st.integers(0, 2**32 - 1))


@settings(max_examples=40)
@given(bits=few | any_bits, coding=st.sampled_from(Coding))
def test_each_coding_keeps_every_bit(bits: np.ndarray, coding: Coding) -> None:
    values = measure(bits)
    if coding is Coding.CODEBOOK and values.book is None:
        return
    pieces = encode_values(values, coding)
    cursor = Cursor(memoryview(joined(pieces)))
    found = read_values(cursor, bits.size).decode()
    cursor.require_end()
    assert found.tobytes() == bits.tobytes()
    assert cursor.sizes == sizes_of(pieces)


@pytest.mark.parametrize("count", [3, 500, 100_000])
@pytest.mark.parametrize("kind", ["shared", "ternary", "normal", "half", "noise"])
def test_the_smallest_coding_is_chosen(kind: str, count: int) -> None:
    draws = np.random.default_rng(6)
    normal = draws.standard_normal(count).astype(np.float32)
    floats = {
        "shared": np.rint(normal * 8) / np.float32(9),
        "ternary": np.sign(normal) * np.float32(0.7),
        "normal": normal,
        "half": normal.astype(np.float16).astype(np.float32),
        "noise": draws.integers(0, 2**32, count, np.uint32).view(np.float32),
    }[kind]
    values = measure(floats.astype(np.float32).view(np.uint32))
    chosen, bits = values.coding()
    sizes = {
        coding: size_of(encode_values(values, coding))
        for coding in Coding
        if coding is not Coding.CODEBOOK or values.book is not None
    }
    assert sizes[chosen] <= 1.001 * min(sizes.values()) + 8
    assert bits / 8 == pytest.approx(sizes[chosen], rel=0.01, abs=40)
    if count == 100_000:
        most = {"shared": 5.5, "ternary": 1.1, "normal": 27.5, "half": 14.5, "noise": 32.1}
        assert bits / count < most[kind]


def test_a_codebook_has_also_what_occurs_once() -> None:
    bits = np.resize(np.array([7, 9], np.uint32), 10**6)
    bits[999_999], bits[123_456] = 3, 8
    values = measure(bits)
    assert values.book is not None
    assert values.book.tolist() == [3, 7, 8, 9]
    assert values.counts.tolist() == [1, 499_999, 1, 499_999]


@settings(max_examples=60)
@given(data=st.binary(max_size=60))
def test_any_bytes_are_values_or_refused(data: bytes) -> None:
    try:
        assert read_values(Cursor(memoryview(data)), 9).decode().size == 9
    except FormatError:
        return
