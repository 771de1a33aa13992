"""How much a file of strangers may unpack to: told before anything is allocated."""

import os

from pycaffe_prune.errors import FormatError

__all__ = ["LIMIT_VARIABLE", "Budget", "most_unpacked"]

LIMIT_VARIABLE = "PYCAFFE_PRUNE_MOST_UNPACKED"
"""Environment variable that sets the limit, in MiB, in place of what `most_unpacked` finds."""

_MEBIBYTE = 1 << 20
_FLOOR = 768 * _MEBIBYTE  # VGG's weights have 548 MiB, and all of them may be zero
_RATIO = 16  # a sparse model has 5 bytes a value that is not zero: one in 13 of them


def most_unpacked(packed: int) -> int:
    """Return the bytes that the arrays of a file of ``packed`` bytes may take in memory.

    768 MiB, or sixteen times the file where that is more: weights of which one in thirteen is not
    zero. What packs better than that, and is larger, needs the environment variable.

    Raises:
        FormatError: The variable is set, and is no number.
    """
    told = os.environ.get(LIMIT_VARIABLE)
    if not told:
        return max(_FLOOR, _RATIO * packed)
    if not told.isdecimal() or not 0 < int(told) < 1 << 40:
        raise FormatError(f"{LIMIT_VARIABLE} is {told!r}; give a number of MiB")
    return int(told) * _MEBIBYTE


class Budget:
    """What is left of a file's limit while its arrays are made, one after the other.

    Args:
        packed: Size of the file, in bytes.
    """

    def __init__(self, packed: int) -> None:
        self._most = self._left = most_unpacked(packed)

    def spend(self, size: int) -> None:
        """Take ``size`` bytes out of the limit, before they are allocated.

        Raises:
            FormatError: So much is not left. The sentence lacks the file's name, which the caller
                adds.
        """
        self._left -= size
        if self._left < 0:
            raise FormatError(
                f"unpacks to more than {self._most // _MEBIBYTE} MiB; if the file is to be "
                f"trusted, set {LIMIT_VARIABLE} to more MiB"
            )
