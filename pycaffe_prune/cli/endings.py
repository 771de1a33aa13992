"""How a command ends: one sentence and an exit code, whatever was raised; never a traceback."""

import errno
import os
import platform
import shlex
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from io import StringIO
from pathlib import Path

import click

from pycaffe_prune import __version__
from pycaffe_prune.errors import InterruptedRunError, PruneError
from pycaffe_prune.screen import Screen, echo

__all__ = ["FAULT", "exit_code", "say_error"]

FAULT = 70
"""``EX_SOFTWARE`` of sysexits.h: the program itself is at fault."""
_INTERRUPTED = 130
_PACKAGES = (
    "numpy",
    "protobuf",
    "h5py",
    "pydantic",
    "click",
    "rich",
    "lmdb",
    "torch",
    "matplotlib",
)


def exit_code(command: Callable[[], object]) -> int:
    """Run a command of click's that is not in its standalone mode, and say how it ended.

    Returns:
        0 done, 1 an input, a run or the machine is at fault, 2 the command line is, 70 caffe-prune
        is (what is needed to mend it is in a file that the sentence names), 130 interrupted; or
        what the command itself returned.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by who called
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115
        elif hasattr(stream := getattr(sys, name), "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a sign that it lacks: its code
    try:
        code = command()
        sys.stdout.flush()
    except Exception as error:  # noqa: BLE001  (the last one that can say anything)
        return _said(error)
    except KeyboardInterrupt:
        return _interrupted("caffe-prune: interrupted")
    return code if isinstance(code, int) else 0


def say_error(error: Exception) -> None:
    """Say on standard error what is at fault."""
    _say(f"caffe-prune: {error}", "red")


def _said(error: Exception) -> int:
    match error:
        case click.exceptions.Exit():
            return error.exit_code
        case click.ClickException():
            told = StringIO()
            error.show(told)
            for line in told.getvalue().splitlines():
                echo(line, err=True)
            return error.exit_code
        case InterruptedRunError():
            return _interrupted(str(error))
        case click.Abort():
            return _interrupted("caffe-prune: interrupted")
        case PruneError():
            say_error(error)
        case OSError():
            _say_refused(error)
        case UnicodeEncodeError() if any("\ud800" <= sign <= "\udfff" for sign in error.object):
            _say(f"caffe-prune: '{error.object}' is not UTF-8, as it must be here", "red")
        case MemoryError():
            _say("caffe-prune: there is not enough memory for this", "red")
        case _:
            return _fault(error)
    return 1


def _interrupted(sentence: str) -> int:
    _say(sentence, "yellow")
    return _INTERRUPTED


def _say_refused(error: OSError) -> None:
    """The system refused something: a file, or more output."""
    reason = error.strerror or str(error)
    if error.filename is not None:
        _say(f"caffe-prune: {os.fsdecode(error.filename)}: {reason}", "red")
        return
    # Python writes what is left once more when it ends, and would fail again.
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if error.errno != errno.EPIPE:  # who reads a pipe has closed it and wants no more
        _say(f"caffe-prune: the output cannot be written: {reason}", "red")


def _fault(error: Exception) -> int:
    what = f"{type(error).__name__}: {error}".rstrip(": ")
    _say(f"caffe-prune: this is a fault of caffe-prune ({what}); {_kept(error)}", "red")
    return FAULT


def _kept(error: Exception) -> str:
    """Write what is needed to find the fault into a file, and say where it is."""
    text = "\n".join(
        [
            f"caffe-prune {__version__}, Python {platform.python_version()}, {platform.platform()}",
            f"command: {shlex.join(sys.argv)}",
            f"folder: {Path.cwd()}",
            f"packages: {', '.join(filter(None, map(_version, _PACKAGES)))}",
            "",
            *traceback.format_exception(error),
        ]
    )
    try:
        handle, name = tempfile.mkstemp(prefix="caffe-prune-fault-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError as refused:
        return f"no report of it could be written ({refused.strerror})"
    return f"please report it with the file {name}"


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return ""


def _say(sentence: str, style: str) -> None:
    with suppress(OSError):  # where standard error cannot be written to, the exit code tells
        Screen(stderr=True).print(sentence, style=style, soft_wrap=True)
