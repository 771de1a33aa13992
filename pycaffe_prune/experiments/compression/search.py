"""Which of several settings is the strongest that is still good enough."""

from collections.abc import Callable, Sequence
from typing import TypeVar

__all__ = ["strongest"]

_Setting = TypeVar("_Setting")


def strongest(settings: Sequence[_Setting], is_good: Callable[[_Setting], bool]) -> _Setting | None:
    """Return the last setting that is good, where all before a good one are good too.

    It is found by halving, so that few are tried. Where that order does not hold, as with
    accuracies that are noisy, what is returned has been tried and is good all the same.

    Args:
        settings: From the mildest to the strongest.
        is_good: Tries one; asked at most once for each.

    Returns:
        None: none of those that were tried is good.
    """
    low, high = -1, len(settings)
    while high - low > 1:
        middle = (low + high) // 2
        if is_good(settings[middle]):
            low = middle
        else:
            high = middle
    return None if low < 0 else settings[low]
