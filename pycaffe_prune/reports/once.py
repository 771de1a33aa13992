"""What every part of a report asks of a result is worked out once."""

import weakref
from collections.abc import Callable
from functools import wraps
from typing import TypeVar

from pycaffe_prune.experiments.result import ExperimentResult

__all__ = ["once"]

_T = TypeVar("_T")


def once(found_in: Callable[[ExperimentResult], _T]) -> Callable[[ExperimentResult], _T]:
    """Keep what a function finds in a result as long as that result is there.

    Results cannot be hashed, and are never changed; whoever gets a value must not change it either.
    """
    kept: dict[int, tuple[weakref.ref[ExperimentResult], _T]] = {}

    @wraps(found_in)
    def kept_or_found(result: ExperimentResult) -> _T:
        place = id(result)
        if place not in kept or kept[place][0]() is not result:
            value = found_in(result)
            kept[place] = weakref.ref(result, lambda _: kept.pop(place, None)), value
        return kept[place][1]

    return kept_or_found
