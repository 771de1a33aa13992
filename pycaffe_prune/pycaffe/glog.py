"""What Caffe tells on standard error while it works, in the form of its log (glog).

Lines of the level INFO are numbered 0, warnings 1, errors 2; the least level is that of
``init_log``, before that of ``$GLOG_minloglevel``. Unlike glog this writes no files below ``/tmp``.
"""

import os
import sys
import threading
from datetime import datetime
from pathlib import Path

__all__ = ["error", "init_log", "log", "number"]

_INFO, _ERROR = 0, 2
_LETTERS = "IWE"


class _Level:
    """The least level that is told."""

    def __init__(self) -> None:
        told = os.environ.get("GLOG_minloglevel", "")  # noqa: SIM112 (glog's name)
        self.least = int(told) if told.isdecimal() else _INFO


_LEVEL = _Level()


def init_log(level: int = _INFO, stderr: bool = True) -> None:  # noqa: ARG001 (pycaffe's)
    """Tell lines of this level and above from now on.

    Args:
        level: 0 all, 1 warnings and errors, 2 errors.
        stderr: Told for pycaffe's sake: lines go to standard error anyway.
    """
    _LEVEL.least = level


def log(text: str) -> None:
    """Tell a line of the level INFO."""
    _tell(_INFO, text)


def error(text: str) -> None:
    """Tell a line of the level ERROR."""
    _tell(_ERROR, text)


def number(value: float) -> str:
    """Write a number as C++ does unless told otherwise: six digits."""
    return f"{value:g}"


def _tell(level: int, text: str) -> None:
    if level < _LEVEL.least:
        return
    caller = sys._getframe(2)
    place = f"{Path(caller.f_code.co_filename).name}:{caller.f_lineno}"
    when = datetime.now().astimezone().strftime("%m%d %H:%M:%S.%f")
    print(  # noqa: T201 (that is what a log is)
        f"{_LETTERS[level]}{when} {threading.get_native_id():>5} {place}] {text}", file=sys.stderr
    )
