"""One thread of BLAS while stages run side by side in this process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import ThreadpoolController

__all__ = ["one_blas_thread"]


class _Users:
    """Who is inside; the first one in sets the limit, the last one out lifts it."""

    def __init__(self) -> None:
        self._lock, self._count = threading.Lock(), 0

    def enter(self) -> None:
        with self._lock:
            if not self._count:
                self._limit = ThreadpoolController().limit(limits=1, user_api="blas")
            self._count += 1

    def leave(self) -> None:
        with self._lock:
            self._count -= 1
            if not self._count:
                self._limit.restore_original_limits()


_users = _Users()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Keep NumPy's BLAS to one thread; may be entered by several threads at once.

    Stages share the cores already. And files of strangers are read in forked children
    (`formats.confined`): OpenBLAS ends its threads at each fork, and a product that another thread
    has given to them then never ends.
    """
    _users.enter()
    try:
        yield
    finally:
        _users.leave()
