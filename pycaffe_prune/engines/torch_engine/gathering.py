"""Runs that begin at about the same time are brought together, to be trained by one worker."""

import threading
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue

from pycaffe_prune.engines.base import Event
from pycaffe_prune.engines.job import Job
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.errors import EngineError, PruneError

__all__ = ["Gathering"]

_PATIENCE_SECONDS = 2.0  # how long after the last one came another is waited for


class _Seat:
    """A run that waits to be trained, and what comes back for it."""

    def __init__(self, folder: RunFolder, job: Job) -> None:
        self.folder, self.job = folder, job
        self.answers: SimpleQueue[Event | PruneError | None] = SimpleQueue()


class Gathering:
    """Brings up to ``size`` runs together.

    Args:
        size: How many runs a worker trains at once.
        start: Trains the runs in some folders; yields which of them an event belongs to, and the
            event, or the error that ended that run alone.
    """

    def __init__(
        self,
        size: int,
        start: Callable[[Sequence[RunFolder], Job], Iterator[tuple[int, Event | EngineError]]],
    ) -> None:
        self._size, self._start = size, start
        self._waiting: list[_Seat] = []
        self._came = threading.Condition()

    def events(self, folder: RunFolder, job: Job) -> Iterator[Event]:
        """Train the run in ``folder`` together with others; yield its events.

        Raises:
            EngineError: The run failed, or the worker did.
        """
        seat = _Seat(folder, job)
        with self._came:
            self._waiting.append(seat)
            self._came.notify_all()
            if self._waiting[0] is seat:
                # The first to come waits for the others, and leads.
                while len(self._waiting) < self._size:
                    if not self._came.wait(_PATIENCE_SECONDS):
                        break
                seats, self._waiting = self._waiting[: self._size], self._waiting[self._size :]
                threading.Thread(target=self._lead, args=(seats,), daemon=True).start()
        while (answer := seat.answers.get()) is not None:
            if isinstance(answer, PruneError):
                raise answer
            yield answer

    def _lead(self, seats: Sequence[_Seat]) -> None:
        try:
            for number, answer in self._start([seat.folder for seat in seats], seats[0].job):
                seats[number].answers.put(answer)
        except PruneError as error:
            for seat in seats:
                seat.answers.put(error)
        finally:
            for seat in seats:
                seat.answers.put(None)
