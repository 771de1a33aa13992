import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.pruning.gradual import CubicSchedule, gradual_mask

schedules = st.builds(CubicSchedule, st.integers(0, 20), st.integers(1, 9), st.integers(1, 12))
weights = arrays(np.float32, (6, 9), elements=st.floats(-2, 2, width=32))


def test_sparsity_follows_the_cubic_law_of_the_paper():
    schedule = CubicSchedule(begin=100, every=10, changes=4)
    found = [schedule.sparsity(100 + 10 * made, 0.1, 0.9) for made in range(5)]

    assert found == pytest.approx([0.9 - 0.8 * (1 - made / 4) ** 3 for made in range(5)])
    assert schedule.last == 140


@settings(max_examples=30)
@given(schedules, st.floats(0, 0.5), st.floats(0.5, 0.99))
def test_sparsity_rises_from_none_to_the_last_only_where_a_change_is_due(schedule, first, final):
    values = [schedule.sparsity(at, first, final) for at in range(schedule.last + 20)]

    assert set(values[: schedule.begin]) <= {0.0}
    assert values[schedule.begin] == pytest.approx(first)
    assert set(values[schedule.last :]) == {final}
    moved = [at for at in range(1, len(values)) if values[at] != values[at - 1]]
    assert all(schedule.is_due(at) for at in moved)
    assert values == sorted(values)
    due = [at for at in range(len(values)) if schedule.is_due(at)]
    assert due == list(range(schedule.begin, schedule.last + 1, schedule.every))


@settings(max_examples=30)
@given(weights, arrays(np.bool_, (6, 9)), st.floats(0, 0.99))
def test_masks_only_shrink_and_prune_as_many_as_the_sparsity_says(blob, kept, sparsity):
    mask = gradual_mask(blob, kept, sparsity)

    assert not (mask & ~kept).any()
    assert np.count_nonzero(~mask) == max(round(sparsity * blob.size), np.count_nonzero(~kept))
    gone = kept & ~mask
    if gone.any() and mask.any():
        assert np.abs(blob[gone]).max() <= np.abs(blob[mask]).min()


def test_a_sparsity_of_all_weights_is_none():
    with pytest.raises(SurgeryError, match="not including 1"):
        gradual_mask(np.ones((2, 2), np.float32), np.ones((2, 2), np.bool_), 1.0)
