"""Commands that are killed leave in the end what an undisturbed run leaves; and that is noticed."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from pycaffe_prune.formats.caffe_pb2 import LayerParameter, NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer, write_caffemodel
from pycaffe_prune.formats.mask import MaskFile, write_mask

BENCH = Path(__file__).parents[2] / "bench"
sys.path.insert(0, str(BENCH))

import cluster_kill_trials  # noqa: E402  (scripts)
import kill_trials  # noqa: E402

sys.path.remove(str(BENCH))


def test_a_command_that_is_killed_ends_with_the_same_bits(tmp_path):
    out = tmp_path / "kills.json"
    command = [sys.executable, str(BENCH / "kill_trials.py"), "--kills", "2", "--only", "convert"]
    told = subprocess.run(
        [*command, "--out", str(out)], capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stderr
    (count,) = json.loads(out.read_text())
    assert (count["command"], count["kills"]) == ("convert", 2)
    assert (count["different"], count["leftovers"]) == ([], [])


def test_outcomes_tell_files_apart_but_not_when_and_where_they_were_made(tmp_path):
    told = {"seconds": 1.5, "points": [{"loss": 0.1234567, "machine": "a"}]}
    (tmp_path / "result.json").write_text(json.dumps(told))
    (tmp_path / "final.caffemodel").write_bytes(b"weights")
    (tmp_path / "log.jsonl").write_text("one way")
    before = kill_trials.outcome(tmp_path)
    assert sorted(before) == ["final.caffemodel", "result.json"]
    told = {"seconds": 2.5, "points": [{"loss": 0.12345671, "machine": "b"}]}
    (tmp_path / "result.json").write_text(json.dumps(told))
    (tmp_path / "log.jsonl").write_text("another way")
    assert kill_trials.outcome(tmp_path) == before
    told["points"][0]["loss"] = 0.2
    (tmp_path / "result.json").write_text(json.dumps(told))
    (tmp_path / "final.caffemodel").write_bytes(b"other weights")
    after = kill_trials.outcome(tmp_path)
    assert all(after[name] != before[name] for name in before)


def a_stage(folder, weight=1.0, name="here", seconds=1.5, correct=9):
    """A folder with one stage, done by a worker that has its data in a place of that name."""
    stage = folder / "run/stages/baseline-1"
    (stage / "train").mkdir(parents=True, exist_ok=True)
    layer = Layer(LayerParameter(name="ip"), (np.full((2, 3), weight, np.float32),))
    model = Caffemodel((layer,), NetParameter(name=name))
    write_caffemodel(stage / "train/final.caffemodel", model)
    mask = MaskFile({("ip", 0): np.eye(2, 3) > weight / 2}, name[0] * 64, "threshold")
    write_mask(stage / "kept.mask.h5", mask)
    told = {"seconds": seconds, "correct": correct, "files": {"kept.mask.h5": name}}
    (stage / "stage.json").write_text(json.dumps(told))
    (folder / "run/result.json").write_text(json.dumps({"jobs": 2, "points": [told]}))
    return {is_at_store: cluster_kill_trials.results(folder, is_at_store) for is_at_store in (0, 1)}


def test_sweeps_are_told_apart_by_what_they_found_and_left_not_by_where_that_was(tmp_path):
    before = a_stage(tmp_path)
    assert len(before[0]) == len(before[1]) == 4
    assert a_stage(tmp_path, seconds=2.5) == before
    elsewhere = a_stage(tmp_path, name="there")
    assert elsewhere[1] == before[1]
    assert elsewhere[0] != before[0]
    assert a_stage(tmp_path, correct=8)[1] != before[1]
    assert a_stage(tmp_path, weight=3.0)[1] != before[1]


def test_processes_that_outlive_the_one_that_was_killed_are_noticed(monkeypatch):
    monkeypatch.setattr(cluster_kill_trials, "PATIENCE", 0.2)
    parent = psutil.Popen(["sh", "-c", "sleep 60 & wait"])
    while not (children := parent.children()):
        assert parent.poll() is None
    try:
        with pytest.raises(SystemExit, match="1 processes outlive"):
            cluster_kill_trials.kill(parent)
    finally:
        children[0].kill()
    cluster_kill_trials.kill(parent)
