import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.compressed import rans
from pycaffe_prune.formats.compressed.frequencies import Table, best_table
from pycaffe_prune.formats.compressed.rans import decode, encode


def drawn(alphabet: int, count: int, seed: int) -> np.ndarray:
    draws = np.random.default_rng(seed)
    shares = draws.dirichlet(np.full(alphabet, 0.3))
    return draws.choice(alphabet, count, p=shares).astype(np.uint16)


def table_of(symbols: np.ndarray) -> Table:
    return best_table(np.bincount(symbols))


@settings(max_examples=40)
@given(
    alphabet=st.integers(2, 40),
    count=st.integers(1, 300),
    lanes=st.integers(1, 20),
    seed=st.integers(0, 2**32 - 1),
)
def test_what_is_encoded_is_decoded(alphabet: int, count: int, lanes: int, seed: int) -> None:
    symbols = drawn(alphabet, count, seed)
    table = table_of(symbols)
    told = (table.frequencies, table.precision)
    coded = encode(symbols, *told, lanes)
    assert decode(count, *told, *coded).tolist() == symbols.tolist()
    with pytest.MonkeyPatch.context() as patch:  # numbers of Python's, then of NumPy's alone
        for few in (20, 0):
            patch.setattr(rans, "_FEW", few)
            again = encode(symbols, *told, lanes)
            assert [part.tobytes() for part in again] == [part.tobytes() for part in coded]
            assert decode(count, *told, *coded).tolist() == symbols.tolist()


def test_as_many_symbols_as_fit_the_precision() -> None:
    symbols = np.random.default_rng(1).permutation(2**16).astype(np.uint16)
    frequencies = np.ones(2**16, np.uint32)
    states, words = encode(symbols, frequencies, 16, 64)
    assert words.nbytes == symbols.nbytes  # 16 bits each, and nothing can be saved
    assert (decode(2**16, frequencies, 16, states, words) == symbols).all()


def test_the_words_take_the_entropy() -> None:
    symbols = drawn(60, 200_000, 3)
    counts = np.bincount(symbols)
    shares = counts[counts > 0] / symbols.size
    entropy = -(shares * np.log2(shares)).sum() * symbols.size / 8
    table = best_table(counts)
    _, words = encode(symbols, table.frequencies, table.precision, 256)
    # Each state is left with 0 to 16 bits that no word holds.
    assert entropy * 0.999 - 2 * 256 < words.nbytes < entropy * 1.002


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), bit=st.integers(0, 10**6))
def test_a_bit_that_flips_gives_other_symbols_or_is_refused(seed: int, bit: int) -> None:
    symbols = drawn(12, 400, seed)
    table = table_of(symbols)
    states, words = encode(symbols, table.frequencies, table.precision, 4 + bit % 3 * 4)
    harmed = (states if bit % 2 or not words.size else words).view(np.uint8)
    harmed[bit // 16 % harmed.size] ^= 1 << bit // 2 % 8
    try:
        found = decode(400, table.frequencies, table.precision, states, words)
    except FormatError:
        return
    assert found.tolist() != symbols.tolist()


@pytest.mark.parametrize("lanes", [4, 12])
def test_words_that_are_missing_or_left_are_refused(lanes: int) -> None:
    symbols = drawn(12, 400, 5)
    table = table_of(symbols)
    states, words = encode(symbols, table.frequencies, table.precision, lanes)
    for other in (words[:-1], np.append(words, np.uint16(1))):
        with pytest.raises(FormatError):
            decode(400, table.frequencies, table.precision, states, other)
