"""Files on their way: locked while their writer lives, removed by the next one after a kill."""

import fcntl
import os
import re
import struct
import tempfile
from contextlib import suppress
from pathlib import Path

__all__ = ["new_unfinished", "remove_abandoned"]

_NAME = re.compile(r"\..*\.partial-[a-z0-9_]{8}(\..*)?")
_LOCK = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
_tidied: set[Path] = set()


def new_unfinished(path: Path) -> tuple[int, Path]:
    """Make an empty file beside ``path``, of its ending, that others leave alone.

    Returns:
        The descriptor to close when the file is no longer to be guarded, and the file.

    Raises:
        OSError: The folder cannot be written to.
    """
    while True:
        handle, name = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.stem}.partial-", suffix=path.suffix
        )
        # Where files cannot be locked, `remove_abandoned` cannot either, and removes none.
        with suppress(OSError):
            _lock(handle)
        if Path(name).exists():
            return handle, Path(name)
        os.close(handle)  # somebody tidied up between its making and its lock


def remove_abandoned(folder: Path) -> None:
    """Remove what killed processes were writing into a folder; looked for once in a process."""
    if folder in _tidied:
        return
    _tidied.add(folder)
    with suppress(OSError):
        for entry in os.scandir(folder):
            if _NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                _remove_if_abandoned(Path(entry.path))


def _remove_if_abandoned(path: Path) -> None:
    with suppress(OSError):  # its writer holds it, or was quicker
        handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        try:
            _lock(handle)
            path.unlink()
        finally:
            os.close(handle)


def _lock(handle: int) -> None:
    """Lock a file by its open description.

    Not by flock, which HDF5 uses on the same file, nor by lockf, whose locks end when the process
    closes any descriptor of the file.
    """
    fcntl.fcntl(handle, fcntl.F_OFD_SETLK, _LOCK)
