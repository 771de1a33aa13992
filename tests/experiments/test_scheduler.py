"""Stages side by side: inputs first, never too many at once, failures contained, stops kept."""

import os
import signal
import threading
import time
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pycaffe_prune.engines.base import Event, TestScore
from pycaffe_prune.errors import InterruptedRunError, PruneError
from pycaffe_prune.experiments.paths import ExperimentFolder
from pycaffe_prune.experiments.scheduler import run_stages
from pycaffe_prune.experiments.stages import Context, Stage, StageOutput
from pycaffe_prune.experiments.store.stage_lock import Stop

SCORE = TestScore(iteration=1, images=1, correct=1, accuracy=1, loss=0, finite=True)


@dataclass
class Ledger:
    """What happened, and how many ran at once."""

    order: list[str] = field(default_factory=list)
    running: int = 0
    most: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True, eq=False)
class Step(Stage):
    """A stage of no work, or one that fails."""

    name: str
    needs: tuple[Stage, ...]
    ledger: Ledger
    error: Exception | None = None

    kind = "step"
    files = ()

    @property
    def inputs(self):
        return self.needs

    @property
    def settings(self):
        return {"name": self.name}

    @property
    def label(self):
        return self.name

    def work(self, folder, engine, observe):  # noqa: ARG002  (Stage's signature)
        with self.ledger.lock:
            assert all(stage.output() for stage in self.needs)
            self.ledger.running += 1
            self.ledger.most = max(self.ledger.most, self.ledger.running)
        observe(Event(event="start"))
        time.sleep(0.001)
        with self.ledger.lock:
            self.ledger.running -= 1
            self.ledger.order.append(self.name)
        if self.error:
            raise self.error
        return StageOutput(
            seed=1, kept={}, before=SCORE, after=SCORE, iterations=1, seconds=0, versions={}
        )


def _context(path) -> Context:
    return Context(ExperimentFolder(path), path, path, path, (), "f")


def _stages(path, edges: list[list[int]], ledger: Ledger, errors=()) -> list[Step]:
    stages: list[Step] = []
    for place, needs in enumerate(edges):
        inputs = tuple(stages[need] for need in needs)
        error = dict(errors).get(place)
        stages.append(Step(_context(path), 1, f"s{place}", inputs, ledger, error))
    return stages


GRAPHS = st.integers(1, 12).flatmap(
    lambda size: st.tuples(
        *[
            st.lists(st.integers(0, place - 1), max_size=3, unique=True) if place else st.just([])
            for place in range(size)
        ]
    )
)


@settings(max_examples=25)
@given(edges=GRAPHS, jobs=st.integers(1, 4))
def test_every_stage_runs_once_after_its_inputs_and_never_more_than_jobs(
    tmp_path_factory, edges, jobs
):
    ledger, seen = Ledger(), []
    stages = _stages(tmp_path_factory.mktemp("s"), list(edges), ledger)
    run_stages(stages, None, jobs, lambda stage, event: seen.append((stage.label, event)))
    assert sorted(ledger.order) == sorted(stage.name for stage in stages)
    assert ledger.most <= jobs
    assert sum(event is None for _, event in seen) == len(stages)
    run_stages(stages, None, jobs, lambda *_: None)
    assert len(ledger.order) == len(stages)


def test_a_failure_gives_up_what_needs_it_and_nothing_else(tmp_path):
    ledger = Ledger()
    edges = [[], [0], [1], [], [3]]
    stages = _stages(tmp_path, edges, ledger, [(1, PruneError("no luck"))])
    with pytest.raises(PruneError, match=r"2 of 5 stages failed; the first: s1: no luck"):
        run_stages(stages, None, 2, lambda *_: None)
    assert sorted(ledger.order) == ["s0", "s1", "s3", "s4"]
    assert [stage.output() is not None for stage in stages] == [True, False, False, True, True]


def test_an_interrupted_sweep_starts_nothing_more(tmp_path):
    ledger = Ledger()
    stages = _stages(tmp_path, [[], [], []], ledger, [(0, InterruptedRunError("stop"))])
    with pytest.raises(InterruptedRunError, match="0 of 3 stages"):
        run_stages(stages, None, 1, lambda *_: None)
    assert ledger.order == ["s0"]


def test_two_sweeps_in_one_folder_wait_for_each_other_and_do_no_stage_twice(tmp_path):
    ledger = Ledger()

    def sweep() -> None:
        run_stages(_stages(tmp_path, [[], [0], [0], [1, 2]], ledger), None, 2, lambda *_: None)

    threads = [threading.Thread(target=sweep) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ledger.order) == ["s0", "s1", "s2", "s3"]


@dataclass(frozen=True, eq=False)
class Held(Step):
    """A stage whose work lasts until it is let go."""

    begun: threading.Event = field(default_factory=threading.Event)
    let_go: threading.Event = field(default_factory=threading.Event)

    def work(self, folder, engine, observe):
        self.begun.set()
        assert self.let_go.wait(60)
        return super().work(folder, engine, observe)


@pytest.fixture
def held(tmp_path):
    stage = Held(_context(tmp_path), 1, "held", (), Ledger())
    yield stage
    stage.let_go.set()


def test_that_a_stage_waits_is_told_once_and_then_it_is_done(held):
    holder = threading.Thread(target=run_stages, args=([held], None, 1, lambda *_: None))
    holder.start()
    assert held.begun.wait(60)
    seen = []

    def observe(_stage, event):
        seen.append(event and event.model_extra)
        threading.Timer(0.5, held.let_go.set).start()

    run_stages([held], None, 1, observe)
    holder.join()
    assert seen == [{"waits_for": str(held.folder.path)}, None]
    assert held.ledger.order == ["held"]


def test_whoever_waits_for_another_process_can_be_stopped(held):
    holder = threading.Thread(target=held.run, args=(None, lambda _: None, Stop()))
    holder.start()
    assert held.begun.wait(60)
    stop = Stop()

    def when_it_waits(_stage, event):
        stop.asked = "waits_for" in event.model_extra

    with pytest.raises(InterruptedRunError, match="0 of 1 stages"):
        run_stages([held], None, 1, when_it_waits, stop)
    held.let_go.set()
    holder.join()
    assert held.ledger.order == ["held"]


def test_a_stop_between_two_stages_begins_no_other(tmp_path):
    ledger, stop = Ledger(), Stop()
    stages = _stages(tmp_path, [[], [0]], ledger)

    def when_one_is_done(_stage, event):
        stop.asked = event is None

    with pytest.raises(InterruptedRunError, match="1 of 2 stages done"):
        run_stages(stages, None, 2, when_one_is_done, stop)
    assert ledger.order == ["s0"]
    run_stages(stages, None, 2, lambda *_: None)
    run_stages(stages, None, 2, lambda *_: None, Stop(asked=True))  # nothing is left to stop


def test_a_second_ctrl_c_waits_for_no_stage(held):
    def interrupt() -> None:
        assert held.begun.wait(60)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    late = threading.Timer(20, held.let_go.set)
    late.start()
    with pytest.raises(KeyboardInterrupt):
        run_stages([held], None, 1, lambda *_: None)
    assert not held.let_go.is_set()
    late.cancel()


def test_an_error_that_is_a_bug_is_not_swallowed(tmp_path):
    stages = _stages(tmp_path, [[]], Ledger(), [(0, ZeroDivisionError())])
    with pytest.raises(ZeroDivisionError):
        run_stages(stages, None, 1, lambda *_: None)
