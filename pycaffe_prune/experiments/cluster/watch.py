"""What a sweep on a Dask cluster waits for, in sentences; and no other words of Dask's own."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from distributed import Client

__all__ = ["Patience", "quiet_dask", "telling_lack_of_workers"]

_FIRST_SECONDS = 10
_AGAIN_SECONDS = 60
_LOOK_SECONDS = 1.0
_TALKATIVE = ("distributed", "tornado", "asyncio")


class Patience:
    """Says what is lacking: when it has been for 10 seconds, and again each minute.

    Args:
        say: Called with a sentence.
        clock: Gives seconds.
    """

    def __init__(
        self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._say, self._clock = say, clock
        self._since: float | None = None
        self._next = float(_FIRST_SECONDS)

    def look(self, lack: str | None) -> None:
        """Tell what is lacking now; None: nothing."""
        now = self._clock()
        if lack is None:
            self._since = None
            return
        if self._since is None:
            self._since, self._next = now, float(_FIRST_SECONDS)
        waited = now - self._since
        if waited >= self._next:
            self._next += _AGAIN_SECONDS
            self._say(f"{lack} for {_told(waited)}")


def _told(seconds: float) -> str:
    minutes = int(seconds // 60)
    if minutes:
        return f"{minutes} minute{'s' if minutes > 1 else ''}"
    return f"{int(seconds)} seconds"


@contextmanager
def telling_lack_of_workers(
    client: Client, address: str, say: Callable[[str], None]
) -> Iterator[None]:
    """Say, while the body runs, that a cluster has no worker."""
    ended, patience = threading.Event(), Patience(say)
    lack = f"{address}: the sweep waits for a worker; there has been none"

    def watch() -> None:
        while not ended.wait(_LOOK_SECONDS):
            # Without a scheduler the body ends, and says so itself.
            with suppress(OSError, RuntimeError):
                if client.status == "running":
                    patience.look(None if client.scheduler_info(-1)["workers"] else lack)

    # Nobody waits for it: what it asks of a scheduler that is gone is answered late.
    threading.Thread(target=watch, name="workers", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


@contextmanager
def quiet_dask() -> Iterator[None]:
    """Keep what Dask logs, with tracebacks, from the terminal: what matters of it is raised."""
    names = [
        name for name in logging.root.manager.loggerDict if name.partition(".")[0] in _TALKATIVE
    ]
    before = {name: logging.getLogger(name).level for name in (*names, *_TALKATIVE)}
    for name in before:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
