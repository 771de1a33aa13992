"""Who does the stages: options that contradict each other, a cluster that is not there."""

import sys

import click
import pytest

from pycaffe_prune.cli.reproduce import crew
from pycaffe_prune.cli.reproduce.crew import crew_to_work_with
from pycaffe_prune.engines.choice import EngineWish
from pycaffe_prune.errors import EngineError


def test_a_store_without_a_cluster_is_a_fault_of_the_command_line():
    with (
        pytest.raises(click.UsageError, match="--store goes with --scheduler"),
        crew_to_work_with(EngineWish(), 1, None, "s3://bucket/run"),
    ):
        pass


def test_without_dask_the_way_to_get_it_is_said(monkeypatch):
    monkeypatch.setattr(crew, "find_spec", lambda _: None)
    with (
        pytest.raises(EngineError, match=r"pip install 'pycaffe-prune\[cluster\]'"),
        crew_to_work_with(EngineWish("torch"), 1, "tcp://127.0.0.1:9", None),
    ):
        pass


def test_one_machine_does_without_dask(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    seen = []
    monkeypatch.setattr(crew, "run_stages", lambda *told: seen.append(told))
    with crew_to_work_with(EngineWish("torch"), 3, None, None) as found:
        assert (found.engine_name, found.jobs) == ("torch", 3)
        found.run([], lambda *_: None)
    assert seen[0][2] == 3


def test_a_stop_keeps_stages_from_being_begun_too(monkeypatch):
    seen = []
    monkeypatch.setattr(crew, "run_stages", lambda *told: seen.append(told))
    with crew_to_work_with(EngineWish("torch"), 3, None, None) as found:
        found.stop()
        found.run([], lambda *_: None)
    assert seen[0][4].asked
