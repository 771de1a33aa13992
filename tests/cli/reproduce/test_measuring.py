"""``caffe-prune reproduce --measure``: times of the real Caffe stay with the result."""

import json
import traceback
from pathlib import Path

import pytest
from click.testing import CliRunner

from data_prep.digits import build_digits
from pycaffe_prune.cli.reproduce.command import reproduce
from pycaffe_prune.experiments.result import read_result
from pycaffe_prune.reports.methods.worth import worth

pytestmark = pytest.mark.real_caffe

TINY = """
name = "tiny"
preset = "test"
title = "LeNet-300-100"
solver = "solvers/lenet_300_100.prototxt"
data = "mnist"
layers = ["ip1", "ip2", "ip3"]
[baseline]
seeds = [1]
iterations = 30
[[methods]]
kind = "connections"
alphas = [0.5, 4.0]
rounds = 1
iterations = 5
[[methods]]
kind = "low-rank"
layers = ["ip1"]
parameters = [0.5]
iterations = 5
"""


def test_the_nets_of_the_report_are_timed_and_their_times_are_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    build_digits(tmp_path / "digits")
    Path("tiny.test.toml").write_text(TINY)

    def told(*options: str) -> dict[tuple[str, str], float | None]:
        command = ["tiny.test.toml", "--data", "digits", "--engine", "torch", "--jobs", "1"]
        done = CliRunner().invoke(reproduce, [*command, *options])
        assert done.exit_code == 0, traceback.format_exception(*done.exc_info)[-3:]
        result = read_result(Path("runs/tiny-test/result.json"))
        wanted = {row.name for row in worth(result)}
        measured = {p.method for p in result.points if p.speed is not None}
        assert measured in (set(), wanted)
        for row in worth(result):
            assert (row.milliseconds is not None) == (row.name in measured)
        return {
            (point.method, point.setting.text): None if point.speed is None else point.speed.one
            for point in result.points
        }

    first = told("--measure")
    assert first["baseline", ""]
    assert all(time is None or time > 0 for time in first.values())
    assert told() == first
    report = json.loads(Path("runs/tiny-test/report.json").read_text())
    rows = report["results"][0]["worth_at_equal_accuracy"]
    assert rows[0]["milliseconds"] == first["baseline", ""]


def test_what_is_measured_is_refused_where_nothing_would_be(tmp_path):
    done = CliRunner().invoke(reproduce, ["lenet-300-100", "--dry-run", "--measure"])
    assert done.exit_code == 2
    assert "--measure" in done.output
