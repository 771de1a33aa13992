"""How long a download may take, how slow it may be, and how much may come."""

import math
import os
from dataclasses import dataclass

from pycaffe_prune.errors import DataError

__all__ = ["SECONDS_VARIABLE", "SPEED_VARIABLE", "Limits", "limits"]

SPEED_VARIABLE = "PYCAFFE_PRUNE_DOWNLOAD_SPEED"
SECONDS_VARIABLE = "PYCAFFE_PRUNE_DOWNLOAD_SECONDS"
_SPEED = 2048.0
_SECONDS = 6 * 3600.0


@dataclass(frozen=True)
class Limits:
    """Of the download of one file."""

    most_bytes: int
    """More is refused, and what came is removed."""
    least_speed: float = _SPEED
    """Bytes a second; what is slower is given up, and the next mirror asked."""
    seconds: float = _SECONDS
    """For all mirrors together."""


def limits(most_bytes: int) -> Limits:
    """Return the limits as the environment has them: bytes a second, and seconds.

    Raises:
        DataError: A variable holds no positive number.
    """
    return Limits(most_bytes, _told(SPEED_VARIABLE, _SPEED), _told(SECONDS_VARIABLE, _SECONDS))


def _told(variable: str, usual: float) -> float:
    text = os.environ.get(variable)
    if not text:
        return usual
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (value > 0 and math.isfinite(value)):
        raise DataError(f"${variable} is '{text}', which is no number above 0")
    return value
