import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.compressed.frequencies import (
    best_table,
    least_cost,
    table_bytes,
    table_from,
)

counts_of_symbols = st.lists(
    st.integers(0, 3) | st.integers(0, 10**7), min_size=1, max_size=80
).filter(lambda counts: counts[-1] > 0)


@settings(max_examples=40)
@given(counts=counts_of_symbols)
def test_a_table_has_each_symbol_and_comes_back(counts: list[int]) -> None:
    table = best_table(np.array(counts))
    assert int(table.frequencies.sum()) == 1 << table.precision
    assert ((table.frequencies > 0) == (np.array(counts) > 0)).all()
    written = table_bytes(table)
    ahead = memoryview(written + b"\xff\x00\x55")
    found, used = table_from(ahead, len(counts), table.precision, table.order)
    assert used == len(written)
    assert found.tolist() == table.frequencies.tolist()


@settings(max_examples=40)
@given(counts=counts_of_symbols)
def test_no_table_costs_much_more_than_the_entropy(counts: list[int]) -> None:
    occur = np.array(counts, np.float64)
    occur = occur[occur > 0]
    entropy = -(occur * np.log2(occur / occur.sum())).sum()
    # Rare symbols cost the others a 65,536th each; a frequency in the table is 33 bits at most.
    rounding = occur.sum() * occur.size / 2**15
    assert least_cost(np.array(counts)).bits <= 1.01 * entropy + rounding + 33 * len(counts)


@settings(max_examples=60)
@given(data=st.binary(max_size=40), alphabet=st.integers(1, 300), told=st.integers(0, 135))
def test_any_bytes_are_a_table_or_refused(data: bytes, alphabet: int, told: int) -> None:
    precision, order = told % 17, told // 17
    try:
        found, used = table_from(memoryview(data), alphabet, precision, order)
    except FormatError:
        return
    assert found.size == alphabet
    assert int(found.sum()) == 1 << precision
    assert used <= len(data)


def test_a_table_of_a_wrong_sum_is_refused() -> None:
    table = best_table(np.array([5, 3, 9]))
    with pytest.raises(FormatError, match="a wrong sum"):
        table_from(memoryview(table_bytes(table)), 3, table.precision + 1, table.order)
