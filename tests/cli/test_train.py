"""``caffe-prune train`` as a user meets it: exit codes, words, files, Ctrl-C."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from data_prep.digits import build_digits
from pycaffe_prune.cli.train import train
from pycaffe_prune.formats.caffemodel import read_caffemodel
from pycaffe_prune.formats.mask import read_mask

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
    assert f"in '{last['accuracy_name']}' after 100 iterations" in done.stdout
    assert (work / "run" / "final.caffemodel").is_file()
    again = _run(work, caffe_python, "run")
    assert (again.returncode, again.stdout) == (0, done.stdout)


def test_several_weights_are_listed_and_a_state_is_gone_on_from(work, caffe_python):
    first = _run(work, caffe_python, "first", "--max-iter", "20")
    assert first.returncode == 0, first.stderr
    final = work / "first" / "final.caffemodel"
    both = _run(work, caffe_python, "both", "--max-iter", "5", "--weights", f"{final},{final}")
    assert both.returncode == 0, both.stderr
    assert both.stderr.count("weights: final.caffemodel: copied ip\n") == 2
    state = work / "first" / "snapshots" / "snapshot_iter_20.solverstate"
    on = _run(work, caffe_python, "on", "--max-iter", "30", "--restore", str(state))
    assert on.returncode == 0, on.stderr
    assert f"goes on from {state} at iteration 20" in on.stderr
    result = json.loads((work / "on" / "result.json").read_text())
    assert (result["restored"]["iteration"], result["iterations"]) == (20, 30)


def test_a_dry_run_writes_nothing(work, caffe_python):
    done = _run(work, caffe_python, "dry", "--dry-run")
    assert done.returncode == 0
    assert "100 iterations" in done.stderr
    assert not (work / "dry").exists()


def test_another_seed_in_the_same_folder_is_refused_in_one_sentence(work, caffe_python):
    assert _run(work, caffe_python, "seeded", "--max-iter", "10").returncode == 0
    refused = _run(work, caffe_python, "seeded", "--max-iter", "10", "--seed", "9")
    assert refused.returncode == 1
    assert "another run: seed 1 -> 9" in " ".join(refused.stderr.split())
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


def _train(work: Path, caffe_python: Path, out: str, engine: str, *more: str) -> Result:
    """One run with momentum and a rate that falls, so that a resume has something to lose."""
    solver = work / "momentum.prototxt"
    solver.write_text(
        'net: "net.prototxt" base_lr: 0.01 lr_policy: "inv" gamma: 0.01 power: 0.75 momentum: 0.9 '
        "weight_decay: 0.0005 max_iter: 80 test_iter: 3 test_interval: 80"
    )
    words = ["--solver", solver, "--data", work / "data", "--out", work / out, "--engine", engine]
    words += ["--caffe-python", caffe_python] if engine == "caffe" else []
    return CliRunner().invoke(train, [*map(str, words), *more])


@pytest.fixture(scope="module")
def straight(work: Path, caffe_python: Path) -> tuple[str, Path]:
    """Weights to begin with, and those after 80 iterations of the real Caffe."""
    assert _train(work, caffe_python, "start", "caffe", "--max-iter", "1").exit_code == 0
    start = str(work / "start" / "final.caffemodel")
    assert _train(work, caffe_python, "straight", "caffe", "--weights", start).exit_code == 0
    return start, work / "straight" / "final.caffemodel"


@pytest.mark.parametrize(("first", "second"), [("caffe", "torch"), ("torch", "caffe")])
def test_a_run_that_one_engine_began_goes_on_in_the_other(
    work, caffe_python, straight, first, second
):
    pytest.importorskip("torch")
    start, whole = straight
    out = f"{first}-{second}"
    begun = _train(work, caffe_python, out, first, "--weights", start, "--max-iter", "37")
    assert begun.exit_code == 0, begun.output
    done = _train(work, caffe_python, out, second, "--weights", start)
    assert done.exit_code == 0, done.output
    assert "resumed at iteration 37" in done.stderr
    result = json.loads((work / out / "result.json").read_text())
    assert (result["engine"], result["iterations"]) == (second, 80)
    assert ("torch" in result["versions"]) == (second == "torch")
    ours, theirs = (
        dict(read_caffemodel(path).blobs()) for path in (work / out / "final.caffemodel", whole)
    )
    for key, blob in theirs.items():
        assert np.abs(ours[key] - blob).max() <= 1e-4 * np.abs(blob).max()


def test_masks_that_change_are_told_in_a_file_and_left_as_one(work, caffe_python):
    pytest.importorskip("torch")
    told = work / "gradual.toml"
    told.write_text(
        'kind = "gradual"\nevery = 5\nchanges = 4\n[[blobs]]\nlayer = "ip"\nsparsity = 0.9\n'
    )
    done = _train(work, caffe_python, "gradual", "torch", "--masking", str(told))
    assert done.exit_code == 0, done.output
    left = work / "gradual" / "final.mask.h5"
    assert done.stdout.endswith(f"masks {left}\n")
    (mask,) = read_mask(left).masks.values()
    assert np.count_nonzero(~mask) == round(0.9 * mask.size)
    weights = read_caffemodel(work / "gradual" / "final.caffemodel").layer("ip").blobs[0]
    assert not weights[~mask].any()
