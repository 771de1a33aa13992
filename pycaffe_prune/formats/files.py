"""Whole files or none: atomic writes, and checksums."""

import errno
import hashlib
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pycaffe_prune.errors import FormatError, PruneError
from pycaffe_prune.formats.unfinished import new_unfinished, remove_abandoned

__all__ = [
    "atomic_write",
    "existing_file",
    "fsync_directory",
    "holds_text",
    "sha256_of",
    "stands_for",
    "write_text",
]

_PAGES = (b"<!doctype html", b"<html")
_PACKED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!\x1a\x07": "rar",
    b"\x28\xb5\x2f\xfd": "zstd",
}


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on success fsync it and rename it to ``path``.

    When the body raises, the temporary file is removed and ``path`` keeps what it held. What killed
    processes left of theirs in the folder is removed.

    Args:
        path: The file to be replaced or made. Its folder is made when missing.

    Yields:
        The temporary path to write to (same folder, same ending, so the rename is atomic and
        writers that look at the ending are content).

    Raises:
        PruneError: The folder cannot be written to, or the disk is full.
    """
    temporary, guard = None, None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(path.parent)
        guard, temporary = new_unfinished(path)
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        fsync_directory(path.parent)
    except OSError as error:
        raise PruneError(_explain(path, error)) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        if guard is not None:
            os.close(guard)


def _umask() -> int:
    """The process's file mode mask, which mkstemp ignores (Linux tells it without changing it)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    return 0o022


def _explain(path: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{path}: the disk is full; nothing was written. Free some space and try again."
    if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return f"{path}: this folder cannot be written to; choose another one."
    return f"{path}: {error.strerror or error}"


def fsync_directory(folder: Path) -> None:
    """Make the names in ``folder`` durable, as a rename alone does not."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically (see `atomic_write`)."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def existing_file(path: Path, what: str) -> Path:
    """Return ``path`` if it is a file.

    Raises:
        FormatError: There is no such file, or it is not the file itself (`stands_for`); ``what``
            says what it should have been.
    """
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
    except OSError as error:  # the name is too long, or a folder on the way may not be searched
        raise FormatError(f"{path}: {error.strerror}; {what} is needed") from error
    if is_folder:
        raise FormatError(f"{path}: is a folder; {what} is needed")
    if not is_file:
        raise FormatError(f"{path}: no such file; {what} is needed")
    if stranger := stands_for(path):
        raise FormatError(f"{path}: {stranger}; {what} is needed")
    return path


def stands_for(path: Path) -> str | None:
    """Say what a file is that was saved in another's place: a Git LFS pointer, a page, an archive.

    Returns:
        What it is and what to do about it; None: it is none of these. A zip of arrays (``.npz``)
        is none.

    Raises:
        FormatError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror})") from error
    if start.startswith(b"version https://git-lfs.github.com/spec/"):
        return "is a Git LFS pointer, not the file itself; fetch that with `git lfs pull`"
    if start.removeprefix(b"\xef\xbb\xbf").lstrip()[:15].lower().startswith(_PAGES):
        return "is an HTML page, as servers send in a file's place; download the file again"
    if start[257:262] == b"ustar":
        return "is a tar archive; unpack it first"
    if start.startswith(b"PK\x03\x04") and not _holds_arrays(path):
        return "is a zip archive; unpack it first"
    for magic, kind in _PACKED.items():
        if start.startswith(magic):
            return f"is packed ({kind}); unpack it first"
    return None


def _holds_arrays(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(".npy") for name in archive.namelist())
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError):
        return True  # a damaged one: its reader says so


def holds_text(path: Path) -> bool:
    """Whether a file is a prototxt rather than weights: binary files have control characters."""
    with path.open("rb") as file:
        start = file.read(4096)
    return not any(byte < 32 and byte not in b"\t\n\r\f" for byte in start) and b"\x7f" not in start


def sha256_of(path: Path) -> str:
    """Return the file's SHA-256 as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
