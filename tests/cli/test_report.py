import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pycaffe_prune.cli.report import report
from pycaffe_prune.errors import FormatError, PruneError
from pycaffe_prune.experiments.result import (
    DataSet,
    ExperimentResult,
    LayerRate,
    Machine,
    MethodRecord,
    Point,
    Round,
    Score,
    Setting,
    write_result,
)

FILES = ["figure.png", "figure.svg", "paper-5.png", "paper-5.svg"]
FILES += ["report.html", "report.json", "report.md"]


def _score(correct: int) -> Score:
    return Score(accuracy=correct / 1_000, correct=correct, images=1_000, loss=0.1, finite=True)


def _point(method: str, kept: int, correct: int, alpha: float | None = None) -> Point:
    layer = LayerRate(layer="ip1", weights=1_000, kept=kept, reduction=1 - kept / 1_000)
    step = Round(
        round=1,
        layers=(layer,),
        reduction=layer.reduction,
        before=_score(100),
        after=_score(correct),
        iterations=10,
        seconds=0.5,
    )
    setting = Setting(name="alpha", value=alpha, text="" if alpha is None else f"α = {alpha:g}")
    return Point(method=method, setting=setting, seed=1, rounds=(step,))


def _run(folder: Path, *, is_sample: bool = False) -> Path:
    """A finished run with its result.json."""
    data = DataSet(
        name="mnist",
        is_sample=is_sample,
        train_images=60_000,
        test_images=1_000,
        train_sha256="a",
        test_sha256="b",
    )
    result = ExperimentResult(
        experiment="lenet-300-100",
        preset="quick",
        title="LeNet-300-100",
        finished="2024-05-01T12:00:00+00:00",
        engine="caffe",
        versions={},
        machine=Machine(cpu="A CPU", cores=1, system="Linux"),
        jobs=1,
        wall_seconds=1,
        methods=[
            MethodRecord(name=name, kind=name, title=name, setting="alpha", source="")
            for name in ("baseline", "connections", "units")
        ],
        data=data,
        settings={},
        points=(_point("baseline", 1_000, 980), _point("connections", 80, 979, alpha=1.25)),
    )
    write_result(folder / "result.json", result)
    return folder


def _call(*arguments: Path | str) -> Result:
    return CliRunner().invoke(report, [str(word) for word in arguments], terminal_width=200)


@pytest.mark.parametrize("named", [".", "result.json"])
def test_the_report_goes_beside_the_result_by_default(tmp_path: Path, named: str) -> None:
    folder = _run(tmp_path / "run")
    done = _call(folder / named)
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in folder.iterdir()) == [*FILES, "result.json"]
    assert "α = 1.25" in done.output
    assert "within noise" in done.output  # 1,000 images cannot tell
    assert done.output.splitlines()[-1] == f"report {folder / 'report.html'}"


def test_out_takes_the_report_of_one_run(tmp_path: Path) -> None:
    folder = _run(tmp_path / "run")
    assert _call(folder, "--out", tmp_path / "made" / "here").exit_code == 0
    assert sorted(path.name for path in (tmp_path / "made" / "here").iterdir()) == FILES
    assert [path.name for path in folder.iterdir()] == ["result.json"]


def test_several_runs_share_one_page(tmp_path: Path) -> None:
    runs = [_run(tmp_path / name) for name in ("one", "two")]
    done = _call(*runs, "--out", tmp_path / "both")
    assert done.exit_code == 0
    assert done.output.count("\nreport ") == 1
    assert (tmp_path / "both" / "report.html").read_text().count('<section class="result"') == 2
    assert [path.name for path in runs[0].iterdir()] == ["result.json"]


def test_several_runs_need_a_folder(tmp_path: Path) -> None:
    runs = [_run(tmp_path / name) for name in ("one", "two")]
    refused = _call(*runs)
    assert refused.exit_code == 2
    assert "--out" in refused.output


def test_a_run_named_twice_is_refused(tmp_path: Path) -> None:
    folder = _run(tmp_path / "run")
    refused = _call(folder, folder / "result.json", "--out", tmp_path / "both")
    assert isinstance(refused.exception, PruneError)
    assert not (tmp_path / "both").exists()


def test_training_curves_are_written_when_asked_for(tmp_path: Path) -> None:
    folder = _run(tmp_path / "run")
    log = folder / "stages" / "baseline" / "train" / "log.jsonl"
    log.parent.mkdir(parents=True)
    log.write_text('{"event":"progress","iteration":100,"loss":0.5,"lr":0.01}\n')
    assert _call(folder).exit_code == 0
    assert list(log.parent.iterdir()) == [log]
    done = _call(folder, "--tensorboard", "--out", tmp_path / "report")
    assert "1 TensorBoard files" in done.output
    assert len(list(log.parent.glob("*.tfevents.*"))) == 1


def test_a_fault_in_the_last_run_leaves_nothing_behind(tmp_path: Path) -> None:
    good, bad = _run(tmp_path / "good"), _run(tmp_path / "bad")
    fields = json.loads((bad / "result.json").read_text())
    (bad / "result.json").write_text(json.dumps(fields | {"surplus": 1}))
    failed = _call(good, bad, "--out", tmp_path / "both")
    assert isinstance(failed.exception, FormatError)
    assert "surplus" in str(failed.exception)
    assert not (tmp_path / "both").exists()


def test_a_folder_without_a_result_says_what_is_missing(tmp_path: Path) -> None:
    failed = _call(tmp_path)
    assert isinstance(failed.exception, FormatError)
    assert "result.json" in str(failed.exception)


def test_a_sample_is_loud(tmp_path: Path) -> None:
    assert (
        "SAMPLE DATA, NOT THE REAL DATA SET" in _call(_run(tmp_path / "run", is_sample=True)).output
    )
    assert "SAMPLE DATA" not in _call(_run(tmp_path / "run")).output


def test_help_has_examples_and_no_run_is_code_2() -> None:
    shown = _call("--help")
    assert shown.exit_code == 0
    assert "  caffe-prune report runs/" in shown.output
    assert _call().exit_code == 2
