"""Python's collector of cycles, and work for which it is worth nothing."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["without_collector"]


@contextmanager
def without_collector() -> Iterator[None]:
    """Let the collector of cycles rest.

    It walks through all objects again and again while they grow in number. Where millions are made
    that stay to the end, and hardly a cycle, that is a quarter of the time and finds nothing.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
