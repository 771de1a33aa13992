import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pycaffe_prune.pruning import nearest
from pycaffe_prune.pruning.nearest import nearest_rows


def by_hand(rows: np.ndarray, row: int, left: np.ndarray) -> tuple[int, float]:
    distances = np.square(rows.astype(np.float64) - rows[row].astype(np.float64)).sum(axis=1)
    distances[~left], distances[row] = np.inf, np.inf
    return int(distances.argmin()), float(distances.min())


@pytest.mark.parametrize("few", [0, 100], ids=["in float32 first", "in float64"])
@settings(max_examples=30)
@given(
    units=st.integers(1, 40),
    inputs=st.integers(1, 30),
    seed=st.integers(0, 999),
    scale=st.sampled_from([1e-30, 1e-3, 1.0, 1e20]),
    offset=st.sampled_from([0.0, 1.0, 1e4]),
)
def test_the_nearest_row_is_that_of_float64(
    few: int, units: int, inputs: int, seed: int, scale: float, offset: float
) -> None:
    random = np.random.default_rng(seed)
    rows = scale * (offset + random.normal(size=(units, inputs)) * random.choice([1e-4, 1, 30]))
    rows[units // 2 :: 3] = rows[0]  # twins
    left = random.random(units) < 0.7
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nearest, "_FEW_UNITS", few)
        patch.setattr(nearest, "_MOST_CANDIDATES", 100)
        near = nearest_rows(rows)
    for row in range(units):
        found, distance = near.to(row, left)
        wanted, least = by_hand(rows, row, left)
        size = np.square(rows - rows.mean(axis=0)).sum(axis=1).max()
        if not few and np.isfinite(least):
            assert (found, distance) == (wanted, pytest.approx(least, rel=1e-9, abs=1e-24 * size))
        assert distance == pytest.approx(least, rel=1e-6, abs=1e-12 * size)


def test_where_all_are_alike_all_are_measured_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "_FEW_UNITS", 0)
    random = np.random.default_rng(0)
    assert isinstance(nearest_rows(random.normal(size=(60, 9))), nearest._Filtered)
    assert isinstance(nearest_rows(np.ones((60, 9))), nearest._Measured)
