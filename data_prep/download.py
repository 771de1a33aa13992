"""Downloads that are checked, go on where they stopped, and give up instead of hanging."""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import requests
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from data_prep.locks import exclusive
from pycaffe_prune.errors import DataError, DownloadError
from pycaffe_prune.screen import PlainColumn

__all__ = ["fetch"]

_CONNECT_SECONDS = 10.0
_READ_SECONDS = 10.0
_CHUNK = 1 << 14  # bytes; a broken connection loses up to one of them
_MOST_ATTEMPTS = 5  # at one mirror, as long as each brings something


class _MirrorError(Exception):
    """One mirror has failed; the message says how."""


class _UnreachableError(_MirrorError):
    """A mirror did not answer."""


class _CutError(_MirrorError):
    """The transfer stopped before its end; what came is kept."""


def fetch(
    urls: Sequence[str],
    target: Path,
    check: Callable[[Path], None],
    *,
    console: Console,
    connect_seconds: float = _CONNECT_SECONDS,
) -> Path:
    """Download a file from the first of its mirrors that has it right.

    What an earlier, interrupted download left in ``target.part`` is continued. A target that is
    already there and passes the check is taken as it is.

    Args:
        urls: The same file at each mirror, in order of preference.
        target: Where it goes; its folder is made when missing.
        check: Raises a `DataError` if the file it is given is not the right one.
        console: Where to show progress.
        connect_seconds: How long all mirrors together may take to answer. When none does, that
            is how long it takes to say so.

    Returns:
        ``target``.

    Raises:
        DataError: No mirror delivered the right file (each one's reason is told), or the file
            cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with exclusive(target.with_name(f".{target.name}.lock"), console):
            if not (target.is_file() and _is_right(target, check)):
                with _progress(console) as progress:
                    _from_any(urls, target, check, progress, connect_seconds)
    except OSError as error:
        raise DataError(f"{target}: cannot be written ({error.strerror or error})") from error
    return target


def _is_right(target: Path, check: Callable[[Path], None]) -> bool:
    try:
        check(target)
    except DataError:
        return False
    return True


def _from_any(
    urls: Sequence[str],
    target: Path,
    check: Callable[[Path], None],
    progress: Progress,
    connect_seconds: float,
) -> None:
    part = target.with_name(f"{target.name}.part")
    deadline = time.monotonic() + connect_seconds
    reasons = []
    for position, url in enumerate(urls):
        # A mirror that does not answer must leave the others their share of the time.
        patience = max(0.1, deadline - time.monotonic()) / (len(urls) - position)
        try:
            _from_mirror(url, part, check, progress, patience)
        except _UnreachableError as error:
            reasons.append(f"{url}: {error}")
        except _MirrorError as error:
            reasons.append(f"{url}: {error}")
            deadline = time.monotonic() + connect_seconds
        else:
            part.replace(target)
            return
    raise DownloadError(f"{target.name} cannot be downloaded: " + "; ".join(reasons))


def _from_mirror(
    url: str, part: Path, check: Callable[[Path], None], progress: Progress, patience: float
) -> None:
    """Bring ``part`` to its end from one mirror, and check it; raise `_MirrorError` if not."""
    bar = progress.add_task(f"{part.stem} ({urlsplit(url).hostname})", total=None, visible=False)
    for _ in range(_MOST_ATTEMPTS):
        had = _size(part)
        try:
            _receive(url, part, had, patience, lambda done, of: _show(progress, bar, done, of))
        except _CutError:
            if _size(part) <= had:
                raise
            continue
        try:
            check(part)
        except DataError as error:
            part.unlink(missing_ok=True)
            if had:  # the fault may lie in what an earlier attempt or another mirror left
                continue
            raise _MirrorError(f"not the right file: {error}") from error
        return
    raise _MirrorError(f"the connection broke {_MOST_ATTEMPTS} times")


def _receive(
    url: str, part: Path, had: int, patience: float, show: Callable[[int, int | None], None]
) -> None:
    """Append to ``part`` what the mirror has beyond the first ``had`` bytes."""
    # Packed files are wanted as they are; a transfer coding would make offsets meaningless.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={had}-"} if had else {})
    with _answer(url, headers, patience) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            return  # nothing lies beyond: complete, or too long, as the check will tell
        start = _start(response, had)
        length = response.headers.get("Content-Length", "")
        total = start + int(length) if length.isdecimal() else None
        with part.open("r+b" if start else "wb") as file:
            done = file.seek(start)
            try:
                for chunk in response.iter_content(_CHUNK):
                    done += file.write(chunk)
                    show(done, total)
            except requests.RequestException as error:
                raise _CutError(_broken(done, total)) from error
        # Not every version of urllib3 minds when a body ends too soon.
        if total is not None and done < total:
            raise _CutError(_broken(done, total))


def _start(response: requests.Response, had: int) -> int:
    """Return the offset at which the body starts."""
    if response.status_code == requests.codes.ok:
        return 0
    span = response.headers.get("Content-Range", "")
    if response.status_code == requests.codes.partial_content and span.startswith(f"bytes {had}-"):
        return had
    raise _MirrorError(f"HTTP status {response.status_code} {response.reason}")


def _broken(done: int, total: int | None) -> str:
    of = "" if total is None else f" of {total}"
    return f"the connection broke or stalled after {done}{of} bytes"


@contextmanager
def _answer(url: str, headers: dict[str, str], patience: float) -> Iterator[requests.Response]:
    """Ask a mirror, and wait ``patience`` seconds for its status line at most.

    The request runs in a thread of its own: looking up a host's name knows no time limit, and
    blocks for long where there is no network.
    """
    answers: queue.SimpleQueue[requests.Response | Exception] = queue.SimpleQueue()
    given_up = threading.Event()

    def ask() -> None:
        try:
            # requests' own limits are for each address of the host and each read.
            answer = requests.get(
                url, headers=headers, stream=True, timeout=(patience, _READ_SECONDS)
            )
        except (OSError, ValueError) as error:  # a malformed URL is a ValueError
            answers.put(error)
            return
        answers.put(answer)
        if given_up.is_set():
            answer.close()

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=patience)
    except queue.Empty:
        given_up.set()
        raise _UnreachableError(f"no answer within {patience:.1f} seconds") from None
    if isinstance(answer, Exception):
        raise _UnreachableError(_reason(answer)) from answer
    with answer:
        yield answer


def _reason(error: Exception) -> str:
    """Return the innermost reason: requests wraps it in the names of its own machinery."""
    inner = error.args[0] if error.args else error
    text = str(getattr(inner, "reason", inner) or error)
    return text.rpartition(": ")[2]


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _show(progress: Progress, bar: TaskID, done: int, total: int | None) -> None:
    progress.update(bar, completed=done, total=total, visible=True)


def _progress(console: Console) -> Progress:
    return Progress(
        PlainColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
    )
