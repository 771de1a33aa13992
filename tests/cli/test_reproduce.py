"""``caffe-prune reproduce``: what it would do, and what it does without MNIST."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from pycaffe_prune.cli.reproduce import reproduce

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
[connections]
alphas = [1.0]
rounds = 1
iterations = 10
[units]
layer = "ip1"
ratios = [0.9]
iterations = 10
[small]
seeds = [1]
iterations = 10
"""


def test_a_dry_run_lists_every_stage_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(reproduce, ["lenet-300-100", "--preset", "paper-10k", "--dry-run"])
    assert done.exit_code == 0
    text = " ".join(done.output.split())
    assert "113 stages, 113 to do: 1,130,000 iterations, about 19 core-minutes" in text
    assert "alpha2.8-round5" in text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--engine caffe --tf32 --device cuda", "--tf32 is for the engine torch"),
        ("--engine caffe --pack 2", "--pack is for the engine torch"),
        ("--tf32", "--tf32 goes with --device cuda"),
        ("--device gpu", "'gpu' is neither cpu nor cuda nor cuda:N"),
        ("--engine torch --caffe-python python3", "--caffe-python goes with --engine caffe"),
        ("--threads 0", "--threads"),
    ],
)
def test_what_an_engine_cannot_be_told_is_a_fault_of_the_command_line(options, message):
    done = CliRunner().invoke(reproduce, ["lenet-300-100", "--dry-run", *options.split()])
    assert done.exit_code == 2
    assert message in " ".join(done.output.replace("│", " ").split())


@pytest.mark.real_caffe
def test_without_mnist_and_network_the_sample_is_used_and_said_loudly(tmp_path, caffe_python):
    (tmp_path / "tiny.toml").write_text(TINY)
    environment = {
        name: value for name, value in os.environ.items() if name != "PYCAFFE_PRUNE_DATA"
    }
    environment |= {
        "PYCAFFE_PRUNE_MNIST_MIRRORS": "http://127.0.0.1:9/",  # nothing listens there
        "PYCAFFE_PRUNE_CACHE": str(tmp_path / "cache"),
    }
    command = [sys.executable, "-m", "pycaffe_prune", "reproduce", "tiny.toml"]
    done = subprocess.run(
        [*command, "--caffe-python", str(caffe_python)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "GOING ON WITH THE BUNDLED SAMPLE" in done.stderr
    run = Path(tmp_path / "runs" / "tiny-test")
    data = json.loads((run / "result.json").read_text())["data"]
    assert (data["is_sample"], data["train_images"], data["test_images"]) == (True, 1500, 297)
    for page in ("report.md", "report.html"):
        assert "sample" in (run / page).read_text().lower()
    assert str(Path("runs/tiny-test/report.html")) in done.stdout
