"""Runs that begin at about the same time are brought together, to be trained by one worker."""

import threading
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue

from pycaffe_prune.engines.base import Event
from pycaffe_prune.engines.job import Job
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.engines.session import stopped_before
from pycaffe_prune.errors import EngineError, PruneError

__all__ = ["Gathering"]

_PATIENCE_SECONDS = 2.0  # how long after the last one came another is waited for

_Device = tuple[str, int]
"""What runs that are trained by one worker have in common: device and threads."""


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
        self._waiting: dict[_Device, list[_Seat]] = {}
        self._came = threading.Condition()
        self._stopped = False

    def events(self, folder: RunFolder, job: Job) -> Iterator[Event]:
        """Train the run in ``folder`` together with others; yield its events.

        Raises:
            EngineError: The run failed, or the worker did.
            InterruptedRunError: It was stopped before it began.
        """
        seat = _Seat(folder, job)
        self._gather(seat, (job.device, job.threads))
        while (answer := seat.answers.get()) is not None:
            if isinstance(answer, PruneError):
                raise answer
            yield answer

    def stop(self) -> None:
        """End the runs that wait for others, and those that come, with an InterruptedRunError."""
        with self._came:
            self._stopped = True
            for seats in self._waiting.values():
                for seat in seats:
                    seat.answers.put(stopped_before(seat.folder))
            self._waiting.clear()
            self._came.notify_all()

    def _gather(self, seat: _Seat, device: _Device) -> None:
        """Join those that wait; who completes them, or came first and has waited, starts them."""
        with self._came:
            if self._stopped:
                seat.answers.put(stopped_before(seat.folder))
                return
            seats = self._waiting.setdefault(device, [])
            seats.append(seat)
            self._came.notify_all()
            if len(seats) < self._size:
                if seats[0] is not seat:
                    return
                while self._waiting.get(device) is seats and self._came.wait(_PATIENCE_SECONDS):
                    pass
                if self._waiting.get(device) is not seats:
                    return
            del self._waiting[device]
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
