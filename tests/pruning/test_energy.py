"""Laws of the estimates, and SciPy's verdict on what compressed rows take."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.pruning.energy import csr_bytes, image_energy

amount = st.integers(1, 10**9)


@settings(max_examples=30)
@given(amount, amount, st.integers(1, 1000))
def test_a_batch_shares_the_weights_and_a_chip_saves_most_of_them(
    stored: int, macs: int, batch: int
) -> None:
    one, many = image_energy(stored, macs), image_energy(stored, macs, batch=batch)
    assert many.weights * batch == pytest.approx(one.weights)
    assert (many.activations, many.arithmetic) == (one.activations, one.arithmetic)
    near = image_energy(stored, macs, on_chip=True)
    assert one.weights == pytest.approx(128 * near.weights)
    assert near.total < one.total
    assert one.total == pytest.approx(one.weights + one.activations + one.arithmetic)
    double = image_energy(2 * stored, 2 * macs)
    assert double.total == pytest.approx(2 * one.total)


def test_a_fully_connected_net_at_batch_1_spends_its_energy_on_reading() -> None:
    # 20 images a second through a billion connections: the 12.8 W of the authors' example.
    connections = 10**9
    energy = image_energy(4 * connections, connections)
    assert 20 * energy.weights * 1e-12 == pytest.approx(12.8)
    assert energy.weights > 0.98 * energy.total


@settings(max_examples=15)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_compressed_rows_take_what_scipy_takes(rows: int, columns: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    values = random.normal(size=(rows, columns)) * (random.random((rows, columns)) < 0.4)
    found = csr_matrix(values.astype(np.float32))
    taken = found.data.nbytes + found.indices.nbytes + found.indptr.nbytes
    assert csr_bytes(rows, found.nnz) == taken


def test_less_than_nothing_is_refused() -> None:
    for stored, macs, batch in ((-1, 1, 1), (1, -1, 1), (1, 1, 0)):
        with pytest.raises(SurgeryError, match="no net reads"):
            image_energy(stored, macs, batch=batch)
