import os
import shutil
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest

from data_prep.lmdb_writer import lmdb_content_checksum
from pycaffe_prune.engines import contents
from pycaffe_prune.engines.contents import NOTES_ENDING, file_contents, lmdb_content
from pycaffe_prune.errors import DataError
from pycaffe_prune.formats.caffe_pb2 import Datum

HOUR_NS = 3600 * 10**9


def write_lmdb(folder: Path, data: list[Datum], map_size: int = 2**24) -> Path:
    with (
        lmdb.open(str(folder), map_size=map_size) as environment,
        environment.begin(write=True) as transaction,
    ):
        for number, datum in enumerate(data):
            transaction.put(b"%08d" % number, datum.SerializeToString())
    return folder


def grey(label: int) -> Datum:
    return Datum(channels=1, height=2, width=2, data=bytes(range(4)), label=label)


def settle(path: Path) -> None:
    """Let a file look as if it was written long ago."""
    then = path.stat().st_mtime_ns - HOUR_NS
    os.utime(path, ns=(then, then))


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a change of a moment ago for an old one."""
    monkeypatch.setattr(contents, "_UNSETTLED_NS", -1)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The LMDBs that are read from here on."""
    found, read = [], contents._read_lmdb
    monkeypatch.setattr(
        contents, "_read_lmdb", lambda folder: (found.append(folder), read(folder))[1]
    )
    return found


def test_equal_records_have_one_checksum_whatever_wrote_them(tmp_path: Path) -> None:
    one = write_lmdb(tmp_path / "one", [grey(0), grey(1)])
    other = write_lmdb(tmp_path / "other", [grey(5)])
    write_lmdb(other, [grey(0), grey(1)])  # in other pages than those of the first
    assert (one / "data.mdb").read_bytes() != (other / "data.mdb").read_bytes()
    assert lmdb_content(one) == lmdb_content(other)
    shutil.copytree(one, tmp_path / "copy")
    assert lmdb_content(tmp_path / "copy") == lmdb_content(one)
    assert lmdb_content(one).sha256 == lmdb_content_checksum(one)


def test_a_corrected_label_is_another_content(tmp_path: Path, settled: None) -> None:
    folder = write_lmdb(tmp_path / "lmdb", [grey(0), grey(1)])
    before = lmdb_content(folder)
    assert (before.records, before.labels) == (2, (0, 1))
    write_lmdb(folder, [grey(0), grey(2)])
    after = lmdb_content(folder)
    assert (after.records, after.labels) == (2, (0, 2))
    assert after.sha256 != before.sha256


def test_an_lmdb_is_read_once_and_again_when_it_was_touched(
    tmp_path: Path, settled: None, reads: list[Path]
) -> None:
    folder = write_lmdb(tmp_path / "lmdb", [grey(0)])
    first = lmdb_content(folder)
    assert lmdb_content(folder) == first
    assert reads == [folder]
    settle(folder / "data.mdb")
    assert lmdb_content(folder) == first
    assert reads == [folder, folder]


def test_what_changed_a_moment_ago_is_not_kept(tmp_path: Path, reads: list[Path]) -> None:
    folder = write_lmdb(tmp_path / "lmdb", [grey(0)])
    lmdb_content(folder)
    assert not (folder / NOTES_ENDING).exists()
    lmdb_content(folder)
    assert len(reads) == 2


def test_notes_go_to_the_cache_where_the_folder_cannot_be_written_to(
    tmp_path: Path, settled: None, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYCAFFE_PRUNE_CACHE", str(tmp_path / "cache"))
    folder = write_lmdb(tmp_path / "lmdb", [grey(0)])
    (folder / NOTES_ENDING).mkdir()  # as good as a folder of read-only media, for root too
    assert lmdb_content(folder) == lmdb_content(folder)
    assert len(reads) == 1
    assert list((tmp_path / "cache" / "contents").iterdir())


def test_damaged_notes_are_made_anew(tmp_path: Path, settled: None, reads: list[Path]) -> None:
    folder = write_lmdb(tmp_path / "lmdb", [grey(0)])
    first = lmdb_content(folder)
    (folder / NOTES_ENDING).write_text("{")
    assert lmdb_content(folder) == first == lmdb_content(folder)
    assert len(reads) == 2


@pytest.mark.parametrize("ending", [".png", ".jpg"])
def test_channels_of_encoded_images_are_those_that_opencv_decodes(
    tmp_path: Path, ending: str
) -> None:
    images = [np.full(shape, 7, np.uint8) for shape in ((4, 5, 3), (4, 5))]
    data = [
        Datum(encoded=True, data=cv2.imencode(ending, image)[1].tobytes(), label=label)
        for label, image in enumerate(images)
    ]
    found = lmdb_content(write_lmdb(tmp_path / "lmdb", data))
    assert (found.pixels, found.encoded) == ((), ((3, "00000000"), (1, "00000001")))


def test_files_are_read_again_only_where_they_changed(tmp_path: Path, settled: None) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        path.write_text(path.name)
    before = file_contents([*paths, paths[0]], tmp_path / "list.txt")
    paths[1].write_text("c")
    after = file_contents(paths, tmp_path / "list.txt")
    assert [before[path] == after[path] for path in paths] == [True, False]
    paths[0].unlink()
    with pytest.raises(DataError, match=r"list\.txt: names the file .*/a, which cannot be read"):
        file_contents(paths, tmp_path / "list.txt")


def test_reading_much_is_said_once(
    tmp_path: Path, settled: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_lmdb(tmp_path / "lmdb", [grey(0)])
    monkeypatch.setattr(contents, "_MUCH", (folder / "data.mdb").stat().st_size - 1)
    for _ in range(2):
        lmdb_content(folder)
    assert [f"{folder}: 0.0 GB are read once" in text for text in caplog.messages] == [True]


def test_what_is_no_lmdb_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read as an LMDB"):
        lmdb_content(tmp_path)
    (tmp_path / "data.mdb").write_bytes(b"no lmdb" * 5000)
    with pytest.raises(DataError, match="cannot be read as an LMDB"):
        lmdb_content(tmp_path)
