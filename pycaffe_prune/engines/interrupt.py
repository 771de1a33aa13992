"""Ctrl-C and SIGTERM ask for a snapshot and an end instead of tearing a run down."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["stop_on_signal"]


@contextmanager
def stop_on_signal(stop: Callable[[], None]) -> Iterator[None]:
    """Call ``stop`` at the first SIGINT or SIGTERM; a second one has its usual effect.

    Only the main thread may use it (Python delivers signals there).
    """
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def ask(number: int, frame: object) -> None:  # noqa: ARG001  (signal's signature)
        restore()
        stop()

    for number in previous:
        signal.signal(number, ask)
    try:
        yield
    finally:
        restore()
