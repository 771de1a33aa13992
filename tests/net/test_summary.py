from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter, NetParameter
from pycaffe_prune.formats.caffemodel import (
    Caffemodel,
    Layer,
    read_caffemodel,
    write_caffemodel,
)
from pycaffe_prune.net.summary import summarise

blobs_with_zeros = st.lists(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(max_dims=4, max_side=5),
        elements=st.sampled_from([0.0, -0.0, 1.0, -2.5, 1e-45, 1e6]),
    ),
    min_size=1,
    max_size=3,
)


def write(path: Path, *blobs: NDArray[np.float32]) -> Path:
    param = LayerParameter(name="ip", type="InnerProduct")
    data = Layer(LayerParameter(name="data", type="Data"))
    write_caffemodel(path, Caffemodel((data, Layer(param, blobs)), NetParameter(name="small")))
    return path


@given(blobs=blobs_with_zeros)
def test_counts_are_numpys(
    tmp_path_factory: pytest.TempPathFactory, blobs: list[NDArray[np.float32]]
) -> None:
    path = write(tmp_path_factory.mktemp("summary") / "a.caffemodel", *blobs)
    found = summarise(path)
    assert (found.path, found.name, found.bytes) == (str(path), "small", path.stat().st_size)
    assert found.parameters == sum(blob.size for blob in blobs)
    assert found.nonzero == sum(np.count_nonzero(blob) for blob in blobs)
    assert len(found.blobs) == len(blobs)
    for index, (row, blob) in enumerate(zip(found.blobs, blobs, strict=True)):
        assert (row.layer, row.type, row.index) == ("ip", "InnerProduct", index)
        assert (row.shape, row.count) == (blob.shape, blob.size)
        assert row.nonzero == np.count_nonzero(blob)
        assert row.finite
        assert (row.minimum, row.maximum) == (blob.min(), blob.max())
        assert row.std == pytest.approx(blob.astype(np.float64).std(), rel=1e-9)


def test_a_real_model_is_counted_as_its_readme_says(data_dir: Path) -> None:
    path = data_dir / "zoo" / "squeezenet" / "squeezenet_v1.0_pruned.caffemodel"
    found = summarise(path)
    weights = [row for row in found.blobs if row.index == 0]
    assert len(weights) == 26
    assert sum(row.count for row in weights) == 1_244_448
    assert sum(row.nonzero for row in weights) == 415_921
    for row, (place, blob) in zip(found.blobs, read_caffemodel(path).blobs(), strict=True):
        assert (row.layer, row.index) == place
        assert row.nonzero == np.count_nonzero(blob)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_blob_that_is_not_finite_is_marked_and_not_measured(tmp_path: Path, bad: float) -> None:
    blob = np.ones((2, 3), np.float32)
    blob[0, 0] = bad
    (row,) = summarise(write(tmp_path / "bad.caffemodel", blob)).blobs
    assert not row.finite
    assert (row.minimum, row.maximum, row.std) == (0, 0, 0)
    assert (row.count, row.nonzero) == (6, 6)


def test_an_empty_blob_has_no_values(tmp_path: Path) -> None:
    found = summarise(write(tmp_path / "empty.caffemodel", np.zeros((0, 3), np.float32)))
    assert (found.parameters, found.nonzero, found.blobs[0].shape) == (0, 0, (0, 3))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"nowhere\.caffemodel: no such file"):
        summarise(tmp_path / "nowhere.caffemodel")
