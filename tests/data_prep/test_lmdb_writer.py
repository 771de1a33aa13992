import errno
import hashlib
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import lmdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from data_prep import lmdb_writer
from data_prep.lmdb_writer import (
    Batch,
    lmdb_content_checksum,
    lmdb_count,
    staged_lmdb,
)
from data_prep.mean import MeanImage
from pycaffe_prune.errors import DataError
from pycaffe_prune.formats.caffe_pb2 import Datum
from pycaffe_prune.formats.mean import write_mean
from tests.data_prep.lmdbs import write_lmdb

Shape = tuple[int, int, int]


def random_batch(count: int, shape: Shape, seed: int = 0) -> Batch:
    random = np.random.default_rng(seed)
    return Batch(
        random.integers(0, 256, (count, *shape), dtype=np.uint8), random.integers(0, 300, count)
    )


def cut(batch: Batch, size: int) -> Iterator[Batch]:
    for start in range(0, len(batch.images), size):
        yield Batch(batch.images[start : start + size], batch.labels[start : start + size])


def records(path: Path) -> list[tuple[bytes, bytes]]:
    with lmdb.open(str(path), readonly=True, lock=False) as environment, environment.begin() as txn:
        return list(txn.cursor())


@settings(max_examples=30, deadline=None)
@given(
    count=st.integers(1, 40),
    size=st.integers(1, 40),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 40)),
)
def test_records_come_back_in_order_with_everything_they_hold(
    count: int, size: int, shape: Shape
) -> None:
    batch = random_batch(count, shape)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "set_lmdb")
        written = write_lmdb(target, cut(batch, size), count=count, shape=shape)
        found = records(target)
        assert lmdb_count(target) == written.count == count
        assert lmdb_content_checksum(target) == written.sha256
        assert [path.name for path in Path(folder).iterdir()] == ["set_lmdb"]
    assert [key for key, _ in found] == [b"%08d" % index for index in range(count)]
    assert written.sha256 == hashlib.sha256(b"".join(k + v for k, v in found)).hexdigest()
    for (_, value), image, label in zip(found, batch.images, batch.labels, strict=True):
        datum = Datum.FromString(value)
        assert (datum.channels, datum.height, datum.width) == shape
        assert datum.data == image.tobytes()
        assert datum.label == label
        assert not datum.HasField("encoded")
        assert not datum.float_data


@pytest.mark.parametrize("pixels", [1, 1300, 1990, 2010, 2030, 4000, 4060, 4100, 8200, 200_000])
def test_the_map_is_large_enough_and_not_absurd(pixels: int, tmp_path: Path) -> None:
    count = 60 if pixels > 10_000 else 2000
    batch = random_batch(count, (1, 1, pixels))
    target = tmp_path / "set_lmdb"
    write_lmdb(target, cut(batch, 50), count=count, shape=(1, 1, pixels))
    with lmdb.open(str(target), readonly=True, lock=False, map_size=0) as environment:
        assert environment.info()["map_size"] < 3 * count * (pixels + 64) + 8 * 2**20
    assert lmdb_count(target) == count


def test_the_file_has_the_data_format_that_caffe_knows(tmp_path: Path) -> None:
    # py-lmdb 3 takes another format from this variable unless it is told which one to write.
    script = (
        "import sys, numpy as np; from pathlib import Path;"
        "from data_prep.lmdb_writer import Batch, staged_lmdb;"
        "b = Batch(np.zeros((2, 1, 2, 2), np.uint8), np.zeros(2, int))\n"
        "with staged_lmdb(Path(sys.argv[1]), [b], count=2, shape=(1, 2, 2)) as s: s.publish()"
    )
    subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "lmdb")],
        check=True,
        env=os.environ | {"LMDB_DEFAULT_LIB_VERSION": "1"},
    )
    head = (tmp_path / "lmdb" / "data.mdb").read_bytes()[:64]
    assert struct.unpack("=II", head[16:24]) == (0xBEEFC0DE, 1)


def test_progress_counts_up_to_the_end(tmp_path: Path) -> None:
    seen: list[int] = []
    batch = random_batch(10, (1, 2, 2))
    write_lmdb(tmp_path / "l", cut(batch, 4), count=10, shape=(1, 2, 2), on_progress=seen.append)
    assert seen == [4, 8, 10]


def test_publishing_replaces_an_older_lmdb_and_not_publishing_leaves_it(tmp_path: Path) -> None:
    target = tmp_path / "set_lmdb"
    old, new = random_batch(3, (1, 2, 2), 1), random_batch(5, (1, 2, 2), 2)
    write_lmdb(target, [old], count=3, shape=(1, 2, 2))
    with staged_lmdb(target, [new], count=5, shape=(1, 2, 2)) as staged:
        assert lmdb_count(staged.folder) == 5
    assert lmdb_count(target) == 3
    assert list(tmp_path.iterdir()) == [target]
    write_lmdb(target, [new], count=5, shape=(1, 2, 2))
    assert lmdb_count(target) == 5
    assert list(tmp_path.iterdir()) == [target]


def test_only_leftovers_of_the_same_target_are_removed(tmp_path: Path) -> None:
    stale, other = tmp_path / ".a.partial-1-00", tmp_path / ".b.partial-1-00"
    for folder in (stale, other):
        folder.mkdir()
        (folder / "data.mdb").touch()
    write_lmdb(tmp_path / "a", [random_batch(1, (1, 1, 1))], count=1, shape=(1, 1, 1))
    assert {path.name for path in tmp_path.iterdir()} == {"a", ".b.partial-1-00"}


def test_given_records_are_stored_as_they_are(tmp_path: Path) -> None:
    batch = random_batch(3, (1, 2, 2))
    kept = [(b"00000001_b", b"second"), (b"00000007_x", b""), (b"00000008_y", b"last")]
    given = Batch(batch.images, batch.labels, kept)
    written = write_lmdb(tmp_path / "l", [given], count=3, shape=(1, 2, 2))
    assert records(tmp_path / "l") == kept
    assert written.sha256 == hashlib.sha256(b"".join(k + v for k, v in kept)).hexdigest()


def test_what_is_left_out_is_dealt_with_but_not_stored(tmp_path: Path) -> None:
    seen: list[int] = []
    batch = random_batch(2, (1, 2, 2))
    batches = [
        Batch(batch.images, batch.labels, None, ["a", "b"]),
        Batch(batch.images[:0], batch.labels[:0], [], ["c"]),
    ]
    target = tmp_path / "l"
    written = write_lmdb(target, batches, count=5, shape=(1, 2, 2), on_progress=seen.append)
    assert (written.count, lmdb_count(target), seen) == (2, 2, [4, 5])


def test_syncing_on_the_way_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = random_batch(50, (1, 30, 30))
    first = write_lmdb(tmp_path / "a", cut(batch, 7), count=50, shape=(1, 30, 30))
    monkeypatch.setattr(lmdb_writer, "_MOST_UNSYNCED", 1)
    second = write_lmdb(tmp_path / "b", cut(batch, 7), count=50, shape=(1, 30, 30))
    assert first.sha256 == second.sha256 == lmdb_content_checksum(tmp_path / "b")


def failing(error: BaseException) -> Iterator[Batch]:
    yield random_batch(3, (1, 2, 2))
    raise error


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "no space"), OSError(errno.EDQUOT, ""), lmdb.DiskError("x")]
)
def test_a_full_disk_is_one_sentence_and_leaves_nothing(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"set_lmdb: the disk is full.*Free some space"):
        write_lmdb(tmp_path / "set_lmdb", failing(error), count=9, shape=(1, 2, 2))
    assert not list(tmp_path.iterdir())


def test_lmdbs_own_errors_become_data_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_small(count: int, shape: Shape) -> int:
        return 2**16

    monkeypatch.setattr(lmdb_writer, "_map_size", too_small)
    batch = random_batch(200, (1, 30, 30))
    with pytest.raises(DataError, match="disk is full") as caught:
        write_lmdb(tmp_path / "l", [batch], count=200, shape=(1, 30, 30))
    assert isinstance(caught.value.__cause__, lmdb.MapFullError)
    assert not list(tmp_path.iterdir())


def test_an_interrupt_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_lmdb(tmp_path / "l", failing(KeyboardInterrupt()), count=9, shape=(1, 2, 2))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("batches", "count", "words"),
    [
        ([random_batch(3, (1, 2, 2))], 4, "4 images were announced, 3 came"),
        ([random_batch(3, (1, 2, 2))] * 2, 5, "more images"),
        ([random_batch(3, (1, 2, 3))], 3, r"\(1, 2, 3\).*\(1, 2, 2\)"),
        ([Batch(np.zeros((2, 1, 2, 2), np.uint8), np.zeros(3, int))], 2, "3 labels"),
        ([Batch(np.zeros((1, 1, 2, 2), np.float64), np.zeros(1, int))], 1, "float64"),
        ([Batch(np.zeros((1, 1, 2, 2), np.uint8), np.zeros(1, int), [])], 1, "0 records"),
        ([Batch(np.zeros((0, 1, 2, 2), np.uint8), np.zeros(0, int), [], ["a"])], 1, "none of its"),
        ([Batch(np.zeros((1, 1, 2, 2), np.uint8), np.zeros(1, int), None, ["a"])], 1, "more"),
        ([], 0, "0 images"),
        ([], 10**8 + 1, "cannot be made"),
    ],
)
def test_what_was_not_announced_is_refused(
    batches: list[Batch], count: int, words: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=words):
        write_lmdb(tmp_path / "l", batches, count=count, shape=(1, 2, 2))
    assert not list(tmp_path.iterdir())


def test_a_parent_that_is_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be written"):
        write_lmdb(tmp_path / "file" / "l", [], count=1, shape=(1, 1, 1))


def test_reading_what_is_no_whole_lmdb_is_an_error(tmp_path: Path) -> None:
    target = tmp_path / "l"
    with pytest.raises(DataError, match="cannot be read"):
        lmdb_count(target)
    write_lmdb(target, [random_batch(50, (1, 20, 20))], count=50, shape=(1, 20, 20))
    os.truncate(target / "data.mdb", (target / "data.mdb").stat().st_size - 4096)
    for read in (lmdb_count, lmdb_content_checksum):
        with pytest.raises(DataError, match="truncated"):
            read(target)
    (target / "data.mdb").write_bytes(b"no LMDB at all" * 1000)
    with pytest.raises(DataError, match="cannot be read"):
        lmdb_count(target)


def test_the_checksum_sees_one_changed_bit(tmp_path: Path) -> None:
    batch = random_batch(5, (1, 4, 4))
    first = write_lmdb(tmp_path / "a", [batch], count=5, shape=(1, 4, 4)).sha256
    batch.images[3, 0, 2, 1] ^= 1
    second = write_lmdb(tmp_path / "b", [batch], count=5, shape=(1, 4, 4)).sha256
    assert first != second


NET = """
layer {{
  name: "data" type: "Data" top: "data" top: "label"
  data_param {{ source: "{source}" backend: LMDB batch_size: {batch} }}
  transform_param {{ {transform} }}
}}
"""


def delivered_by_caffe(
    caffe_python: Path, folder: Path, *, batch: int, forwards: int, transform: str, lmdb_path: Path
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    (folder / "net.prototxt").write_text(
        NET.format(source=lmdb_path, batch=batch, transform=transform)
    )
    subprocess.run(
        [
            str(caffe_python),
            str(Path(__file__).with_name("read_with_caffe.py")),
            str(folder / "net.prototxt"),
            str(folder / "out.npz"),
            str(forwards),
        ],
        check=True,
        timeout=120,
    )
    with np.load(folder / "out.npz") as found:
        return found["data"], found["label"]


@pytest.mark.real_caffe
def test_the_real_caffe_reads_every_image_in_order_and_wraps(
    tmp_path: Path, caffe_python: Path
) -> None:
    written = random_batch(37, (3, 9, 7))
    write_lmdb(tmp_path / "l", cut(written, 10), count=37, shape=(3, 9, 7))
    data, label = delivered_by_caffe(
        caffe_python,
        tmp_path,
        batch=10,
        forwards=9,
        transform="scale: 0.00390625",
        lmdb_path=tmp_path / "l",
    )
    order = np.arange(90) % 37
    assert np.array_equal(data * 256, written.images[order])
    assert np.array_equal(label, written.labels[order])


@pytest.mark.real_caffe
def test_the_real_caffe_subtracts_the_mean_that_we_wrote(
    tmp_path: Path, caffe_python: Path
) -> None:
    written = random_batch(12, (1, 5, 6))
    write_lmdb(tmp_path / "l", [written], count=12, shape=(1, 5, 6))
    mean = MeanImage((1, 5, 6))
    mean.add(written.images)
    write_mean(tmp_path / "mean.binaryproto", mean.value())
    data, _ = delivered_by_caffe(
        caffe_python,
        tmp_path,
        batch=12,
        forwards=1,
        transform=f'mean_file: "{tmp_path / "mean.binaryproto"}"',
        lmdb_path=tmp_path / "l",
    )
    assert np.array_equal(data, written.images - mean.value())


@settings(max_examples=10, deadline=None)
@given(shape=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)))
def test_floats_come_back_as_they_were(shape: Shape) -> None:
    images = np.random.default_rng(4).normal(0, 1e3, (7, *shape)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "l")
        write_lmdb(target, cut(Batch(images, np.arange(7)), 3), count=7, shape=shape)
        found = [Datum.FromString(value) for _, value in records(target)]
    assert [datum.label for datum in found] == list(range(7))
    assert not any(datum.data for datum in found)
    for datum, image in zip(found, images, strict=True):
        assert (datum.channels, datum.height, datum.width) == shape
        np.testing.assert_array_equal(np.array(datum.float_data, np.float32), image.ravel())
