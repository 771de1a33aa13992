import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from data_prep.digits import build_digits
from pycaffe_prune.cli.prune.command import prune
from pycaffe_prune.cli.sensitivity import sensitivity
from pycaffe_prune.engines.caffe.engine import CaffeEngine
from pycaffe_prune.engines.job import TrainRequest
from pycaffe_prune.engines.run import train
from pycaffe_prune.errors import PruneError
from pycaffe_prune.experiments.sensitivity.result import read_sensitivity
from pycaffe_prune.formats.caffemodel import read_caffemodel
from pycaffe_prune.formats.mask import read_mask

pytestmark = pytest.mark.real_caffe

NET = """
name: "small"
layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  transform_param { scale: 0.00390625 }
  data_param { source: "mnist_train_lmdb" batch_size: 32 backend: LMDB } }
layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TEST }
  transform_param { scale: 0.00390625 }
  data_param { source: "mnist_test_lmdb" batch_size: 99 backend: LMDB } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 7 stride: 4 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy"
  include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
SOLVER = 'net: "net.prototxt" base_lr: 0.02 momentum: 0.9 lr_policy: "fixed" max_iter: 200'


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory, caffe_python: Path) -> Path:
    """A folder with the digits' LMDBs, a net with a convolution, and its trained weights."""
    folder = tmp_path_factory.mktemp("model")
    build_digits(folder / "digits")
    (folder / "net.prototxt").write_text(NET)
    (folder / "solver.prototxt").write_text(SOLVER)
    request = TrainRequest(
        solver=folder / "solver.prototxt", data=folder / "digits", test_interval=0
    )
    train(request, folder / "run", CaffeEngine(caffe_python), lambda _: None)
    (folder / "run" / "final.caffemodel").rename(folder / "w.caffemodel")
    return folder


@pytest.fixture
def arguments(model: Path) -> list[str]:
    files = {"--net": "net.prototxt", "--weights": "w.caffemodel", "--data": "digits"}
    return [item for option, name in files.items() for item in (option, str(model / name))]


def run(*words: object) -> Result:
    return CliRunner().invoke(sensitivity, [str(word) for word in words])


def test_a_suggestion_ends_in_a_command_that_prunes_what_was_measured(
    arguments: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = run(*arguments, "--rates", "0.9,0.3,0.6", "--suggest", 0.7, "--out", out)
    assert result.exit_code == 0, result.output
    written = {path.name for path in out.iterdir()} - {".lock"}
    assert written == {"sensitivity.json", "sensitivity.png", "sensitivity.svg"}
    found = read_sensitivity(out / "sensitivity.json")
    assert [layer.layer for layer in found.settings.layers] == ["conv", "ip"]
    assert found.settings.rates == (0.3, 0.6, 0.9)
    assert (found.is_sample, found.data) == (True, "digits")
    assert "SAMPLE DATA" in result.stdout
    assert found.suggestion is not None
    (command,) = [line for line in result.stdout.splitlines() if "prune connections" in line]
    words = command.split()[2:]
    words[words.index("--out") + 1] = str(tmp_path / "pruned")
    assert CliRunner().invoke(prune, words).exit_code == 0
    masks = read_mask(tmp_path / "pruned" / "kept.mask.h5").masks
    kept = {row.layer: row.kept for row in found.suggestion.suggested.layers if row.alpha}
    assert {name: int(mask.sum()) for (name, _), mask in masks.items()} == kept

    before = (out / "sensitivity.json").read_bytes()
    again = run(*arguments, "--rates", "0.3,0.6,0.9", "--out", out, "--caffe-python", "/bin/false")
    assert again.exit_code == 0, again.output
    assert (out / "sensitivity.json").read_bytes() == before
    assert "prune connections" not in again.stdout


def test_a_dry_run_says_what_is_to_do_and_writes_nothing(
    arguments: list[str], tmp_path: Path
) -> None:
    suggestions = ("--suggest", 0.5, "--suggest-budget", "bytes=0.3")
    result = run(*arguments, *suggestions, "--dry-run", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "conv (196), ip (" in result.stderr
    assert "25 tests of 297 images" in result.stderr
    assert not (tmp_path / "out").exists()


def test_units_by_another_criterion(arguments: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ("--method", "units", "--criterion", "l1", "--rates", "0.5", "--images", 99)
    result = run(*arguments, *options, "--suggest-budget", "parameters=0.8", "--out", out)
    assert result.exit_code == 0, result.output
    found = read_sensitivity(out / "sensitivity.json")
    assert found.settings.criterion == "l1"
    assert [(point.layer, point.kept) for point in found.points] == [("conv", 2)]
    assert found.baseline.images == 99
    suggestion = found.budget_suggestion
    assert suggestion is not None
    (command,) = [line for line in result.stdout.splitlines() if "prune units" in line]
    words = command.split()[2:]
    words[words.index("--out") + 1] = str(tmp_path / "small")
    assert CliRunner().invoke(prune, words).exit_code == 0
    small = read_caffemodel(tmp_path / "small" / "pruned.caffemodel")
    left = sum(blob.size for _, blob in small.blobs())
    assert left == suggestion.suggested.amount <= suggestion.budget
    assert suggestion.budget == int(0.8 * suggestion.whole)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--criterion l1", "--criterion goes with --method units"),
        ("--suggest 0.96", "highest rate (0.95)"),
        ("--method units --suggest 0.5", "--suggest R goes with --method connections"),
        ("--suggest-budget weights=0.1", "'weights=0.1' is no budget; it is one of parameters,"),
        ("--rates 0.5,many", "'0.5,many' is no list of shares"),
        ("--rates 50", "'50' is no list of shares"),
        ("--rates 0,0.5", "is no list of shares"),
    ],
)
def test_what_does_not_go_together_is_a_fault_of_the_command_line(
    arguments: list[str], tmp_path: Path, options: str, message: str
) -> None:
    result = run(*arguments, *options.split(), "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert message in " ".join(result.output.replace("│", " ").split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--layers fc*", "no layer 'fc*'"),
        ("--data {out}", "caffe-prune data"),
        ("--weights {out}/w.caffemodel", "w.caffemodel: no such file"),
        ("--images 298", "holds 297 images"),
    ],
)
def test_bad_input_is_one_sentence_and_makes_no_folder(
    arguments: list[str], tmp_path: Path, options: str, message: str
) -> None:
    out = tmp_path / "out"
    result = run(*arguments, *options.format(out=out).split(), "--out", out)
    assert isinstance(result.exception, PruneError)
    assert message in str(result.exception)
    assert "\n" not in str(result.exception)
    assert not out.exists()


def test_an_interrupted_analysis_exits_130_and_the_same_command_goes_on(
    arguments: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    rates = ",".join(f"0.{rate:03}" for rate in range(1, 300))
    command = [sys.executable, "-m", "pycaffe_prune", "sensitivity", *arguments]
    command += ["--layers", "ip", "--rates", rates, "--out", str(out)]
    file = out / "sensitivity.json"
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        while process.poll() is None and not (file.exists() and '"alpha"' in file.read_text()):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
    assert process.returncode == 130, errors
    assert b"of 299 points done; the same command goes on" in b" ".join(errors.split())
    done = read_sensitivity(file).points
    assert 0 < len(done) < 299
    rest = subprocess.run(command, capture_output=True, text=True, check=False)
    assert rest.returncode == 0, rest.stderr
    points = read_sensitivity(file).points
    assert len(points) == 299
    assert set(done) < set(points)
    assert not (out / "testing").exists()
