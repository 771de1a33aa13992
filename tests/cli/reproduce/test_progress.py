"""What a sweep shows: stages done, speed, time left; and nothing that was done earlier as speed."""

import pytest
from rich.console import Console

from pycaffe_prune.cli.reproduce import progress
from pycaffe_prune.cli.reproduce.progress import sweep_progress
from pycaffe_prune.engines.base import Event


class _Stage:
    def __init__(self, name: str, iterations: int, *, done: bool = False) -> None:
        self.key = self.label = name
        self.iterations, self._done = iterations, done

    def output(self):
        return self._done or None


def _events(stage, *iterations: int):
    yield stage, Event(event="start")
    for iteration in iterations:
        yield stage, Event(event="progress", iteration=iteration, loss=0.5)
    yield stage, None


@pytest.fixture
def stages() -> list[_Stage]:
    return [_Stage("done", 50, done=True), _Stage("first", 100), _Stage("second", 300)]


def test_where_there_is_no_terminal_each_stage_is_a_line(stages, capsys):
    with sweep_progress(stages) as observe:
        for stage in stages[1:]:
            for told in _events(stage, 50, stage.iterations):
                observe(*told)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" (")[0] for line in lines] == [
        "2 of 3 stages done: first",
        "3 of 3 stages done: second",
    ]
    assert lines[-1].endswith("about 0:00:00 left)")


def test_a_stage_that_waits_for_another_process_says_where(stages, capsys):
    with sweep_progress(stages) as observe:
        told = {"event": "start", "waits_for": "runs/a/stages/first"}
        observe(stages[1], Event.model_validate(told))
        observe(stages[1], None)
    first = capsys.readouterr().err.splitlines()[0]
    assert first == "first: waits for another process, which works at it in runs/a/stages/first"


def test_what_every_stage_of_a_sweep_warns_of_is_said_once(stages, capsys):
    with sweep_progress(stages) as observe:
        for stage, message in zip(stages, ["0.9 ms", "1.1 ms", "1.0 ms"], strict=True):
            observe(stage, Event(event="warning", message=message))
    assert capsys.readouterr().err.splitlines() == ["warning: done: 0.9 ms"]


@pytest.mark.parametrize(("resumed", "left"), [(0, 30), (250, 5)])
def test_time_left_counts_what_this_run_has_to_do(stages, capsys, monkeypatch, resumed, left):
    """10 iterations a second; what a resumed stage had done is neither speed nor work."""
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    with sweep_progress(stages) as observe:
        observe(stages[2], Event(event="start"))
        if resumed:
            observe(stages[2], Event(event="resumed", iteration=resumed))
        clock[0] = 10.0
        for told in _events(stages[1], 100):
            observe(*told)
    assert f"10 it/s, about 0:00:{left:02} left" in capsys.readouterr().err


def test_a_terminal_shows_running_stages_and_one_that_begins_again(stages, monkeypatch):
    screen = Console(force_terminal=True, width=140, record=True)
    monkeypatch.setattr(progress, "console", screen)
    with sweep_progress(stages) as observe:
        for told in _events(stages[1], 40):
            observe(*told)
        for iteration in (200, 100):  # its worker died, and another one began again
            observe(stages[2], Event(event="start"))
            observe(stages[2], Event(event="progress", iteration=iteration, loss=0.25))
    shown = screen.export_text()
    assert "2 of 3 stages done" in shown
    assert "second" in shown
    assert "loss 0.2500" in shown
