"""LMDBs of Datum messages, as Caffe's Data layer reads them; whole ones or none."""

import errno
import functools
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import lmdb
import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.errors import DataError
from pycaffe_prune.formats.caffe_pb2 import Datum
from pycaffe_prune.formats.files import fsync_directory
from pycaffe_prune.formats.lmdb_file import LmdbFile

__all__ = [
    "Batch",
    "Record",
    "StagedLmdb",
    "lmdb_content_checksum",
    "lmdb_count",
    "staged_lmdb",
]

_MEBIBYTE = 2**20
_MOST_UNSYNCED = 64 * _MEBIBYTE
_FLOAT_BYTES = 5  # of one value of float_data, which is not packed: each has its tag
_MOST_RECORDS = 10**8  # keys have eight digits: more would no longer sort in file order

# py-lmdb 3 can also write the data format of LMDB 1.0, which no Caffe can read.
_create = (
    functools.partial(lmdb.open, lib_version=0)
    if hasattr(lmdb.Environment, "lib_version")
    else lmdb.open
)


Record = tuple[bytes, bytes]
"""A key of an LMDB, and its value: a Datum message."""


@dataclass(frozen=True)
class Batch:
    """Some labelled images, in the order in which they are to be stored.

    Attributes:
        images: Count × channels × height × width; colour channels in the order B, G, R. uint8, or
            float32 (features, say), which become ``float_data``.
        labels: Whole numbers from 0, one an image.
        records: What is stored of each image, in the order of the keys, where that is not the
            images themselves under the keys ``00000000``, ``00000001``, …
        left_out: Names of images that were announced and are not here.
    """

    images: NDArray[np.uint8] | NDArray[np.float32]
    labels: NDArray[np.integer]
    records: Sequence[Record] | None = None
    left_out: Sequence[str] = ()


@dataclass(frozen=True)
class StagedLmdb:
    """A complete and durable LMDB that still has a temporary name.

    Attributes:
        target: The folder it is to become.
        folder: Where it is now.
        count: Its records.
        sha256: Over key and value of each record, in key order (see `lmdb_content_checksum`).
    """

    target: Path
    folder: Path
    count: int
    sha256: str

    def publish(self) -> None:
        """Give the LMDB its name, in place of one that may be there.

        Raises:
            DataError: The file system refuses.
        """
        retired = self.folder.with_name(self.folder.name + "-old")
        try:
            if self.target.exists():
                self.target.rename(retired)
            self.folder.rename(self.target)
            fsync_directory(self.target.parent)
            if retired.exists():
                shutil.rmtree(retired)
        except OSError as error:
            raise DataError(_sentence(self.target, error)) from error


@contextmanager
def staged_lmdb(
    target: Path,
    batches: Iterable[Batch],
    *,
    count: int,
    shape: tuple[int, int, int],
    file_bytes: int = 0,
    on_progress: Callable[[int], None] | None = None,
) -> Iterator[StagedLmdb]:
    """Build an LMDB beside ``target`` and hand it over to be published, or to be thrown away.

    Each batch is one transaction. The map size follows from ``count`` and ``shape``. Leftovers of
    earlier, killed builds of ``target`` are removed, so no two builds of it may run at once.

    Args:
        target: The folder to be made. Its parent is made when missing.
        batches: The images, in the order of their keys.
        count: How many images the batches hold together, with those that they leave out.
        shape: Channels, height and width of every image.
        file_bytes: Bytes of all image files that may be stored as they are.
        on_progress: Called after each batch with the number of images dealt with so far.

    Yields:
        The LMDB under a temporary name. What is not published by the end of the block is removed.

    Raises:
        DataError: The batches do not hold what was announced, or the LMDB cannot be written (the
            disk is full, say); nothing is left behind.
    """
    folder = target.with_name(f".{target.name}.partial-{os.getpid()}-{secrets.token_hex(4)}")
    if not 0 < count <= _MOST_RECORDS:
        raise DataError(f"{target}: an LMDB of {count} images cannot be made")
    try:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _remove_leftovers(target)
            folder.mkdir()
            map_size = _map_size(count, shape) + 2 * file_bytes
            written, sha256 = _fill(folder, target, batches, count, shape, map_size, on_progress)
            fsync_directory(folder)
        except (lmdb.Error, OSError) as error:
            raise DataError(_sentence(target, error)) from error
        yield StagedLmdb(target, folder, written, sha256)
    finally:
        # What cannot be removed now, the next build removes: it must not hide the first error.
        shutil.rmtree(folder, ignore_errors=True)


def lmdb_count(path: Path) -> int:
    """Return the number of records in an LMDB.

    Raises:
        DataError: There is no LMDB at ``path``, or it is truncated.
    """
    with LmdbFile(path) as database:
        return database.entries


def lmdb_content_checksum(path: Path) -> str:
    """Return the SHA-256 over key and value of each record in key order.

    Unlike a checksum of ``data.mdb`` it does not depend on page size or version of LMDB.

    Raises:
        DataError: There is no LMDB at ``path``, or it is truncated.
    """
    digest = hashlib.sha256()
    with LmdbFile(path) as database:
        for key, value in database.records():
            digest.update(key)
            digest.update(value)
    return digest.hexdigest()


def _fill(
    folder: Path,
    target: Path,
    batches: Iterable[Batch],
    count: int,
    shape: tuple[int, int, int],
    map_size: int,
    on_progress: Callable[[int], None] | None,
) -> tuple[int, str]:
    """Write all records into the new ``folder``, make them durable, return count and checksum."""
    digest = hashlib.sha256()
    written = left_out = unsynced = 0
    # Nobody else knows this folder yet: no lock, and no batch waits for a sync.
    coming = iter(batches)
    head = list(islice(coming, 1))
    width = _FLOAT_BYTES if head and head[0].images.dtype == np.float32 else 1
    environment = _create(
        str(folder), map_size=width * map_size, lock=False, sync=False, mode=0o644
    )
    syncer = ThreadPoolExecutor(1)
    syncs: list[Future[None]] = []
    try:
        for batch in chain(head, coming):
            _check(batch, target, shape, count - written - left_out)
            records = batch.records or list(_records(batch, written))
            with environment.begin(write=True) as transaction, transaction.cursor() as cursor:
                cursor.putmulti(records, append=True)
            for key, value in records:
                digest.update(key)
                digest.update(value)
                unsynced += len(value)
            if unsynced > _MOST_UNSYNCED:
                # So that the disk works while we do, not after us.
                syncs.append(syncer.submit(environment.sync, True))
                unsynced = 0
            written += len(batch.images)
            left_out += len(batch.left_out)
            if on_progress is not None:
                on_progress(written + left_out)
        if written + left_out != count:
            raise DataError(f"{target}: {count} images were announced, {written} came")
        if not written:
            raise DataError(f"{target}: none of its {count} images can be used")
        for sync in syncs:
            sync.result()
        environment.sync(True)
    finally:
        syncer.shutdown(cancel_futures=True)
        environment.close()
    return written, digest.hexdigest()


def _check(batch: Batch, target: Path, shape: tuple[int, int, int], room: int) -> None:
    if batch.images.dtype not in (np.uint8, np.float32) or batch.images.shape[1:] != shape:
        raise DataError(
            f"{target}: images of {batch.images.dtype} {batch.images.shape[1:]} do not fit into an "
            f"LMDB of uint8 or float32 {shape}"
        )
    if len(batch.images) != len(batch.labels):
        raise DataError(
            f"{target}: {len(batch.images)} images came with {len(batch.labels)} labels"
        )
    if batch.records is not None and len(batch.records) != len(batch.images):
        raise DataError(
            f"{target}: {len(batch.images)} images came with {len(batch.records)} records"
        )
    if len(batch.images) + len(batch.left_out) > room:
        raise DataError(f"{target}: more images came than were announced")


def _records(batch: Batch, first: int) -> Iterator[Record]:
    datums = _pixel_datums(batch) if batch.images.dtype == np.uint8 else _value_datums(batch)
    for offset, datum in enumerate(datums):
        yield b"%08d" % (first + offset), datum


def _pixel_datums(batch: Batch) -> Iterator[bytes]:
    """Yield Datum messages, put together of parts that protobuf has written once.

    Messages one after the other are one message with the fields of all; the pixels come between
    the shape and the label, where protobuf itself puts them.
    """
    channels, height, width = batch.images.shape[1:]
    size = channels * height * width
    blank = Datum(channels=channels, height=height, width=width, data=bytes(size))
    head = blank.SerializeToString()[:-size]
    labels = batch.labels.tolist()
    tails = {label: Datum(label=label).SerializeToString() for label in set(labels)}
    for image, label in zip(batch.images, labels, strict=True):
        yield b"".join((head, image.tobytes(), tails[label]))


def _value_datums(batch: Batch) -> Iterator[bytes]:
    channels, height, width = batch.images.shape[1:]
    for image, label in zip(batch.images, batch.labels.tolist(), strict=True):
        datum = Datum(channels=channels, height=height, width=width, label=label)
        datum.float_data.extend(image.ravel())
        yield datum.SerializeToString()


def _map_size(count: int, shape: tuple[int, int, int]) -> int:
    """Upper bound of the file's size in bytes.

    A record needs its pixels and less than 64 bytes for key, headers and the other fields. LMDB
    may leave up to half of a page empty, hence the factor; the rest is for the tree's inner pages.
    A JPEG that is made of the pixels fits too: its 1.5 values a pixel have 27 bits each at most.
    """
    channels, height, width = shape
    needed = 2 * count * (channels * height * width + 64) + 4 * _MEBIBYTE
    return -(-needed // _MEBIBYTE) * _MEBIBYTE


def _remove_leftovers(target: Path) -> None:
    for folder in target.parent.iterdir():
        if folder.name.startswith(f".{target.name}.partial-"):
            shutil.rmtree(folder)


def _sentence(target: Path, error: Exception) -> str:
    if _is_disk_full(target, error):
        return (
            f"{target}: the disk is full; the half-written LMDB was removed. "
            "Free some space and run the command again."
        )
    reason = getattr(error, "strerror", None) or error
    return f"{target}: this LMDB cannot be written ({reason})"


def _is_disk_full(target: Path, error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    if isinstance(error, lmdb.DiskError | lmdb.MapFullError):
        return True
    # A write that only partly fits is an input/output error to LMDB: look at the disk itself.
    return shutil.disk_usage(target.parent).free < _MEBIBYTE
