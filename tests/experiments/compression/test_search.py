"""The strongest setting that is good is found, and each is tried at most once."""

from hypothesis import given
from hypothesis import strategies as st

from pycaffe_prune.experiments.compression.search import strongest


@given(st.integers(0, 40), st.integers(0, 40))
def test_of_settings_in_order_the_last_good_one_is_found(count: int, good: int) -> None:
    tried: list[int] = []

    def is_good(setting: int) -> bool:
        tried.append(setting)
        return setting < good

    found = strongest(range(count), is_good)
    assert found == (min(good, count) - 1 if good and count else None)
    assert len(tried) == len(set(tried)) <= count.bit_length()


@given(st.lists(st.booleans()))
def test_what_is_found_was_good_whatever_the_order(good: list[bool]) -> None:
    found = strongest(range(len(good)), good.__getitem__)
    assert found is None or good[found]
