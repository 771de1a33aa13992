import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from data_prep.warp import decode, encoded_datum, jpeg_of, raw_datum, warp
from pycaffe_prune.errors import DataError
from pycaffe_prune.formats.caffe_pb2 import Datum


def picture(height: int, width: int, channels: int = 3, seed: int = 0) -> NDArray[np.uint8]:
    random = np.random.default_rng(seed)
    rough = random.integers(0, 256, (5, 4, channels), dtype=np.uint8)
    return cv2.resize(rough, (width, height)).reshape(height, width, channels)


def file_of(image: NDArray[np.uint8], suffix: str = ".jpg") -> bytes:
    return cv2.imencode(suffix, image)[1].tobytes()


def test_channels_come_in_the_order_blue_green_red() -> None:
    blue = np.zeros((4, 4, 3), np.uint8)
    blue[:, :, 0] = 255
    assert np.array_equal(decode(file_of(blue, ".png")), blue)


def test_a_grey_file_becomes_three_equal_channels() -> None:
    image = decode(file_of(picture(9, 8, channels=1)))
    assert image.shape == (9, 8, 3)
    assert np.array_equal(image[:, :, 0], image[:, :, 2])


@settings(max_examples=25)
@given(keep=st.floats(0, 1, exclude_max=True))
def test_no_beginning_of_a_file_passes_for_the_whole(keep: float) -> None:
    content = file_of(picture(40, 50))
    with pytest.raises(DataError, match=r"truncated|no image"):
        decode(content[: int(keep * (len(content) - 1))])


def test_what_is_no_image_is_refused_and_bytes_after_the_end_are_not() -> None:
    with pytest.raises(DataError, match="no image"):
        decode(b"<html>404</html>")
    content = file_of(picture(20, 20))
    assert np.array_equal(decode(content + b"\0" * 100), decode(content))


@given(size=st.integers(1, 40), height=st.integers(1, 60), width=st.integers(1, 60))
def test_warping_gives_the_square_and_leaves_one_as_it_is(
    size: int, height: int, width: int
) -> None:
    image = picture(height, width)
    found = warp(image, size)
    assert found.shape == (size, size, 3)
    assert np.array_equal(found, cv2.resize(image, (size, size)))


def test_a_raw_datum_has_the_planes_and_says_that_it_is_not_encoded() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(3, 2, 4)
    datum = Datum.FromString(raw_datum(pixels, 7))
    assert (datum.channels, datum.height, datum.width, datum.label) == (3, 2, 4, 7)
    assert datum.data == pixels.tobytes()
    assert datum.HasField("encoded")
    assert not datum.encoded


def test_an_encoded_datum_has_the_file_and_no_shape() -> None:
    datum = Datum.FromString(encoded_datum(b"file", 5))
    assert (datum.data, datum.label, datum.encoded) == (b"file", 5, True)
    assert not datum.HasField("height")


def test_only_a_colour_jpeg_of_the_right_size_is_kept_as_it_is() -> None:
    fitting = file_of(picture(16, 16))
    assert jpeg_of(fitting, decode(fitting), 16) == fitting
    for other in (
        file_of(picture(16, 17)),
        file_of(picture(16, 16, channels=1)),
        file_of(picture(16, 16), ".png"),
    ):
        made = jpeg_of(other, decode(other), 16)
        assert made != other
        assert made.startswith(b"\xff\xd8")
        unchanged = cv2.imdecode(np.frombuffer(made, np.uint8), cv2.IMREAD_UNCHANGED)
        assert unchanged.shape == (16, 16, 3)
