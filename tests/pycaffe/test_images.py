"""Images: laws of resizing and cropping, and files that are refused; the pixels are twins."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pycaffe_prune.errors import PruneError
from pycaffe_prune.pycaffe.images import load_image, oversample, resize_image

SIDES = st.integers(1, 12)


def picture(height: int, width: int, channels: int) -> np.ndarray:
    return np.random.default_rng(height).standard_normal((height, width, channels), np.float32)


@settings(max_examples=20)
@given(SIDES, SIDES, SIDES, SIDES, st.sampled_from([1, 2, 3, 5]), st.integers(0, 5))
def test_an_image_has_the_size_asked_for(
    old_height: int, old_width: int, height: int, width: int, channels: int, order: int
) -> None:
    resized = resize_image(picture(old_height, old_width, channels), (height, width), order)
    assert resized.shape == (height, width, channels)
    assert resized.dtype == np.float32


@settings(max_examples=20)
@given(SIDES, SIDES, st.integers(1, 5), st.integers(0, 5))
def test_an_image_of_the_same_size_is_the_same(
    height: int, width: int, channels: int, order: int
) -> None:
    image = picture(height, width, channels)
    assert np.abs(resize_image(image, (height, width), order) - image).max() < 1e-5


@pytest.mark.parametrize("order", range(6))
def test_a_grid_of_points_keeps_its_corners(order: int) -> None:
    image = picture(11, 7, 4)
    resized = resize_image(image, (23, 5), order)
    assert np.abs(resized[::22, ::4] - image[::10, ::6]).max() < 1e-5


@pytest.mark.parametrize(
    ("shape", "order", "message"),
    [((4, 4), 1, r"of shape \(4, 4\)"), ((4, 4, 3), 6, "interp_order is 6")],
)
def test_what_cannot_be_resized_is_refused(
    shape: tuple[int, ...], order: int, message: str
) -> None:
    with pytest.raises(PruneError, match=message):
        resize_image(np.zeros(shape), (2, 2), order)


def test_the_second_five_crops_are_the_first_mirrored() -> None:
    crops = oversample([picture(6, 9, 2), picture(6, 9, 2) + 1], (4, 4))
    assert crops.shape == (20, 4, 4, 2)
    assert np.array_equal(crops[15:], crops[10:15, :, ::-1])


def test_crops_larger_than_the_image_are_refused() -> None:
    with pytest.raises(PruneError, match=r"crops of 7 × 4 of images of shape \(6, 9, 2\)"):
        oversample([picture(6, 9, 2)], (7, 4))


def test_a_photograph_is_turned_as_it_was_held(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image").fromarray(np.zeros((4, 9, 3), np.uint8))
    held = image.getexif()
    held[0x112] = 6
    image.save(tmp_path / "held.jpg", exif=held)
    assert load_image(tmp_path / "held.jpg").shape == (9, 4, 3)


def test_files_that_are_no_images_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.png").touch()
    for name in ("text.png", "empty.png", "none.png"):
        with pytest.raises(OSError, match=name) as raised:
            load_image(str(tmp_path / name))
        assert isinstance(raised.value, PruneError)


def test_a_tiff_with_transparency_is_refused(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "clear.tif"), np.full((3, 4, 4), 100, np.uint8))
    cv2.imwrite(str(tmp_path / "opaque.tif"), np.full((3, 4, 3), 51, np.uint8))
    with pytest.raises(PruneError, match=r"clear\.tif"):
        load_image(tmp_path / "clear.tif")
    assert (load_image(tmp_path / "opaque.tif") == np.float32(0.2)).all()
