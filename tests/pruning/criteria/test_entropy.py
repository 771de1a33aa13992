import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.pruning.criteria.entropy import entropy


@settings(max_examples=30)
@given(st.integers(1, 10**6), st.lists(st.floats(0, 1), min_size=1, max_size=9), st.randoms())
def test_bits_between_0_and_1_that_go_with_their_units(
    seen: int, shares: list[float], random: "np.random.Generator"
) -> None:
    on = np.array([round(share * seen) for share in shares], np.int64)
    found = entropy(on, seen)
    assert found.shape == on.shape
    assert ((found >= 0) & (found <= 1)).all()
    np.testing.assert_array_equal(found == 0, (on == 0) | (on == seen))
    np.testing.assert_allclose(entropy(seen - on, seen), found, atol=1e-12)  # on is as good as off
    order = list(range(len(shares)))
    random.shuffle(order)
    np.testing.assert_array_equal(entropy(on[order], seen), found[order])


def test_it_is_shannons() -> None:
    found = entropy(np.array([1, 2, 3], np.int64), 4)
    np.testing.assert_allclose(found, [2 - 0.75 * np.log2(3), 1, 2 - 0.75 * np.log2(3)])


@pytest.mark.parametrize(("on", "seen"), [(0, 0), (5, 4), (-1, 4)])
def test_impossible_counts_are_refused(on: int, seen: int) -> None:
    with pytest.raises(SurgeryError, match="cannot be on"):
        entropy(np.array([on], np.int64), seen)
