"""Images decoded in child processes, which may crash where OpenCV and the libraries below it do.

A process an image would cost more than its decoding, and so would a message: a child is given
several images at once, and serves on. It is forked as in `pycaffe_prune.formats.confined`, has the
time and memory that one image may take, and is replaced when it ends before its time.
"""

import math
import mmap
import os
import resource
import signal
import struct
import time
from array import array
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue
from socket import SO_RCVTIMEO, SOL_SOCKET, socketpair
from threading import Lock
from typing import NoReturn

import cv2
import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.errors import DataError
from pycaffe_prune.formats.confined import confine, forked

__all__ = ["Decode", "Decoders"]

Decode = Callable[[int, NDArray[np.uint8]], bytes]
"""Fills an array with the image of a number, and returns what else is to be known of it."""

_CPU_SECONDS = 10  # an image
_SECONDS = 300  # of the clock, for a child that waits for what its parent's threads held
_MEMORY = 768 << 20
_TOO_MUCH = "needs more memory than an image may take"
_MOST_SAID = 1 << 30
_forking = Lock()
_LENGTH = struct.Struct("<q")  # of an answer; less than 0: a refusal's


class Decoders:
    """Children that decode; as many as are busy at once.

    Args:
        decode: What a child does with an image; raises a `DataError` where it is none.
        most: How many images are given to a child at once, at most.
        shape: Of the arrays that it fills.
    """

    def __init__(self, decode: Decode, most: int, shape: tuple[int, ...]) -> None:
        self._decode, self._shape = decode, (most, *shape)
        self._idle: SimpleQueue[_Child] = SimpleQueue()

    def close(self) -> None:
        """End the children that wait."""
        while (child := self._waiting()) is not None:
            child.end()

    def __call__(
        self, numbers: Sequence[int], pixels: NDArray[np.uint8]
    ) -> list[bytes | DataError]:
        """Fill ``pixels`` with some images; threads may do so side by side.

        Returns:
            What ``decode`` returned of each; or why it is no image, or cannot be decoded: that
            crashes, takes too long, or too much memory.
        """
        if not numbers:
            return []
        child = self._waiting() or _Child(self._decode, self._shape)
        try:
            answers = child.ask(numbers)
        except _EndedError as ended:
            at = ended.place
            return [
                *self(numbers[:at], pixels[:at]),
                DataError(str(ended)),
                *self(numbers[at + 1 :], pixels[at + 1 :]),
            ]
        except BaseException:
            child.end()
            raise
        pixels[...] = child.pixels[: len(numbers)]
        self._idle.put(child)
        return answers

    def _waiting(self) -> "_Child | None":
        try:
            return self._idle.get_nowait()
        except Empty:
            return None


class _EndedError(Exception):
    """Why a child ended, and at which of its images."""

    def __init__(self, why: str, place: int) -> None:
        super().__init__(why)
        self.place = place


class _Child:
    """One process, the memory that it shares, and what connects us with it."""

    def __init__(self, decode: Decode, shape: tuple[int, ...]) -> None:
        self.pixels = np.frombuffer(mmap.mmap(-1, math.prod(shape)), np.uint8).reshape(shape)
        self._place = np.frombuffer(mmap.mmap(-1, 8), np.int64)
        ours, theirs = socketpair()
        ours.setsockopt(SOL_SOCKET, SO_RCVTIMEO, struct.pack("ll", _SECONDS, 0))
        self._ours, connection = Connection(ours.detach()), Connection(theirs.detach())
        # A fork has none of the threads that OpenCV works with, and would wait for them.
        with _forking:
            threads = cv2.getNumThreads()
            cv2.setNumThreads(1)
            try:
                self._id = forked()
                if self._id == 0:
                    _serve(connection, decode, self.pixels, self._place)
            except OSError as error:
                self._ours.close()
                raise DataError(f"no process can be had ({error.strerror})") from error
            finally:
                cv2.setNumThreads(threads)
                connection.close()

    def ask(self, numbers: Sequence[int]) -> list[bytes | DataError]:
        """Have images decoded into `pixels`, and return the answers."""
        self._place[0] = 0
        try:
            self._ours.send_bytes(array("q", numbers))
            said = self._ours.recv_bytes(_MOST_SAID)
        except BlockingIOError:
            self.end()
            raise _EndedError("takes too long to decode", int(self._place[0])) from None
        except (EOFError, OSError):
            raise _EndedError(self._why_it_ended(), int(self._place[0])) from None
        return _answers(said)

    def end(self) -> None:
        """End the process, whatever it does."""
        os.kill(self._id, signal.SIGKILL)
        self._reap()

    def _reap(self) -> int:
        self._ours.close()
        return os.waitpid(self._id, 0)[1]

    def _why_it_ended(self) -> str:
        status = self._reap()
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        if number == signal.SIGXCPU:
            return "takes too long to decode"
        what = f"crash, {signal.Signals(number).name}" if number else "fail"
        return f"makes the library that decodes it {what}"


def _answers(said: bytes) -> list[bytes | DataError]:
    answers: list[bytes | DataError] = []
    at = 0
    while at < len(said):
        (length,) = _LENGTH.unpack_from(said, at)
        at += _LENGTH.size
        part = said[at : at + abs(length)]
        at += abs(length)
        answers.append(part if length >= 0 else DataError(part.decode()))
    return answers


def _serve(
    connection: Connection, decode: Decode, pixels: NDArray[np.uint8], place: NDArray[np.int64]
) -> NoReturn:
    try:
        confine(_CPU_SECONDS, _MEMORY)
        while True:
            numbers = array("q", connection.recv_bytes())
            answers: list[bytes] = []
            for at, number in enumerate(numbers):
                place[0] = at
                _renew_time()
                try:
                    said = decode(number, pixels[at])
                    answers += [_LENGTH.pack(len(said)), said]
                except (DataError, MemoryError) as error:
                    why = str(error) if isinstance(error, DataError) else _TOO_MUCH
                    answers += [_LENGTH.pack(-len(why.encode())), why.encode()]
            connection.send_bytes(b"".join(answers))
    finally:
        os._exit(0)


def _renew_time() -> None:
    end = int(time.process_time()) + 1 + _CPU_SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (end, resource.getrlimit(resource.RLIMIT_CPU)[1]))
