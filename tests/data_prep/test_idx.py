import gzip
import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from data_prep.idx import idx_shape, parse_idx, read_labelled_images, read_unpacked
from pycaffe_prune.errors import DataError

Write = Callable[[np.ndarray], bytes]
arrays = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=6))


@given(values=arrays, packed=st.booleans())
def test_reading_gives_back_what_was_written(
    idx_bytes: Write, values: np.ndarray, packed: bool
) -> None:
    content = idx_bytes(values)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "no-telling-name")
        path.write_bytes(gzip.compress(content) if packed else content)
        read = parse_idx(read_unpacked(path), "x")
        assert idx_shape(path) == values.shape
    assert read.dtype == np.uint8
    assert read.shape == values.shape
    assert np.array_equal(read, values)


@given(values=arrays, packed=st.booleans(), data=st.data())
def test_every_truncation_is_an_error(
    idx_bytes: Write, values: np.ndarray, packed: bool, data: st.DataObject
) -> None:
    content = idx_bytes(values)
    content = gzip.compress(content) if packed else content
    kept = data.draw(st.integers(0, len(content) - 1))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "cut")
        path.write_bytes(content[:kept])
        with pytest.raises(DataError):
            parse_idx(read_unpacked(path), "cut")


@given(values=arrays, extra=st.binary(min_size=1, max_size=9), packed=st.booleans())
def test_trailing_bytes_are_an_error(
    idx_bytes: Write, values: np.ndarray, extra: bytes, packed: bool
) -> None:
    content = idx_bytes(values) + extra
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "long")
        path.write_bytes(gzip.compress(content) if packed else content)
        with pytest.raises(DataError, match=f"{len(extra)} bytes too many"):
            parse_idx(read_unpacked(path), "long")


@pytest.mark.parametrize(
    "start", [b"\0\0\x0d\x01", b"\1\0\x08\1", b"\0\1\x08\1", b"\0\0\x08\0", b"<htm"]
)
def test_a_wrong_magic_number_is_told(start: bytes, tmp_path: Path) -> None:
    path = tmp_path / "wrong"
    path.write_bytes(start + bytes(8))
    with pytest.raises(DataError, match=f"0x{start.hex()}"):
        parse_idx(read_unpacked(path), str(path))
    with pytest.raises(DataError, match="wrong"):
        idx_shape(path)


def test_a_header_that_promises_the_impossible_is_an_error_not_an_allocation(
    tmp_path: Path,
) -> None:
    with pytest.raises(DataError, match="truncated"):
        parse_idx(b"\0\0\x08\x03" + b"\xff" * 12 + bytes(100), "huge")


@pytest.mark.parametrize(
    "shape", [(3690987525, 4294967167, 0), (5, 0, *[4294967295] * 16), (1,) * 70]
)
def test_dimensions_in_which_nothing_can_lie_are_an_error(shape: tuple[int, ...]) -> None:
    header = bytes((0, 0, 8, len(shape))) + b"".join(size.to_bytes(4, "big") for size in shape)
    content = header + bytes(math.prod(shape))
    with pytest.raises(DataError, match="in which no images lie"):
        parse_idx(content, "x")


def test_damaged_gzip_and_missing_files_name_the_file(tmp_path: Path, idx_bytes: Write) -> None:
    packed = bytearray(gzip.compress(idx_bytes(np.arange(200, dtype=np.uint8))))
    packed[-6] ^= 1  # its checksum
    (tmp_path / "damaged").write_bytes(packed)
    with pytest.raises(DataError, match="damaged"):
        read_unpacked(tmp_path / "damaged")
    (tmp_path / "empty").touch()
    with pytest.raises(DataError, match="empty: truncated"):
        parse_idx(read_unpacked(tmp_path / "empty"), str(tmp_path / "empty"))
    with pytest.raises(DataError, match="absent"):
        read_unpacked(tmp_path / "absent")
    with pytest.raises(DataError, match="absent"):
        idx_shape(tmp_path / "absent")


def test_images_and_labels_must_belong_together(tmp_path: Path, idx_bytes: Write) -> None:
    def put(name: str, *shape: int) -> Path:
        (tmp_path / name).write_bytes(idx_bytes(np.zeros(shape, np.uint8)))
        return tmp_path / name

    three, images, labels = put("3", 3), put("images", 4, 2, 2), put("labels", 4)
    pixels, classes = read_labelled_images(images, labels)
    assert (pixels.shape, classes.shape) == ((4, 2, 2), (4,))
    with pytest.raises(DataError, match=r"4 images but .* 3 labels"):
        read_labelled_images(images, three)
    with pytest.raises(DataError, match="not count×height×width"):
        read_labelled_images(labels, labels)
    with pytest.raises(DataError, match="not one label an image"):
        read_labelled_images(images, images)
