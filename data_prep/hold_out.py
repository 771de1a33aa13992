"""Images held out of a training LMDB, so that settings are not chosen on the test set."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from data_prep.lmdb_writer import Batch, Record, staged_lmdb
from pycaffe_prune.errors import DataError
from pycaffe_prune.formats.lmdb_file import LmdbFile

__all__ = ["hold_out"]

_AT_ONCE = 256


def hold_out(source: Path, training: Path, held_out: Path, images: int) -> None:
    """Copy an LMDB's records into two: some, evenly spread over it, and the others.

    Labels that lie one after another in ``source`` so have the same shares in both.

    Args:
        source: The LMDB.
        training: The one to be made of the records that stay.
        held_out: The one to be made of ``images`` records; made last.
        images: How many; at least one, and fewer than there are.

    Raises:
        DataError: ``source`` is missing, damaged or too small, or a copy cannot be written.
    """
    with LmdbFile(source) as database:
        there = database.entries
        if not 0 < images < there:
            raise DataError(f"{source}: {images:,} of its {there:,} images cannot be held out")
        most = (source / "data.mdb").stat().st_size
        for target, held, count in ((training, False, there - images), (held_out, True, images)):
            chosen = _chosen(database, images, held=held)
            with staged_lmdb(
                target, chosen, count=count, shape=(1, 1, 1), file_bytes=most
            ) as staged:
                staged.publish()


def _chosen(database: LmdbFile, images: int, *, held: bool) -> Iterator[Batch]:
    there = database.entries
    records: Iterator[Record] = (
        record
        for place, record in enumerate(database.records())
        if (place * images // there != (place + 1) * images // there) == held
    )
    while batch := list(islice(records, _AT_ONCE)):
        # Records are stored as they are; the images only tell how many these are.
        unseen = np.broadcast_to(np.uint8(0), (len(batch), 1, 1, 1))
        yield Batch(unseen, np.zeros(len(batch), np.int64), batch)
