"""Temporary folders: locked while their process lives, removed by the next one after a kill."""

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["temporary_folder"]

_PREFIX = "caffe-prune-work-"  # older versions' folders, caffe-prune-…, have no locks
_NAME = re.compile(rf"{_PREFIX}[a-z0-9_]{{8}}")
_tidied: set[Path] = set()


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Give an empty folder below ``$TMPDIR``, which is removed at the end.

    Those of this user whose processes were killed are removed before. A process is known to live by
    its lock on the folder, which ends with it, wherever it runs and whatever its number was.

    Raises:
        OSError: There is no room for temporary files.
    """
    place = Path(tempfile.gettempdir())
    if place not in _tidied:
        _tidied.add(place)
        _remove_abandoned(place)
    handle, folder = _locked_folder()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def _locked_folder() -> tuple[int, Path]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        with suppress(FileNotFoundError):
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            # Where folders cannot be locked, `_remove_abandoned` cannot either, and removes none.
            with suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_EX)
            if folder.exists():
                return handle, folder
            os.close(handle)
        # Somebody tidied up between its making and its lock: again.


def _remove_abandoned(place: Path) -> None:
    with suppress(OSError):
        for entry in os.scandir(place):
            if _NAME.fullmatch(entry.name):
                _remove_if_abandoned(Path(entry.path))


def _remove_if_abandoned(folder: Path) -> None:
    with suppress(OSError):  # its process holds it, it is no folder, or somebody was quicker
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            if os.fstat(handle).st_uid == os.getuid():
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(handle)
