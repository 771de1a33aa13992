"""``docker/gpu-check``: its steps, with a caffe-prune that only notes its calls."""

import os
import subprocess
from pathlib import Path

import click
import pytest

from pycaffe_prune.cli import cli

SCRIPT = Path(__file__).parents[2] / "docker/gpu-check"

PROGRAM = """#!/bin/bash
echo "$@" >> calls
[ ! -e fail-at ] || ! grep -q -e "$(cat fail-at)" <<< "$*" || { echo "it broke"; exit 1; }
[ "$1" != doctor ] || echo '{"torch": {"gpus": ["NVIDIA H100 80GB HBM3"]}}'
while [ $# -gt 0 ]; do [ "$1" != --out ] || out=$2; shift; done
case $out in *-caffe-*|*-torch-*)
    mkdir -p "$out"
    echo '{"iterations": 1000, "tests": [{"accuracy": 0.975}], "seconds": 2.5}' > "$out/result.json"
    echo '{"event": "done"}' > "$out/log.jsonl";;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker/gpu-check").symlink_to(SCRIPT)
    program = tmp_path / "program"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    return tmp_path


def check(checkout: Path, **variables: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    calls = checkout / "calls"
    calls.write_text("")
    done = subprocess.run(
        [checkout / "docker/gpu-check"],
        env={
            "PATH": os.environ["PATH"],
            "CAFFE": str(checkout / "program"),
            "TORCH": str(checkout / "program"),
            **variables,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    return done, calls.read_text().splitlines()


def test_caffe_on_the_gpu_meets_the_cpu_and_torch_plain_and_masked(checkout: Path) -> None:
    done, calls = check(checkout, NETWORKS="lenet")
    assert done.returncode == 0, done.stderr
    compared = [call.split("--engines ")[1].split()[0] for call in calls if "--engines" in call]
    assert compared == ["caffe@cuda,caffe@cpu", "caffe@cuda,torch@cuda", "caffe@cuda,caffe@cpu"]
    assert sum("--mask" in call for call in calls) == 2
    report = (checkout / "results/gpu/nvidia-h100-80gb-hbm3/caffe.txt").read_text()
    for run in ("caffe-cpu", "caffe-cuda-plain", "caffe-cuda-masked", "torch-cuda"):
        line = next(line for line in report.splitlines() if line.startswith(f"lenet-{run} "))
        assert line.split()[1:] == ["97.50", "%", "2.500", "ms", "an", "iteration"]


def test_caffe_prune_takes_every_command_that_it_gives(checkout: Path) -> None:
    _, calls = check(checkout)
    assert {call.split()[0] for call in calls} == {
        *("doctor", "data", "verify", "train", "prune", "inspect")
    }
    for call in calls:
        words, command, context = call.split(), cli, click.Context(cli)
        while isinstance(command, click.Group):
            command = command.get_command(context, words.pop(0))
            assert command is not None, call
        command.make_context(call, words)  # raises on a word that it does not know


def test_what_is_done_is_not_done_again_and_what_failed_is(checkout: Path) -> None:
    (checkout / "fail-at").write_text("--engine torch")
    done, _ = check(checkout, NETWORKS="lenet")
    assert done.returncode == 1
    assert "failed: lenet-torch-cuda;" in done.stderr
    assert "it broke\nFAILED: lenet-torch-cuda\n" in done.stdout
    (checkout / "fail-at").unlink()
    done, calls = check(checkout, NETWORKS="lenet")
    assert done.returncode == 0, done.stderr
    assert [call.split()[:3] for call in calls] == [
        ["doctor", "--json"],
        ["train", "--engine", "torch"],
    ]


def test_without_a_gpu_it_ends_with_the_reason(checkout: Path) -> None:
    program = checkout / "program"
    program.write_text(PROGRAM.replace('["NVIDIA H100 80GB HBM3"]', "[]"))
    done, calls = check(checkout)
    assert done.returncode != 0
    assert "no GPU: `doctor` in the torch image says why" in done.stderr
    assert calls == ["doctor --json"]
