"""``verify --engines`` where one engine is not, and its runs are."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from data_prep.digits import build_digits
from pycaffe_prune.cli.verify.command import verify
from pycaffe_prune.engines.caffe.python import CAFFE_PYTHON_VARIABLE
from pycaffe_prune.engines.torch.engine import TorchEngine
from pycaffe_prune.errors import EngineError, FormatError

pytest.importorskip("torch")
pytestmark = pytest.mark.real_caffe

NET = """
layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  transform_param { scale: 0.00390625 }
  data_param { source: "mnist_train_lmdb" batch_size: 32 backend: LMDB } }
layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TEST }
  transform_param { scale: 0.00390625 }
  data_param { source: "mnist_test_lmdb" batch_size: 100 backend: LMDB } }
layer { name: "ip1" type: "InnerProduct" bottom: "data" top: "ip1"
  inner_product_param { num_output: 20 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "ip1" top: "ip1" }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip2" bottom: "label" top: "accuracy"
  include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }
"""

Place = Callable[[str], Path]
LOW = ("--tolerance", "1e-12")  # so that the twin is needed


def run(place: Path, *options: str | Path, iterations: int = 12) -> Result:
    words: Sequence[str | Path] = (
        *("--engines", "caffe,torch", "--solver", place / "solver.prototxt", "--json"),
        *("--data", place / "digits", "--out", place / "runs", "--iterations", str(iterations)),
        *options,
    )
    return CliRunner().invoke(verify, [*map(str, words)])


@pytest.fixture(scope="module")
def stored(caffe_python: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A machine with Caffe, on which the command was given."""
    here = tmp_path_factory.mktemp("here")
    prepare(here)
    return here, run(here, "--caffe-python", caffe_python)


def prepare(place: Path) -> None:
    build_digits(place / "digits")
    prepare_net(place)


def prepare_net(place: Path) -> None:
    (place / "net.prototxt").write_text(NET)
    (place / "solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 0.05 momentum: 0.9 lr_policy: "fixed" max_iter: 5 '
        "test_iter: 3"
    )


@pytest.fixture
def elsewhere(stored: tuple[Path, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without Caffe, to which the runs of Caffe were brought, and nothing else."""
    here, _ = stored
    prepare(tmp_path)
    for kept in [here / "runs" / "initial", *(here / "runs").glob("caffe*")]:
        shutil.copytree(kept, tmp_path / "runs" / kept.name)
    monkeypatch.setenv(CAFFE_PYTHON_VARIABLE, str(tmp_path / "nowhere"))
    return tmp_path


def test_stored_runs_stand_for_an_engine_that_is_not_here(
    stored: tuple[Path, Result], elsewhere: Path
) -> None:
    _, first = stored
    assert first.exit_code == 0, first.output
    again = run(elsewhere)
    assert again.exit_code == 0, again.exception
    assert "caffe: its runs in" in again.stderr
    assert json.loads(again.stdout) == json.loads(first.stdout)


def test_the_twin_is_stored_before_it_is_needed(
    stored: tuple[Path, Result], elsewhere: Path
) -> None:
    told = json.loads(run(elsewhere, *LOW).stdout)
    allowed = [point["weights"]["allowed"] for point in told["checkpoints"]]
    assert all(1e-9 < one < 1e-3 for one in allowed)


def test_a_run_that_is_missing_or_too_short_is_named_with_what_makes_it(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("nothing is trained for a comparison that cannot be made")

    with monkeypatch.context() as patch:
        patch.setattr(TorchEngine, "train", refuse)
        found = run(elsewhere, iterations=13).exception
        assert isinstance(found, EngineError)
        assert f"{elsewhere}/runs/caffe: holds no finished run of 13 iterations" in str(found)
        assert "`caffe-prune verify --engines caffe@cpu,torch@cpu --iterations 13 " in str(found)
        (elsewhere / "runs" / "caffe" / "result.json").unlink()
        found = run(elsewhere).exception
        assert isinstance(found, EngineError)
        assert "holds no finished run of 12 iterations" in str(found)
    assert run(elsewhere, "--out", elsewhere / "other").exit_code == 1
    assert not (elsewhere / "other").exists()


def test_a_twin_or_initial_weights_that_are_missing_are_named(elsewhere: Path) -> None:
    shutil.rmtree(elsewhere / "runs" / "caffe-rounded")
    found = run(elsewhere, *LOW).exception
    assert isinstance(found, EngineError)
    assert f"{elsewhere}/runs/caffe-rounded: holds no finished run" in str(found)
    shutil.rmtree(elsewhere / "runs" / "initial")
    found = run(elsewhere).exception
    assert isinstance(found, EngineError)
    assert f"{elsewhere}/runs/initial: holds no finished run" in str(found)


def test_runs_of_another_job_are_refused(elsewhere: Path) -> None:
    net = elsewhere / "net.prototxt"
    net.write_text(net.read_text().replace("num_output: 20", "num_output: 21"))
    result = run(elsewhere)
    assert result.exit_code == 1
    assert "another run: layer 'ip1': num_output 20 -> 21" in str(result.exception)


@pytest.mark.parametrize("same", ["caffe@cpu,caffe", "torch,torch@cpu", "torch,torch"])
def test_an_engine_is_not_compared_with_itself_on_one_device(tmp_path: Path, same: str) -> None:
    result = run(tmp_path, "--engines", same)
    assert result.exit_code == 2
    assert "is compared with itself" in result.stderr


@pytest.mark.parametrize("wrong", ["caffe", "caffe,tensorflow", "caffe@gpu,torch", "torch,,caffe"])
def test_what_is_not_two_engines_is_refused(tmp_path: Path, wrong: str) -> None:
    result = run(tmp_path, "--engines", wrong)
    assert result.exit_code == 2
    assert f"'{wrong}' is not two engines" in result.stderr


def test_an_engine_may_be_named_with_its_device(stored: tuple[Path, Result]) -> None:
    here, first = stored
    again = run(here, "--engines", "caffe@cpu,torch@cpu", "--device", "cuda")
    assert again.exit_code == 0, again.exception
    assert json.loads(again.stdout) == json.loads(first.stdout)


def test_a_run_on_a_gpu_that_was_brought_here_is_asked_for_by_its_own_name(
    elsewhere: Path,
) -> None:
    (elsewhere / "runs" / "caffe-cuda").mkdir()
    found = run(elsewhere, "--engines", "caffe@cuda,torch@cpu").exception
    assert isinstance(found, EngineError)
    assert f"{elsewhere}/runs/caffe-cuda: holds no finished run" in str(found)
    assert "--engines caffe@cuda,torch@cpu" in str(found)


def test_a_stage_chooses_the_layers_that_both_engines_train(
    caffe_python: Path, stored: tuple[Path, Result], tmp_path: Path
) -> None:
    prepare_net(tmp_path)
    net = tmp_path / "net.prototxt"
    net.write_text(net.read_text().replace('top: "ip2"', 'top: "ip2" include { stage: "whole" }'))
    words = ("--engines", "caffe,torch", "--solver", tmp_path / "solver.prototxt", "--iterations=1")
    words = (*words, "--data", stored[0] / "digits", "--caffe-python", caffe_python)
    result = CliRunner().invoke(verify, [*map(str, words), "--stage", "whole"])
    assert (result.exit_code, "same" in result.output) == (0, True), result.output
    result = CliRunner().invoke(verify, [*map(str, words), "--stage", "hole"])
    assert isinstance(result.exception, FormatError)
    assert "'hole'" in str(result.exception)
