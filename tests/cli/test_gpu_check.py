"""``make gpu-check``: its steps, with programs that only note their calls."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "bench/gpu_check.sh"

PROGRAM = """#!/bin/bash
[ "$1" = - ] && { echo a-card; exit; }
echo "$(basename "$0") $*" >> calls
[ ! -e fail-at ] || ! grep -q "$(cat fail-at)" <<< "$*" || exit 1
if [ "$1" = reproduce ]; then
    out="${@: -1}"
    mkdir -p "$out"
    touch "$out"/{result.json,report.md,figure.svg}
fi
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "bench").mkdir()
    shutil.copy(SCRIPT, tmp_path / "bench")
    (tmp_path / ".venv/bin").mkdir(parents=True)
    for name in ("caffe-prune", "pytest", "python"):
        program = tmp_path / ".venv/bin" / name
        program.write_text(PROGRAM)
        program.chmod(0o755)
    return tmp_path


def check(checkout: Path, **variables: str) -> tuple[int, list[str]]:
    """The exit code, and the first two words of each call."""
    calls = checkout / "calls"
    calls.write_text("")
    done = subprocess.run(
        [checkout / "bench/gpu_check.sh"],
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        check=False,
    )
    return done.returncode, [" ".join(call.split()[:2]) for call in calls.read_text().splitlines()]


STEPS = [
    *("caffe-prune data", "caffe-prune doctor", "pytest -q", "caffe-prune verify"),
    *("caffe-prune verify", "python bench/engines.py"),
    *("caffe-prune reproduce", "caffe-prune reproduce"),
]


def test_every_step_is_done_once(checkout: Path) -> None:
    assert check(checkout) == (0, STEPS)
    out = checkout / "results/gpu/a-card"
    assert {path.name for path in out.iterdir()} == {
        *("machine.txt", "tests.txt", "bench.txt", "parity-lenet.txt", "parity-lenet_300_100.txt"),
        *("lenet-300-100-paper", "lenet-5-paper"),
    }
    assert (out / "lenet-5-paper/result.json").is_file()
    assert check(checkout) == (0, [])


def test_a_step_that_fails_is_the_last_and_is_done_again(checkout: Path) -> None:
    (checkout / "fail-at").write_text("solvers/lenet.prototxt")
    code, calls = check(checkout)
    assert (code != 0, calls) == (True, STEPS[:5])
    (checkout / "fail-at").unlink()
    assert check(checkout) == (0, STEPS[4:])


def test_a_step_with_other_options_is_another_one(checkout: Path) -> None:
    assert check(checkout) == (0, STEPS)
    assert check(checkout, BENCH_ARGS="--turns 1") == (0, ["python bench/engines.py"])
    assert check(checkout, BENCH_ARGS="--turns 1") == (0, [])
    verify = ["caffe-prune verify", "caffe-prune verify"]
    assert check(checkout, BENCH_ARGS="--turns 1", ITERATIONS="9") == (0, verify)


def test_stored_trajectories_are_brought_before_the_comparison(checkout: Path) -> None:
    stored = checkout / "stored/lenet/caffe/result.json"
    stored.parent.mkdir(parents=True)
    stored.touch()
    code, _ = check(checkout, TRAJECTORIES="stored", NETWORKS="lenet", EXPERIMENTS="")
    assert code == 0
    assert (checkout / "runs/gpu/a-card/parity/lenet/caffe/result.json").is_file()


def test_when_the_time_is_over_nothing_more_is_begun(checkout: Path) -> None:
    code, calls = check(checkout, LIMIT="0")
    assert (code != 0, calls) == (True, [])
    assert check(checkout, LIMIT="100") == (0, STEPS)
