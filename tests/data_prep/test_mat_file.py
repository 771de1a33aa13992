import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from data_prep.mat_file import read_mat
from pycaffe_prune.errors import DataError

scipy_io = pytest.importorskip("scipy.io")
HOSTILE = Path(__file__).parents[1] / "cases/hostile/fuzz"


@settings(max_examples=40)
@given(
    arrays=st.dictionaries(
        st.from_regex("[a-z][a-z0-9]{0,20}", fullmatch=True),
        hnp.arrays(
            st.sampled_from(["u1", "u2", "i4", "i8", "f8"]),
            hnp.array_shapes(min_dims=2, max_dims=3, min_side=0, max_side=5),
            elements=st.integers(0, 200),
        ),
        max_size=3,
    ),
    is_packed=st.booleans(),
)
def test_matrices_are_those_that_scipy_writes(
    arrays: dict[str, Any], is_packed: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "law.mat"
    scipy_io.savemat(path, {**arrays, "text": "no numbers"}, do_compression=is_packed)
    found = read_mat(path)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("name", ["mat-segv-imagelabels.mat", "mat-segv-setid.mat"])
def test_files_at_which_scipy_crashes_are_read_or_refused(tmp_path: Path, name: str) -> None:
    shutil.copy(HOSTILE / name, tmp_path)
    try:
        found = read_mat(tmp_path / name)
    except DataError as error:
        assert str(error).startswith(f"{tmp_path / name}: is damaged")  # noqa: PT017
    else:
        assert {values.shape[0] for values in found.values()} == {1}


def test_a_bomb_and_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    scipy_io.savemat(path, {"labels": np.zeros((1, 20 << 20), np.uint8)}, do_compression=True)
    with pytest.raises(DataError, match=r"a\.mat: is damaged .*unpacks to too much"):
        read_mat(path)
    path.write_bytes(b"<html>" * 100)
    with pytest.raises(DataError, match=r"a\.mat: is no MATLAB 5 file"):
        read_mat(path)
    with pytest.raises(DataError, match="none: cannot be read"):
        read_mat(tmp_path / "none")


def test_damaged_bytes_are_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    scipy_io.savemat(path, {"labels": np.arange(20, dtype=np.uint16)[None], "t": "text"})
    content = path.read_bytes()
    pick = random.Random(6)  # noqa: S311 -- no secret
    refused = 0
    for _ in range(500):
        damaged = bytearray(content)
        for _ in range(pick.randint(1, 4)):
            damaged[pick.randrange(126, len(content))] = pick.randrange(256)
        path.write_bytes(damaged[: pick.choice([len(content), pick.randint(100, len(content))])])
        try:
            read_mat(path)
        except DataError:
            refused += 1
    assert 50 < refused < 500
