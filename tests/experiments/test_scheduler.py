"""Stages side by side: inputs first, never too many at once, failures contained, stops kept."""

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


def test_an_error_that_is_a_bug_is_not_swallowed(tmp_path):
    stages = _stages(tmp_path, [[]], Ledger(), [(0, ZeroDivisionError())])
    with pytest.raises(ZeroDivisionError):
        run_stages(stages, None, 1, lambda *_: None)
