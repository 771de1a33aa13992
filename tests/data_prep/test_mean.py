from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from data_prep.mean import MeanImage, write_mean
from pycaffe_prune.errors import DataError
from pycaffe_prune.formats.caffe_pb2 import BlobProto


def as_caffe_does(images: np.ndarray) -> np.ndarray:
    """compute_image_mean's loop: one float32 addition an image, in order, then a division."""
    total = np.zeros(images.shape[1:], np.float32)
    for image in images:
        total = (total + image.astype(np.float32)).astype(np.float32)
    return total / np.float32(len(images))


@given(
    images=hnp.arrays(np.uint8, (17, 2, 3, 2)),
    cuts=st.lists(st.integers(0, 17), max_size=4).map(sorted),
)
def test_batches_of_any_size_give_the_mean_of_one_pass(images: np.ndarray, cuts: list[int]) -> None:
    mean = MeanImage((2, 3, 2))
    for start, end in zip([0, *cuts], [*cuts, 17], strict=True):
        mean.add(images[start:end])
    assert np.array_equal(mean.value(), as_caffe_does(images))


def test_past_the_exact_whole_numbers_it_rounds_as_caffe_does() -> None:
    images = np.random.default_rng(1).integers(200, 256, (90_000, 1, 1, 4), dtype=np.uint8)
    mean = MeanImage((1, 1, 4))
    for start in range(0, len(images), 7_000):
        mean.add(images[start : start + 7_000])
    expected = as_caffe_does(images)
    exact = (images.sum(axis=0, dtype=np.uint64) / len(images)).astype(np.float32)
    assert not np.array_equal(expected, exact)  # else this test would show nothing
    assert mean.value().dtype == np.float32
    assert np.array_equal(mean.value(), expected)


def test_no_image_has_no_mean() -> None:
    with pytest.raises(DataError, match="no images"):
        MeanImage((1, 2, 2)).value()


def test_the_file_is_a_blob_with_the_legacy_dimensions(tmp_path: Path) -> None:
    mean = np.random.default_rng(2).random((3, 4, 5), dtype=np.float32)
    write_mean(tmp_path / "mean.binaryproto", mean)
    blob = BlobProto.FromString((tmp_path / "mean.binaryproto").read_bytes())
    assert (blob.num, blob.channels, blob.height, blob.width) == (1, 3, 4, 5)
    assert not blob.HasField("shape")
    assert np.array_equal(np.array(blob.data, np.float32).reshape(3, 4, 5), mean)
    assert [path.name for path in tmp_path.iterdir()] == ["mean.binaryproto"]
