from collections.abc import Sequence
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycaffe_prune.errors import DataError, SurgeryError
from pycaffe_prune.formats.caffe_pb2 import Datum
from pycaffe_prune.formats.lmdb_images import as_data_layer, stored_images

PIXELS = np.random.default_rng(1).integers(0, 256, (3, 5, 4), np.uint8)


def write_lmdb(folder: Path, records: Sequence[bytes]) -> Path:
    with lmdb.open(str(folder)) as environment, environment.begin(write=True) as transaction:
        for place, record in enumerate(records):
            transaction.put(b"%08d" % place, record)
    return folder


def datum(label: int = 0, **fields: object) -> bytes:
    shape = dict(zip(("channels", "height", "width"), PIXELS.shape, strict=True))
    return Datum(**{**shape, "label": label, **fields}).SerializeToString()  # type: ignore[arg-type]


def test_bytes_floats_and_coded_images_come_back(tmp_path: Path) -> None:
    floats = PIXELS / np.float32(3)
    coded = cv2.imencode(".png", PIXELS.transpose(1, 2, 0))[1].tobytes()
    grey = cv2.imencode(".png", PIXELS[0])[1].tobytes()
    records = [
        datum(4, data=PIXELS.tobytes()),
        datum(5, float_data=floats.ravel().tolist()),
        datum(6, data=coded, encoded=True),
        datum(7, data=grey, encoded=True),
    ]
    found = list(stored_images(write_lmdb(tmp_path / "l", records)))
    assert [image.label for image in found] == [4, 5, 6, 7]
    for image, wanted in zip(found, [PIXELS, floats, PIXELS, PIXELS[:1]], strict=True):
        assert image.pixels.dtype == wanted.dtype
        np.testing.assert_array_equal(image.pixels, wanted)


@given(first=st.integers(0, 9))
def test_records_are_passed_over(tmp_path_factory: pytest.TempPathFactory, first: int) -> None:
    folder = tmp_path_factory.mktemp("lmdb")
    write_lmdb(folder, [datum(label, data=PIXELS.tobytes()) for label in range(7)])
    assert [image.label for image in stored_images(folder, first)] == list(range(first, 7))


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (b"\xff", "is not a Datum"),
        (datum(), "an image of 3x5x4 with 0 values"),
        (datum(data=bytes(7)), "an image of 3x5x4 with 7 values"),
        (datum(data=b"none", encoded=True), "is no image of bytes"),
        (datum(encoded=True), "is no image of bytes"),
        (Datum(channels=0, height=5, width=4).SerializeToString(), "an image of 0x5x4"),
    ],
)
def test_a_damaged_record_is_refused_by_its_name(tmp_path: Path, record: bytes, words: str) -> None:
    with pytest.raises(DataError, match=f"record b'00000000' .*{words}"):
        list(stored_images(write_lmdb(tmp_path / "l", [record])))


def test_no_lmdb_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read as an LMDB"):
        list(stored_images(tmp_path / "none"))


def test_a_value_a_channel_is_the_same_as_an_image_of_it() -> None:
    values = np.array([3, 4, 5], np.float32).reshape(3, 1, 1)
    image = np.broadcast_to(values, PIXELS.shape).astype(np.float32)
    found = as_data_layer(PIXELS, (1, 3, 2, 3), mean=values, scale=0.5)
    np.testing.assert_array_equal(found, (PIXELS[:, 1:3, 0:3] - values) * np.float32(0.5))
    np.testing.assert_array_equal(found, as_data_layer(PIXELS, (1, 3, 2, 3), mean=image, scale=0.5))


@pytest.mark.parametrize(
    ("shape", "mean", "words"),
    [
        ((1, 3, 6, 4), (3, 1, 1), "data blob is 1x3x6x4"),
        ((1, 1, 5, 4), (3, 1, 1), "data blob is 1x1x5x4"),
        ((1, 60), (3, 1, 1), "data blob is 1x60"),
        (None, (1, 1, 1), "the mean is 1x1x1"),
        (None, (3, 5, 5), "the mean is 3x5x5"),
    ],
)
def test_what_does_not_fit_is_refused(
    shape: tuple[int, ...] | None, mean: tuple[int, ...], words: str
) -> None:
    with pytest.raises(SurgeryError, match=words):
        as_data_layer(PIXELS, shape, mean=np.zeros(mean, np.float32))
