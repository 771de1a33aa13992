"""Data of strangers that was made to harm: each costs one sentence."""

import gzip
import io
import os
import shutil
import struct
import tarfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_prep.idx import read_labelled_images
from data_prep.image_files import find_images
from data_prep.lmdb_writer import lmdb_content_checksum, lmdb_count
from data_prep.warp import decode
from pycaffe_prune.errors import DataError
from pycaffe_prune.formats.caffe_pb2 import Datum
from pycaffe_prune.formats.datum import decode_datum, read_image
from pycaffe_prune.formats.limits import LIMIT_VARIABLE

HOSTILE = Path(__file__).parents[1] / "cases/hostile"


def test_an_lmdb_at_which_the_library_crashes_is_one_sentence(tmp_path: Path) -> None:
    shutil.copy(HOSTILE / "lmdb/crash7.mdb", tmp_path / "data.mdb")
    with pytest.raises(DataError, match=f"^{tmp_path}: cannot be read as an LMDB"):
        lmdb_content_checksum(tmp_path)
    os.truncate(tmp_path / "data.mdb", 20_000)
    with pytest.raises(DataError, match=r"truncated: data\.mdb has 20000 bytes"):
        lmdb_count(tmp_path)


def test_gzip_is_not_unpacked_beyond_what_its_header_promises(tmp_path: Path) -> None:
    labels = tmp_path / "labels"
    labels.write_bytes(struct.pack(">II", 0x801, 1) + b"\1")
    images = tmp_path / "images"
    images.write_bytes(gzip.compress(struct.pack(">IIII", 0x803, 1, 2, 2) + bytes(64 << 20), 1))
    with pytest.raises(DataError, match=r"images: .* bytes too many"):
        read_labelled_images(images, labels)
    images.write_bytes(gzip.compress(struct.pack(">IIII", 0x803, 2**31, 28, 28)))
    with pytest.raises(DataError, match="images: unpacks to more than 768 MiB"):
        read_labelled_images(images, labels)


def test_an_archive_is_not_unpacked_beyond_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LIMIT_VARIABLE, "1")
    (tmp_path / "a.tgz").write_bytes(gzip.compress(bytes(20 << 20), 1))
    with pytest.raises(DataError, match=r"a\.tgz: unpacks to more than 1 MiB"):
        find_images(tmp_path / "a.tgz", tmp_path / "scratch")
    assert (tmp_path / "scratch").stat().st_size <= 1 << 20


def test_members_of_an_archive_with_paths_are_read_in_place(tmp_path: Path) -> None:
    found = find_images(HOSTILE / "tar/dotdot.tar", tmp_path / "scratch")
    assert all(file.path == HOSTILE / "tar/dotdot.tar" and file.read() for file in found.values())
    assert list(tmp_path.iterdir()) == []


def png(height: int, width: int) -> bytes:
    """A PNG that says a size and has few pixels."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )


@pytest.mark.parametrize("case", ["too many pixels", "a false length"])
def test_an_image_that_asks_for_much_memory_is_damaged(tmp_path: Path, case: str) -> None:
    if case == "a false length":
        whole = cv2.imencode(".png", np.zeros((9, 7, 3), np.uint8))[1].tobytes()
        assert decode(whole).shape == (9, 7, 3)
        place = whole.index(b"IDAT") - 4
        content = whole[:place] + b"\xff\xff\x00\xd1" + whole[place + 4 :]
    else:
        content = png(30_000, 30_000)
    (tmp_path / "a.png").write_bytes(content)
    assert read_image(tmp_path / "a.png") is None
    with pytest.raises(DataError, match="no image"):
        decode(content)
    with pytest.raises(DataError, match="record is encoded, but is no image of bytes"):
        decode_datum(Datum(data=content, encoded=True).SerializeToString(), "record")


def test_a_member_that_leads_out_of_its_archive_is_told(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        info = tarfile.TarInfo("image_00001.jpg")
        info.size = 100
        archive.addfile(info, io.BytesIO(bytes(100)))
    (tmp_path / "a.tar").write_bytes(stream.getvalue()[:560])
    with pytest.raises(DataError, match=r"a\.tar: "):
        find_images(tmp_path / "a.tar", tmp_path / "scratch")
