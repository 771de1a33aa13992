"""``caffe-prune train`` as a user meets it: exit codes, words, files, Ctrl-C."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_prep.digits import build_digits

pytestmark = pytest.mark.real_caffe

NET = """
layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  transform_param { scale: 0.00390625 }
  data_param { source: "mnist_train_lmdb" batch_size: 32 backend: LMDB } }
layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TEST }
  transform_param { scale: 0.00390625 }
  data_param { source: "mnist_test_lmdb" batch_size: 100 backend: LMDB } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy"
  include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """A folder with data, net and solver."""
    folder = tmp_path_factory.mktemp("train")
    build_digits(folder / "data")
    (folder / "net.prototxt").write_text(NET)
    (folder / "solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 0.01 lr_policy: "fixed" max_iter: 100 test_iter: 3 '
        "test_interval: 50"
    )
    return folder


def _command(work: Path, caffe_python: Path, out: str, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "pycaffe_prune", "train", "--caffe-python", str(caffe_python)),
        *("--solver", str(work / "solver.prototxt"), "--data", str(work / "data")),
        *("--out", str(work / out), *more),
    ]


def _run(*arguments) -> subprocess.CompletedProcess[str]:
    return subprocess.run(_command(*arguments), capture_output=True, text=True, check=False)


def test_a_run_leaves_weights_and_a_result_and_says_the_accuracy(work, caffe_python):
    done = _run(work, caffe_python, "run")
    assert done.returncode == 0, done.stderr
    result = json.loads((work / "run" / "result.json").read_text())
    assert result["iterations"] == 100
    last = result["tests"][-1]
    assert f"accuracy {100 * last['accuracy']:.2f} % ({last['correct']} of 297)" in done.stdout
    assert (work / "run" / "final.caffemodel").is_file()
    again = _run(work, caffe_python, "run")
    assert (again.returncode, again.stdout) == (0, done.stdout)


def test_a_dry_run_writes_nothing(work, caffe_python):
    done = _run(work, caffe_python, "dry", "--dry-run")
    assert done.returncode == 0
    assert "100 iterations" in done.stderr
    assert not (work / "dry").exists()


def test_another_seed_in_the_same_folder_is_refused_in_one_sentence(work, caffe_python):
    assert _run(work, caffe_python, "seeded", "--max-iter", "10").returncode == 0
    refused = _run(work, caffe_python, "seeded", "--max-iter", "10", "--seed", "9")
    assert refused.returncode == 1
    assert "another run, with other seed (was 1, now 9)" in " ".join(refused.stderr.split())
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_exits_130_and_the_same_command_goes_on(work, caffe_python, number):
    arguments = ("--max-iter", "60000", "--test-interval", "0")
    out = f"stopped-{number}"
    command = _command(work, caffe_python, out, *arguments)
    log = work / out / "log.jsonl"
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        while process.poll() is None and not (log.exists() and "progress" in log.read_text()):
            time.sleep(0.05)
        process.send_signal(number)
        _, errors = process.communicate()
    assert process.returncode == 130, errors
    assert b"same command goes on" in b" ".join(errors.split())
    states = list((work / out / "snapshots").glob("*.solverstate"))
    reached = int(states[0].stem.rpartition("_")[2])
    assert 0 < reached < 60000
    short = _run(work, caffe_python, out, "--max-iter", str(reached + 5), "--test-interval", "0")
    assert short.returncode == 0
    assert f"resumed at iteration {reached}" in short.stderr
