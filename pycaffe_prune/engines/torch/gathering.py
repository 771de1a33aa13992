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


class _Queue:
    """Runs that wait, all of a kind."""

    def __init__(self) -> None:
        self.seats: deque[_Seat] = deque()
        self.last_came = 0.0

    @property
    def nobody_comes(self) -> bool:
        """Whether others have been waited for long enough."""
        return time.monotonic() >= self.last_came + _PATIENCE_SECONDS


class Gathering:
    """Brings up to ``size`` runs together.

    Args:
        size: How many runs a worker trains at once.
        start: Trains the runs in some folders; yields which of them an event belongs to, and the
            event, or the error that ended that run alone.
        at_once: How many groups are trained at a time. Runs that wait for room go together; fewer
            than fill all of it are shared out over it.
    """

    def __init__(
        self,
        size: int,
        start: Callable[[Sequence[RunFolder], Job], Iterator[tuple[int, Event | EngineError]]],
        at_once: float = math.inf,
    ) -> None:
        self._size, self._start, self._at_once = size, start, at_once
        self._waiting: dict[Hashable, _Queue] = {}
        self._running = 0
        self._lock = threading.Lock()
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
        with self._lock:
            self._stopped = True
            for queue in self._waiting.values():
                for seat in queue.seats:
                    seat.answers.put(stopped_before(seat.folder))
            self._waiting.clear()

    def _gather(self, seat: _Seat, kind: Hashable) -> None:
        """Join those that wait, and look who begins: now, and when nobody comes any more."""
        with self._lock:
            if self._stopped:
                seat.answers.put(stopped_before(seat.folder))
                return
            queue = self._waiting.setdefault(kind, _Queue())
            queue.seats.append(seat)
            queue.last_came = time.monotonic()
            self._begin_some()
            if self._waiting.get(kind) is not queue:
                return
        later = threading.Timer(_PATIENCE_SECONDS, self._look_again)
        later.daemon = True
        later.start()

    def _look_again(self) -> None:
        with self._lock:
            self._begin_some()

    def _begin_some(self) -> None:
        """Begin groups of those that wait, who came first first."""
        for kind, queue in list(self._waiting.items()):
            others = len(self._waiting) - 1
            room = self._at_once - self._running
            parts = self._parts(queue, max(room - others, 1) if room >= 1 else 0)
            left = min(len(queue.seats), parts * self._size)
            for part in range(parts, 0, -1):
                count = -(-left // part)
                self._begin([queue.seats.popleft() for _ in range(count)])
                left -= count
            if not queue.seats:
                del self._waiting[kind]

    def _parts(self, queue: _Queue, room: float) -> int:
        """How many groups of these runs begin, where there is room for so many."""
        full, rest = divmod(len(queue.seats), self._size)
        if math.isinf(room):
            return full + bool(rest and queue.nobody_comes)
        if full < room and not queue.nobody_comes:
            return 0  # how many there are to share out is not known yet
        return int(min(len(queue.seats), room))

    def _begin(self, seats: Sequence[_Seat]) -> None:
        self._running += 1
        threading.Thread(target=self._lead, args=(seats,), daemon=True).start()

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
            with self._lock:
                self._running -= 1
                self._begin_some()
