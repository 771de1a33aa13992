"""Random numbers that depend on what they are for, never on what was drawn before."""

from enum import IntEnum

import numpy as np

__all__ = ["Purpose", "draws_for"]

_WORD = 2**64 - 1


class Purpose(IntEnum):
    """What random numbers are drawn for; no two purposes share their numbers."""

    CUT = 1
    ORDER = 2
    SKIP = 3
    FILL = 4


def draws_for(seed: int, purpose: Purpose, number: int, part: int = 0) -> np.random.Generator:
    """Return the generator of one batch or one pass over the data.

    Args:
        seed: The source's.
        purpose: What the numbers are for.
        number: Of the batch or of the pass.
        part: Of a top or a file, where each has numbers of its own.
    """
    place = [0, purpose, number & _WORD, part]  # the first word counts what is drawn
    return np.random.Generator(np.random.Philox(key=seed & _WORD, counter=place))
