"""LMDBs for reading: each is open once in a process, however many of its threads read it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import lmdb

__all__ = ["opened_lmdb"]


@dataclass
class _Opened:
    environment: lmdb.Environment
    users: int = 0


_opened: dict[Path, _Opened] = {}
_opening = threading.Lock()


@contextmanager
def opened_lmdb(path: Path) -> Iterator[lmdb.Environment]:
    """Open the LMDB in the folder ``path``, or join those who have it open in this process.

    LMDB does not allow one process to open one file twice at the same time. No lock file is made,
    so that read-only media and other readers are fine.

    Raises:
        lmdb.Error: It is missing, damaged or truncated.
    """
    place = path.resolve()
    with _opening:
        if place not in _opened:
            _opened[place] = _Opened(_open(place))
        opened = _opened[place]
        opened.users += 1
    try:
        yield opened.environment
    finally:
        with _opening:
            opened.users -= 1
            if not opened.users:
                del _opened[place]
                opened.environment.close()


def _open(place: Path) -> lmdb.Environment:
    environment = lmdb.open(str(place), readonly=True, create=False, lock=False)
    # Reading a page past the end of a truncated file would kill the process (SIGBUS).
    needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    found = (place / "data.mdb").stat().st_size
    if found < needed:
        environment.close()
        raise lmdb.CorruptedError(f"data.mdb has {found} bytes, {needed} are needed")
    return environment
