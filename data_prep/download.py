"""Downloads that are checked, go on where they stopped, and give up instead of hanging."""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self
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

from data_prep.download_limits import Limits
from data_prep.locks import exclusive
from pycaffe_prune.errors import DataError, DownloadError
from pycaffe_prune.screen import PlainColumn

__all__ = ["fetch"]

_CONNECT_SECONDS = 10.0
_READ_SECONDS = 10.0
_CHUNK = 1 << 14  # bytes; a broken connection loses up to one of them
_AHEAD = 8  # chunks that wait to be written
_DIGITS = 30  # of a length that is read as one
_MOST_ATTEMPTS = 5  # at one mirror, as long as each brings something


class _MirrorError(Exception):
    """One mirror has failed; the message says how."""


class _UnreachableError(_MirrorError):
    """A mirror did not answer."""


class _CutError(_MirrorError):
    """The transfer stopped before its end; what came is kept."""


class _TooMuchError(_MirrorError):
    """A mirror sends more than the file may have; what came is removed."""


@dataclass(frozen=True)
class _Wait:
    """How long a mirror is waited for."""

    limits: Limits
    until: float
    """When all mirrors must be done, on the monotonic clock."""
    patience: float
    """Seconds for its answer."""

    def left(self) -> float:
        """Seconds until all must be done."""
        return max(0.0, self.until - time.monotonic())


def fetch(
    urls: Sequence[str],
    target: Path,
    check: Callable[[Path], None],
    *,
    console: Console,
    limits: Limits,
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
        limits: How slow it may be, how long it may take, and how much may come.
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
                    _from_any(urls, target, check, progress, limits, connect_seconds)
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
    limits: Limits,
    connect_seconds: float,
) -> None:
    until = time.monotonic() + limits.seconds
    part = target.with_name(f"{target.name}.part")
    deadline = time.monotonic() + connect_seconds
    reasons = []
    for position, url in enumerate(urls):
        # A mirror that does not answer must leave the others their share of the time.
        patience = max(0.1, deadline - time.monotonic()) / (len(urls) - position)
        try:
            _from_mirror(url, part, check, progress, _Wait(limits, until, patience))
        except _UnreachableError as error:
            reasons.append(f"{url}: {error}")
        except _MirrorError as error:
            reasons.append(f"{url}: {error}")
            deadline = time.monotonic() + connect_seconds
        else:
            part.replace(target)
            return
    if not _size(part):
        part.unlink(missing_ok=True)
    raise DownloadError(f"{target.name} cannot be downloaded: " + "; ".join(reasons))


def _from_mirror(
    url: str, part: Path, check: Callable[[Path], None], progress: Progress, wait: _Wait
) -> None:
    """Bring ``part`` to its end from one mirror, and check it; raise `_MirrorError` if not."""
    bar = progress.add_task(f"{part.stem} ({urlsplit(url).hostname})", total=None, visible=False)
    for _ in range(_MOST_ATTEMPTS):
        had = _size(part)
        try:
            _receive(url, part, had, wait, lambda done, of: _show(progress, bar, done, of))
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
    url: str, part: Path, had: int, wait: _Wait, show: Callable[[int, int | None], None]
) -> None:
    """Append to ``part`` what the mirror has beyond the first ``had`` bytes."""
    # Packed files are wanted as they are; a transfer coding would make offsets meaningless.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={had}-"} if had else {})
    with _Transfer(url, headers, wait) as transfer:
        response = transfer.answer()
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            return  # nothing lies beyond: complete, or too long, as the check will tell
        start = _start(response, had)
        coding = response.headers.get("Content-Encoding", "identity")
        if coding != "identity":
            raise _MirrorError(f"sends the file packed anew (Content-Encoding: {coding})")
        length = response.headers.get("Content-Length", "")
        total = start + int(length) if length.isdecimal() and len(length) < _DIGITS else None
        try:
            _write(transfer, part, start, total, show)
        except _TooMuchError:
            part.unlink(missing_ok=True)
            raise


def _write(
    transfer: "_Transfer",
    part: Path,
    start: int,
    total: int | None,
    show: Callable[[int, int | None], None],
) -> None:
    most = transfer.wait.limits.most_bytes
    if total is not None and total > most:
        raise _TooMuchError(f"it has {total:,} bytes, more than the {most:,} that this file may")
    with part.open("r+b" if start else "wb") as file:
        done = file.seek(start)
        try:
            for chunk in transfer.chunks():
                done += file.write(chunk)
                if done > most:
                    raise _TooMuchError(f"it has more than the {most:,} bytes that this file may")
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


class _Transfer:
    """A request in a thread of its own, given up where it takes too long.

    Looking up a host's name knows no time limit, nor does a read into which a byte comes now and
    then. The thread closes what it opened; one that is stuck ends with the process.
    """

    def __init__(self, url: str, headers: dict[str, str], wait: _Wait) -> None:
        self.wait = wait
        self._url, self._headers = url, headers
        self._came: queue.Queue[requests.Response | bytes | Exception | None] = queue.Queue(_AHEAD)
        self._given_up = threading.Event()
        threading.Thread(target=self._ask, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._given_up.set()

    def answer(self) -> requests.Response:
        """Return the status and the headers; wait for them with the mirror's share of patience."""
        patience = min(self.wait.patience, self.wait.left())
        try:
            came = self._came.get(timeout=patience)
        except queue.Empty:
            raise _UnreachableError(f"no answer within {patience:.1f} seconds") from None
        if isinstance(came, Exception):
            raise _UnreachableError(_reason(came)) from came
        assert isinstance(came, requests.Response)  # noqa: S101  (what `_ask` puts first)
        return came

    def chunks(self) -> Iterator[bytes]:
        """Yield the body; each chunk must come as fast as the least speed asks for."""
        limits = self.wait.limits
        while True:
            left, patience = self.wait.left(), _CHUNK / limits.least_speed
            try:
                came = self._came.get(timeout=min(left, patience))
            except queue.Empty:
                if left < patience:
                    raise _MirrorError(f"not done within {limits.seconds:g} seconds") from None
                raise _MirrorError(f"slower than {limits.least_speed:g} bytes a second") from None
            if isinstance(came, Exception):
                raise came
            if came is None:
                return
            assert isinstance(came, bytes)  # noqa: S101  (what `_ask` puts next)
            yield came

    def _ask(self) -> None:
        timeout = (self.wait.patience, _READ_SECONDS)
        try:
            # requests' own limits are for each address of the host and each read.
            with requests.get(
                self._url, headers=self._headers, stream=True, timeout=timeout
            ) as answer:
                self._put(answer)
                for chunk in answer.iter_content(_CHUNK):
                    if not self._put(chunk):
                        return
            self._put(None)
        except (OSError, ValueError) as error:  # a malformed URL is a ValueError
            self._put(error)

    def _put(self, item: requests.Response | bytes | Exception | None) -> bool:
        while not self._given_up.is_set():
            try:
                self._came.put(item, timeout=0.2)
            except queue.Full:
                continue
            return True
        return False


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
