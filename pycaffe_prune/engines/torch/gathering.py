"""Runs that begin at about the same time are brought together, to be trained by one worker."""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from queue import SimpleQueue

from pycaffe_prune.engines.base import Event
from pycaffe_prune.engines.job import Job
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.engines.session import stopped_before
from pycaffe_prune.errors import EngineError, PruneError

__all__ = ["Gathering"]

_PATIENCE_SECONDS = 1.0  # how long after the last one came another is waited for


class _Seat:
    """A run that waits to be trained, and what comes back for it."""

    def __init__(self, folder: RunFolder, job: Job) -> None:
        self.folder, self.job = folder, job
        self.answers: SimpleQueue[Event | PruneError | None] = SimpleQueue()


class _Group:
    """Runs that wait together."""

    def __init__(self) -> None:
        self.seats: list[_Seat] = []
        self.last_came = 0.0


class Gathering:
    """Brings up to ``size`` runs together.

    Args:
        size: How many runs a worker trains at once.
        start: Trains the runs in some folders; yields which of them an event belongs to, and the
            event, or the error that ended that run alone.
        at_once: How many groups are trained at a time; while the others wait, they grow.
    """

    def __init__(
        self,
        size: int,
        start: Callable[[Sequence[RunFolder], Job], Iterator[tuple[int, Event | EngineError]]],
        at_once: float = math.inf,
    ) -> None:
        self._size, self._start, self._at_once = size, start, at_once
        self._waiting: dict[Hashable, _Group] = {}
        self._full: deque[_Group] = deque()
        self._running = 0
        self._came = threading.Condition()
        self._stopped = False

    def events(self, folder: RunFolder, job: Job, kind: Hashable = None) -> Iterator[Event]:
        """Train the run in ``folder`` together with others of its kind; yield its events.

        Raises:
            EngineError: The run failed, or the worker did.
            InterruptedRunError: It was stopped before it began.
        """
        seat = _Seat(folder, job)
        self._gather(seat, (job.device, job.threads, kind))
        while (answer := seat.answers.get()) is not None:
            if isinstance(answer, PruneError):
                raise answer
            yield answer

    def stop(self) -> None:
        """End the runs that wait for others, and those that come, with an InterruptedRunError."""
        with self._came:
            self._stopped = True
            for group in (*self._waiting.values(), *self._full):
                for seat in group.seats:
                    seat.answers.put(stopped_before(seat.folder))
            self._waiting.clear()
            self._full.clear()
            self._came.notify_all()

    def _gather(self, seat: _Seat, kind: Hashable) -> None:
        """Join those that wait; who came first starts them when nobody comes any more."""
        with self._came:
            if self._stopped:
                seat.answers.put(stopped_before(seat.folder))
                return
            group = self._waiting.setdefault(kind, _Group())
            group.seats.append(seat)
            group.last_came = time.monotonic()
            if len(group.seats) == self._size:
                del self._waiting[kind]
                self._full.append(group)
                self._start_full()
                self._came.notify_all()
            elif group.seats[0] is seat:
                self._wait_for_others(kind, group)

    def _wait_for_others(self, kind: Hashable, group: _Group) -> None:
        while self._waiting.get(kind) is group:
            left = group.last_came + _PATIENCE_SECONDS - time.monotonic()
            if left <= 0 and self._running < self._at_once:
                del self._waiting[kind]
                self._begin(group)
            else:
                self._came.wait(left if left > 0 else None)

    def _start_full(self) -> None:
        while self._full and self._running < self._at_once:
            self._begin(self._full.popleft())

    def _begin(self, group: _Group) -> None:
        self._running += 1
        threading.Thread(target=self._lead, args=(group.seats,), daemon=True).start()

    def _lead(self, seats: Sequence[_Seat]) -> None:
        try:
            for number, answer in self._start([seat.folder for seat in seats], seats[0].job):
                seats[number].answers.put(answer)
        except PruneError as error:
            for seat in seats:
                seat.answers.put(error)
        except OSError as error:
            for seat in seats:
                seat.answers.put(EngineError(f"{seat.folder.path}: {error.strerror or error}"))
        finally:
            for seat in seats:
                seat.answers.put(None)
            with self._came:
                self._running -= 1
                self._start_full()
                self._came.notify_all()
