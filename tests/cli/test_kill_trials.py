"""Commands that are killed leave in the end what an undisturbed run leaves; and that is noticed."""

import json
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parents[2] / "bench"
sys.path.insert(0, str(BENCH))

import kill_trials  # noqa: E402  (a script)

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
