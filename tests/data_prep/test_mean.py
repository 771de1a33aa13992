import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from data_prep.mean import MeanImage
from pycaffe_prune.errors import DataError


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


def test_the_brightest_images_add_up_without_a_carry_being_lost() -> None:
    mean = MeanImage((1, 1, 2))
    mean.add(np.full((1000, 1, 1, 2), 255, np.uint8))
    assert np.array_equal(mean.value(), np.full((1, 1, 2), 255, np.float32))


def test_no_image_has_no_mean() -> None:
    with pytest.raises(DataError, match="no images"):
        MeanImage((1, 2, 2)).value()


@given(
    images=hnp.arrays(np.float32, (9, 2, 1, 2), elements=st.floats(-1e3, 1e3, width=32)),
    cut=st.integers(0, 9),
)
def test_the_mean_of_floats_is_added_up_as_caffe_does(images: np.ndarray, cut: int) -> None:
    mean = MeanImage((2, 1, 2))
    mean.add(images[:cut])
    mean.add(images[cut:])
    assert np.array_equal(mean.value(), as_caffe_does(images))
