"""LMDBs for tests, under their own name at once."""

from collections.abc import Callable, Iterable
from pathlib import Path

from data_prep.lmdb_writer import Batch, StagedLmdb, staged_lmdb


def write_lmdb(
    target: Path,
    batches: Iterable[Batch],
    *,
    count: int,
    shape: tuple[int, int, int],
    on_progress: Callable[[int], None] | None = None,
) -> StagedLmdb:
    with staged_lmdb(target, batches, count=count, shape=shape, on_progress=on_progress) as staged:
        staged.publish()
        return staged
