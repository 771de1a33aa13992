import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.compressed.pieces import Cursor, Part, joined, size_of, sizes_of
from pycaffe_prune.formats.compressed.symbols import (
    coded_bits,
    count_symbols,
    encode_symbols,
    read_symbols,
)


@settings(max_examples=40)
@given(
    count=st.sampled_from([0, 1, 2, 1023, 1024, 1025, 5000]),
    alphabet=st.sampled_from([1, 2, 3, 200, 70]),
    shift=st.sampled_from([0, 1, 300]),
    seed=st.integers(0, 2**32 - 1),
)
def test_what_is_written_is_read(count: int, alphabet: int, shift: int, seed: int) -> None:
    draws = np.random.default_rng(seed)
    symbols = (draws.integers(0, alphabet, count) // 2 + shift).astype(np.uint16)
    pieces = encode_symbols(symbols, Part.CODES)
    cursor = Cursor(memoryview(joined(pieces)))
    found = read_symbols(cursor, count, Part.CODES)
    cursor.require_end()
    assert found.decode().tolist() == symbols.tolist()
    assert cursor.sizes == sizes_of(pieces)
    expected = coded_bits(count_symbols(symbols, 1000)) / 8
    assert size_of(pieces) == pytest.approx(expected, rel=0.01, abs=10)


def test_symbols_of_one_kind_take_no_words() -> None:
    pieces = encode_symbols(np.full(10**6, 9, np.uint16), Part.CODES)
    assert size_of(pieces) < 6


def test_more_symbols_than_there_can_be_are_refused_before_they_are_made() -> None:
    pieces = encode_symbols(np.full(10**6, 9, np.uint16), Part.CODES)
    with pytest.raises(FormatError, match="1,000,000 symbols where at most 999,999 can be"):
        read_symbols(Cursor(memoryview(joined(pieces))), 10**6 - 1, Part.CODES)


@settings(max_examples=60)
@given(data=st.binary(max_size=60))
def test_any_bytes_are_symbols_or_refused(data: bytes) -> None:
    try:
        found = read_symbols(Cursor(memoryview(data)), 5000, Part.CODES)
        symbols = found.decode()
    except FormatError:
        return
    assert symbols.size == found.count <= 5000
