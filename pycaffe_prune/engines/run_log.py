"""A run's log, line by line: what a kill, a full disk or a stranger left in it is passed over."""

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, BinaryIO

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from pycaffe_prune.errors import FormatError

__all__ = ["JsonLine", "appending", "json_lines", "plain_line"]

_log = logging.getLogger(__name__)
_said: set[Path] = set()

_LONGEST = 1 << 20
"""Bytes of a line; a test of a net with many outputs has some thousand."""

JsonLine = dict[str, Any]


class _Line(BaseModel):
    """What readers of a log rely on, whatever the event."""

    model_config = ConfigDict(strict=True)

    event: str
    iteration: Annotated[int, Field(ge=0, lt=2**31)] = 0
    loss: FiniteFloat | None = None
    lr: FiniteFloat | None = None
    accuracy: FiniteFloat | None = None
    accuracy_name: str | None = None
    test_net: Annotated[int, Field(ge=0)] = 0
    test_net_name: str | None = None
    seconds: Annotated[FiniteFloat, Field(ge=0)] = 0.0


def plain_line(line: Mapping[str, Any]) -> None:
    """Check the types of what every line may have.

    Raises:
        ValueError: One of them is another one.
    """
    _Line.model_validate(line)


def json_lines(path: Path, check: Callable[[JsonLine], object] = plain_line) -> Iterator[JsonLine]:
    """Yield the objects of a file of JSON lines, in order; a file that is not there has none.

    Lines that are damaged are passed over: not UTF-8, not JSON, not an object, too long, or
    refused by ``check``. How many there are is said once.

    Args:
        path: The file.
        check: Called with each object; raises ValueError for one that is not to be used.

    Raises:
        FormatError: The file cannot be read.
    """
    damaged = 0
    try:
        with path.open("rb") as file:
            for raw in _lines(file):
                line = None if raw is None else _parsed(raw, check)
                if line is None:
                    damaged += 1
                else:
                    yield line
    except FileNotFoundError:
        return
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror or error})") from error
    if damaged and path not in _said:
        _said.add(path)
        _log.warning(
            "%s: %d damaged line%s passed over", path, damaged, " is" if damaged == 1 else "s are"
        )


def _lines(file: BinaryIO) -> Iterator[bytes | None]:
    """Each line that is not empty; None for one that is too long, which is not kept in memory."""
    while raw := file.readline(_LONGEST + 1):
        if len(raw) > _LONGEST and not raw.endswith(b"\n"):
            while (rest := file.readline(_LONGEST)) and not rest.endswith(b"\n"):
                continue
            yield None
        elif raw.strip():
            yield raw


def _parsed(raw: bytes, check: Callable[[JsonLine], object]) -> JsonLine | None:
    try:
        line = json.loads(raw.decode())
        if not isinstance(line, dict):
            return None
        check(line)
    except (ValueError, RecursionError):
        return None
    return line


@contextmanager
def appending(path: Path) -> Iterator[Callable[[str], None]]:
    """Give what appends a line to a file of lines; one that a kill cut off is ended first.

    Raises:
        OSError: The file cannot be written to.
    """
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, 2)
            if file.read(1) != b"\n":
                file.write(b"\n")

        def write(line: str) -> None:
            file.write(line.encode() + b"\n")
            file.flush()

        yield write
