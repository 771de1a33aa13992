"""One process at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from rich.console import Console

from pycaffe_prune.errors import DataError

__all__ = ["exclusive"]


@contextmanager
def exclusive(lock: Path, console: Console) -> Iterator[None]:
    """Hold a lock file; say so when another process has it, and wait for that one.

    The system frees the lock of a process that dies, however it dies.

    Raises:
        DataError: The lock file cannot be made.
    """
    guard = FileLock(lock)
    try:
        try:
            guard.acquire(timeout=0)
        except Timeout:
            console.print(
                f"waiting for another process that is at work in {lock.parent}",
                soft_wrap=True,
            )
            guard.acquire()
    except OSError as error:
        raise DataError(f"{lock.parent}: cannot be written to ({error.strerror})") from error
    try:
        yield
    finally:
        guard.release()
