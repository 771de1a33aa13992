"""Parsing by C libraries in a child with limits, so that a damaged file costs one sentence.

HDF5 crashes (SIGSEGV), hangs and asks for any memory on files that are made for it. A reader of our
own for all that h5py and forty years of other programs write would be larger than this package's
other readers together; so the library reads in a child. The child is forked, not started anew: h5py
is loaded already, and a fork takes 5 to 20 ms where a new interpreter takes 300. It calls nothing
but the parser, writes arrays into memory that it shares with its parent, and ends without clean-up,
so that locks which other threads held at the fork are not asked for; if one is, time runs out, and
that is a sentence too.
"""

import ctypes
import faulthandler
import json
import math
import mmap
import os
import resource
import select
import signal
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pycaffe_prune.errors import FormatError, PruneError
from pycaffe_prune.formats.blobs import mapped_file
from pycaffe_prune.formats.limits import most_unpacked

__all__ = ["Parsed", "Room", "confine", "forked", "parsed_in_child"]

_CPU_SECONDS = 2
_PACKED_BYTES_A_SECOND = 5_000_000  # of CPU time; HDF5 unpacks ten times as many
_DEADLOCKED = 10  # times the CPU seconds
_WORKING_MEMORY = 192 << 20  # with the floor of `most_unpacked` it stays below 1 GiB
_MOST_NOTES = 64 << 20
_MOST_COPIED = 4 << 20  # bytes; what is mapped instead holds an open file as long as it lives
_PR_SET_PDEATHSIG = 1
_C = ctypes.CDLL(None)
_forking = threading.Lock()  # filelock refuses a fork during another, and filters are the process's


@dataclass(frozen=True)
class Parsed:
    """What a child found in a file."""

    notes: Any
    """What the parser returned, as JSON holds it."""
    arrays: Sequence[NDArray[Any]]
    """In the order in which the parser asked for room for them; read-only where the file is."""


class Room:
    """Memory that the parent sees too, for the arrays of one file."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._end = 0
        self.arrays: list[tuple[str, tuple[int, ...], int, bool]] = []
        """Dtype, shape and offset of each, and whether it lies in the parsed file itself."""

    def array(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return a new array to be filled."""
        kind = np.dtype(dtype)
        size = math.prod(shape) * kind.itemsize
        self.arrays.append((kind.str, shape, self._end, False))
        if not size:
            return np.empty(shape, kind)
        offset, pages = self._end, -(-size // mmap.ALLOCATIONGRANULARITY)
        self._end += pages * mmap.ALLOCATIONGRANULARITY
        os.ftruncate(self._descriptor, self._end)
        content = mmap.mmap(self._descriptor, size, offset=offset)
        return np.frombuffer(content, kind).reshape(shape)

    def array_in_file(self, shape: tuple[int, ...], dtype: DTypeLike, offset: int) -> None:
        """Tell of an array that the file holds as it is: the parent maps it, nothing is copied."""
        self.arrays.append((np.dtype(dtype).str, shape, offset, True))


def parsed_in_child(path: Path, parse: Callable[[Room], Any]) -> Parsed:
    """Call ``parse`` in a child process with limits of time and memory, and bring what it found.

    Args:
        path: The file that it reads; the limits follow from its size (`formats.limits`).
        parse: Returns what JSON holds.

    Raises:
        FormatError: ``parse`` refused the file or failed, crashed, took too long, or asked for too
            much memory. The sentence lacks the file's name, which the caller adds.
    """
    size = path.stat().st_size
    seconds = _CPU_SECONDS + size // _PACKED_BYTES_A_SECOND
    memory = most_unpacked(size) + _WORKING_MEMORY
    shared = os.memfd_create("arrays")
    try:
        ours, theirs = os.pipe()
        try:
            child = forked()
        except OSError as error:
            os.close(ours)
            raise FormatError(f"cannot be read (no process for it: {error.strerror})") from error
        else:
            if child == 0:
                _parse_and_end(parse, shared, theirs, seconds, memory)
        finally:
            os.close(theirs)
        said, status = _answer(child, ours, seconds * _DEADLOCKED)
        return _parsed(path, shared, said, status)
    finally:
        os.close(shared)


def _parse_and_end(
    parse: Callable[[Room], Any], shared: int, pipe: int, seconds: int, memory: int
) -> NoReturn:
    try:
        confine(seconds, memory)
        room = Room(shared)
        answer: dict[str, Any]
        try:
            answer = {"notes": parse(room), "arrays": room.arrays}
        except PruneError as error:
            answer = {"refused": str(error)}
        except MemoryError:
            answer = {"refused": "needs more memory than such a file may take"}
        except Exception as error:  # noqa: BLE001  (a parser fails in any way that it likes)
            answer = {"refused": f"cannot be read ({error})"}
        with os.fdopen(pipe, "w", encoding="ascii") as sink:
            json.dump(answer, sink)
    finally:
        os._exit(0)


def forked() -> int:
    """Return what ``os.fork`` does: 0 in the child, which ends with the thread that forked it.

    Other threads are no reason against a fork: see above.

    Raises:
        OSError: There is no room for another process.
    """
    parent = os.getpid()
    with _forking, warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        child = os.fork()
    if child == 0:
        _C.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it was gone before it could be asked for
            os._exit(1)
    return child


def confine(seconds: int, memory: int) -> None:
    """Give this process, a fork, so much CPU time and memory (bytes).

    Its standard error stream goes nowhere, and signals end it as they end any process.
    """
    faulthandler.disable()  # a crash is the parent's to tell
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 2)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_AS: held + memory,
        resource.RLIMIT_FSIZE: memory,
    }
    for limit, most in limits.items():
        hard = resource.getrlimit(limit)[1]
        told = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(limit, (told, hard))


def _answer(child: int, pipe: int, seconds: float) -> tuple[bytes, int]:
    """What the child says before it ends, and its status; it has ended when this returns."""
    said = bytearray()
    try:
        end = time.monotonic() + seconds
        poll = select.poll()
        poll.register(pipe, select.POLLIN)
        while poll.poll(max(0, 1000 * (end - time.monotonic()))):
            part = os.read(pipe, 1 << 20)
            said += part
            if not part or len(said) > _MOST_NOTES:
                break
        else:
            os.kill(child, signal.SIGXCPU)
    except BaseException:
        os.kill(child, signal.SIGKILL)
        raise
    finally:
        os.close(pipe)
        status = os.waitpid(child, 0)[1]
    return bytes(said), status


def _parsed(path: Path, shared: int, said: bytes, status: int) -> Parsed:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number == signal.SIGXCPU:
            raise FormatError("takes too long to read: it is damaged, or made to")
        name = signal.Signals(number).name
        raise FormatError(f"cannot be read (it makes the library that reads it crash, {name})")
    try:
        answer = json.loads(said)
    except ValueError as error:
        raise FormatError("cannot be read (the library that reads it fails)") from error
    if "refused" in answer:
        raise FormatError(answer["refused"])
    places = answer["arrays"]
    contents = {False: _content(shared)}
    if any(is_in_file for *_, is_in_file in places):
        contents[True] = mapped_file(path, "a file of arrays")
    try:
        arrays = [
            np.frombuffer(contents[is_in_file], dtype, math.prod(shape), offset).reshape(shape)
            if math.prod(shape)
            else np.empty(shape, dtype)
            for dtype, shape, offset, is_in_file in places
        ]
    except ValueError as error:  # an offset beyond the file's end
        raise FormatError("is truncated: it ends before its values do") from error
    return Parsed(answer["notes"], arrays)


def _content(shared: int) -> Any:
    size = os.fstat(shared).st_size
    if size > _MOST_COPIED:
        return mmap.mmap(shared, size, access=mmap.ACCESS_COPY)
    return bytearray(os.pread(shared, size, 0))
