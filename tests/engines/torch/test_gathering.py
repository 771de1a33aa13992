"""Every run is led once, together with others where they come in time, and hears its own events."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from pycaffe_prune.engines.base import Event
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.engines.torch import gathering
from pycaffe_prune.engines.torch.gathering import Gathering
from pycaffe_prune.errors import EngineError, InterruptedRunError


def job(device: str = "cpu", threads: int = 1) -> SimpleNamespace:
    return SimpleNamespace(device=device, threads=threads)


@pytest.fixture
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "_PATIENCE_SECONDS", 0.3)


class Worker:
    """Leads runs: two events for each, told by the folder's name."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []

    def start(self, folders: list[RunFolder], _: object) -> Iterator[tuple[int, object]]:
        self.groups.append([folder.path.name for folder in folders])
        for iteration in (1, 2):
            for number, folder in enumerate(folders):
                if folder.path.name == "bad" and iteration == 2:
                    yield number, EngineError("bad: the loss is no longer a number")
                else:
                    at = 10 * int(folder.path.name.strip("bad") or 0) + iteration
                    yield number, Event(event="progress", iteration=at)


def gather(places: Gathering, name: str, told: SimpleNamespace | None = None) -> list[int]:
    return [event.iteration for event in places.events(RunFolder(Path(name)), told or job())]


@pytest.mark.parametrize("count", [1, 3, 4, 7, 8])
def test_all_are_led_in_groups_that_are_full_but_for_the_last(short_patience, count: int) -> None:
    worker = Worker()
    places = Gathering(4, worker.start)
    with ThreadPoolExecutor(count) as pool:
        # All at once: a group may be full before the first of it has looked.
        heard = list(pool.map(lambda n: gather(places, str(n)), range(count), timeout=20))
    assert heard == [[10 * n + 1, 10 * n + 2] for n in range(count)]
    assert sorted(name for group in worker.groups for name in group) == [
        str(n) for n in range(count)
    ]
    sizes = sorted((len(group) for group in worker.groups), reverse=True)
    assert sizes == [4] * (count // 4) + [count % 4] * (count % 4 > 0)


def test_a_full_group_does_not_wait(monkeypatch) -> None:
    monkeypatch.setattr(gathering, "_PATIENCE_SECONDS", 60)
    places = Gathering(2, Worker().start)
    with ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(lambda n: gather(places, str(n)), range(4), timeout=20))) == 4


def test_groups_grow_while_there_is_no_room_for_them(short_patience) -> None:
    begun, go_on = threading.Event(), threading.Event()

    class Slow(Worker):
        def start(self, folders, job):
            begun.set()
            assert go_on.wait(20)
            yield from super().start(folders, job)

    worker = Slow()
    places = Gathering(3, worker.start, at_once=1)
    with ThreadPoolExecutor(6) as pool:
        first = pool.submit(gather, places, "1")
        assert begun.wait(20)
        others = [pool.submit(gather, places, str(n)) for n in range(2, 7)]
        time.sleep(0.5)  # longer than patience
        go_on.set()
        assert first.result(20) == [11, 12]
        assert [other.result(20) for other in others] == [
            [10 * n + 1, 10 * n + 2] for n in range(2, 7)
        ]
    assert [len(group) for group in worker.groups] == [1, 3, 2]


@pytest.mark.parametrize(
    ("count", "sizes"), [(1, [1]), (2, [1, 1]), (5, [3, 2]), (8, [4, 4]), (12, [6, 6])]
)
def test_few_runs_are_shared_out_over_all_that_could_work(
    short_patience, count: int, sizes: list[int]
) -> None:
    worker = Worker()
    places = Gathering(6, worker.start, at_once=2)
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(lambda n: gather(places, str(n)), range(count), timeout=20))
    assert sorted(map(len, worker.groups), reverse=True) == sizes


def test_two_kinds_have_a_part_of_the_room_each(short_patience) -> None:
    begun = threading.Barrier(2, timeout=20)

    class Both(Worker):
        def start(self, folders, job):
            begun.wait()  # both at a time
            yield from super().start(folders, job)

    worker = Both()
    places = Gathering(6, worker.start, at_once=2)
    with ThreadPoolExecutor(7) as pool:
        heard = [
            pool.submit(lambda n: list(places.events(RunFolder(Path(str(n))), job(), n < 4)), n)
            for n in range(7)
        ]
        assert all(len(one.result(20)) == 2 for one in heard)
    assert sorted(map(len, worker.groups)) == [3, 4]


def test_runs_of_other_kinds_are_not_led_together(short_patience) -> None:
    worker = Worker()
    places = Gathering(2, worker.start)
    with ThreadPoolExecutor(4) as pool:
        heard = [
            pool.submit(lambda n: list(places.events(RunFolder(Path(str(n))), job(), n % 2)), n)
            for n in range(4)
        ]
        assert all(len(one.result(20)) == 2 for one in heard)
    assert sorted(sorted(group) for group in worker.groups) == [["0", "2"], ["1", "3"]]


def test_runs_of_other_devices_or_threads_are_not_led_together(short_patience) -> None:
    worker = Worker()
    places = Gathering(4, worker.start)
    told = [job("cpu"), job("cuda"), job("cpu"), job("cpu", 2)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: gather(places, str(n), told[n]), range(4), timeout=20))
    assert sorted(sorted(group) for group in worker.groups) == [["0", "2"], ["1"], ["3"]]


def test_a_failure_is_heard_by_its_run_alone(short_patience) -> None:
    places = Gathering(3, Worker().start)
    with ThreadPoolExecutor(3) as pool:
        runs = {name: pool.submit(gather, places, name) for name in ("1", "bad", "2")}
    assert (runs["1"].result(), runs["2"].result()) == ([11, 12], [21, 22])
    with pytest.raises(EngineError, match="no longer a number"):
        runs["bad"].result()


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (EngineError("the worker died"), "the worker died"),
        (OSError(12, "Cannot allocate memory"), "[12]: Cannot allocate memory"),
    ],
)
def test_the_workers_end_is_heard_by_all(short_patience, error: Exception, sentence: str) -> None:
    def start(folders: object, job: object) -> Iterator[tuple[int, Event]]:
        yield 0, Event(event="progress")
        raise error

    places = Gathering(2, start)
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(gather, places, name) for name in ("1", "2")]
    for run in runs:
        with pytest.raises(EngineError, match=sentence):
            run.result()


def test_those_that_wait_or_come_later_are_ended_by_stop(monkeypatch) -> None:
    monkeypatch.setattr(gathering, "_PATIENCE_SECONDS", 60)
    worker = Worker()
    places = Gathering(3, worker.start)
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(gather, places, name) for name in ("1", "2")]
        deadline = time.monotonic() + 20
        while (
            sum(len(each.seats) for each in places._waiting.values()) < 2
            and time.monotonic() < deadline
        ):
            time.sleep(0.01)
        places.stop()
        for run, name in zip(runs, ("1", "2"), strict=True):
            with pytest.raises(InterruptedRunError, match=f"{name}: stopped before it began"):
                run.result(20)
    with pytest.raises(InterruptedRunError, match="3: stopped before it began"):
        gather(places, "3")
    assert worker.groups == []
    assert threading.active_count() < 10
