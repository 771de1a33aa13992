"""``caffe-prune reproduce``: what it would do, and what it does without MNIST."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from data_prep.digits import build_digits
from pycaffe_prune.cli.reproduce.command import reproduce
from pycaffe_prune.cli.reproduce.experiment_data import known_data_set
from pycaffe_prune.engines.base import TestScore
from pycaffe_prune.errors import FormatError
from pycaffe_prune.experiments.plan import make_plan, solver_path
from pycaffe_prune.experiments.spec import read_experiment
from pycaffe_prune.experiments.stages import StageOutput

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
[[methods]]
kind = "connections"
alphas = [1.0]
rounds = 1
iterations = 10
[[methods]]
kind = "units"
layer = "ip1"
ratios = [0.9]
iterations = 10
[[methods]]
kind = "small"
seeds = [1]
iterations = 10
"""


def test_a_dry_run_lists_every_stage_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(reproduce, ["lenet-300-100", "--preset", "paper-10k", "--dry-run"])
    assert done.exit_code == 0
    assert "113 stages, 113 to do: 1,130,000 iterations, about 19 core-minutes" in done.stdout
    assert "alpha2.8-round5" in done.stdout
    assert done.stdout.endswith(" ms an iteration\n")
    assert list(tmp_path.iterdir()) == []


def test_missing_weights_are_told_how_to_get_and_planned_for_all_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["caffenet-oxford102", "--preset", "paper"]
    done = CliRunner().invoke(reproduce, command)
    assert isinstance(done.exception, FormatError)
    assert "caffe-prune convert --from-zoo caffenet --out weights" in str(done.exception)
    done = CliRunner().invoke(reproduce, [*command, "--dry-run"])
    assert done.exit_code == 0
    text = " ".join(done.output.split())
    assert "convert --from-zoo caffenet" in text
    assert "53 stages, 53 to do: 2,650,000 iterations" in text
    assert list(tmp_path.iterdir()) == []


def test_a_variant_takes_over_the_stages_that_are_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    toml = Path("tiny.test.toml")
    toml.write_text(TINY)
    Path("tiny.other.toml").write_text(
        'name = "tiny"\npreset = "other"\nvariant_of = "test"\n[connections]\nrounds = 2\n'
    )
    spec = read_experiment(toml)
    place = tmp_path / "data" / "mnist"
    plan = make_plan(
        spec,
        solver_path(spec, toml),
        Path("runs/tiny-test"),
        place,
        known_data_set(place),
        "torch",
    )
    for stage in (*plan.baselines, *(chain.stages[0] for chain in plan.chains("units"))):
        score = TestScore(iteration=1, images=1, correct=1, accuracy=1, loss=0, finite=True)
        output = StageOutput(
            seed=1,
            kept=dict.fromkeys(spec.layers, 1),
            before=score,
            after=score,
            iterations=1,
            seconds=0,
            versions={},
            files={},
        )
        stage.folder.path.mkdir(parents=True)
        stage.folder.output.write_text(output.model_dump_json())
    options = ["--dry-run", "--engine", "torch"]
    done = CliRunner().invoke(reproduce, ["tiny.other.toml", *options])
    assert "5 stages, 3 to do: 30 iterations" in " ".join(done.output.split())
    done = CliRunner().invoke(reproduce, ["tiny.other.toml", *options, "--out", "elsewhere"])
    assert "5 stages, 5 to do: 70 iterations" in " ".join(done.output.split())


def test_a_method_that_only_torch_has_is_done_by_torch_unless_caffe_is_asked_for(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("tiny.toml").write_text(
        f'{TINY}[[methods]]\nkind = "obd"\nsparsities = [0.5]\nbatches = 1\niterations = 0\n'
    )
    done = CliRunner().invoke(reproduce, ["tiny.toml", "--dry-run"])
    assert done.exit_code == 0, done.output
    refused = CliRunner().invoke(reproduce, ["tiny.toml", "--dry-run", "--engine", "caffe"])
    assert "the method 'obd' cannot be done by the engine caffe" in str(refused.exception)


def test_a_file_is_one_preset_and_takes_no_other():
    done = CliRunner().invoke(reproduce, ["tiny.toml", "--preset", "paper", "--dry-run"])
    assert done.exit_code == 2
    assert "--preset goes with the name of an experiment" in done.output


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


def test_a_result_tells_how_it_was_trained_and_not_who_reported_it_last(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    build_digits(tmp_path / "digits")
    Path("tiny.test.toml").write_text(TINY)
    Path("tiny.other.toml").write_text(
        'name = "tiny"\npreset = "other"\nvariant_of = "test"\n[small]\nseeds = [1]\n'
    )

    def told(toml: str, run: str, *options: str) -> dict:
        command = [toml, "--data", "digits", "--engine", "torch", *options]
        done = CliRunner().invoke(reproduce, command)
        assert done.exit_code == 0, done.output
        found = json.loads(Path("runs", run, "result.json").read_text())
        return {name: found[name] for name in ("finished", "execution", "machine", "jobs")}

    trained = told("tiny.test.toml", "tiny-test", "--jobs", "2", "--accuracy", "accuracy")
    path = Path("runs/tiny-test/result.json")
    assert json.loads(path.read_text())["points"][0]["rounds"][0]["after"]["accuracy_name"]
    elsewhere = trained["machine"] | {"cpu": "of another machine"}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"machine": elsewhere}))
    trained["machine"] = elsewhere
    again = ("--jobs", "1", "--threads", "2")
    assert told("tiny.test.toml", "tiny-test", *again) == trained
    assert told("tiny.other.toml", "tiny-other", *again) == trained
    next(Path("runs/tiny-test/stages").glob("small-*/stage.json")).unlink()
    more = told("tiny.test.toml", "tiny-test", *again)
    assert (more["jobs"], more["execution"]["threads"]) == (1, 2)
    assert more["machine"] != elsewhere
    stages = [json.loads(path.read_text()) for path in Path("runs").rglob("stage.json")]
    assert sorted(stage["threads"] for stage in stages) == [1] * (len(stages) - 1) + [2]
    assert all(stage["machine"] == more["machine"] for stage in stages)


def _run(toml: str, out: str, *options: str) -> str:
    """Reproduce a preset of the digits, and return what was said, in one line."""
    command = [toml, "--data", "digits", "--engine", "torch", "--jobs", "1", "--out", out]
    done = CliRunner().invoke(reproduce, [*command, *options])
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split())


def _points(out: str) -> list[dict]:
    return json.loads(Path(out, "result.json").read_text())["points"]


def _require_the_same(points: list[dict], others: list[dict]) -> None:
    """The points are of the same stages and as good, whoever trained them."""
    for one, other in zip(points, others, strict=True):
        for field in ("key", "seed", "setting", "selected", "sizes"):
            assert one[field] == other[field]
        assert [part["after"] for part in one["rounds"]] == [
            part["after"] for part in other["rounds"]
        ]


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory):
    """A folder with digits, tiny.test.toml and, in `first`, what was reproduced by it."""
    folder = tmp_path_factory.mktemp("reproduced")
    build_digits(folder / "digits")
    (folder / "tiny.test.toml").write_text(TINY)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        _run("tiny.test.toml", "first")
    return folder


@pytest.fixture
def in_its_copy(reproduced, tmp_path, monkeypatch):
    """The working directory is a copy of `reproduced`, to be changed at will."""
    shutil.copytree(reproduced, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("in_its_copy")
def test_points_that_an_earlier_result_has_are_taken_from_it_and_not_trained():
    """As docs/reproduce.md shows it."""
    more = TINY.replace('preset = "test"', 'preset = "more"').replace("[1.0]", "[1.0, 2.0]")
    Path("tiny.more.toml").write_text(more)

    _run("tiny.more.toml", "whole")
    said = _run("tiny.more.toml", "rest", "--known", "first", "--dry-run")
    assert "2 stages, 2 to do: 40 iterations" in said
    _run("tiny.more.toml", "rest", "--known", "first/result.json")
    trained = {path.parent.name.rsplit("-", 1)[0] for path in Path("rest").rglob("stage.json")}
    assert trained == {"baseline-seed1", "alpha2-round1"}
    assert "3 from the preset test" in Path("rest/report.md").read_text()
    assert "3 from the preset test" in Path("rest/report.html").read_text()
    told = [point.pop("taken_from") for point in _points("rest")]
    assert told == [None, "test", None, "test", "test"]
    _require_the_same(_points("rest"), _points("whole"))
    # Whose a point was at first is still told when it is taken again.
    _run("tiny.more.toml", "again", "--known", "rest")
    assert [point["taken_from"] for point in _points("again")] == [
        *(None, "test", "more", "test", "test")
    ]


def test_what_the_best_of_several_led_to_is_not_trained_again_where_each_is_pruned(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    build_digits(tmp_path / "digits")
    Path("best.toml").write_text(
        TINY.replace("seeds = [1]\niterations = 30", "seeds = [1, 2]\niterations = 30")
    )
    each = (
        Path("best.toml").read_text().replace("iterations = 30", 'iterations = 30\nprune = "each"')
    )
    Path("each.toml").write_text(each.replace('preset = "test"', 'preset = "each"'))

    _run("best.toml", "best")
    _run("each.toml", "whole")
    _run("each.toml", "rest", "--known", "best")
    rest = _points("rest")
    taken = [point for point in rest if point["taken_from"]]
    assert [point["method"] for point in taken] == ["connections", "units", "small"]
    assert len({point["seed"] for point in taken[:2]}) == 1
    _require_the_same(rest, _points("whole"))


@pytest.mark.usefixtures("in_its_copy")
@pytest.mark.parametrize("older", [False, True], ids=["other-settings", "without-keys"])
def test_an_earlier_result_of_other_stages_is_refused(older):
    toml = Path("tiny.test.toml")
    command = [str(toml), "--data", "digits", "--engine", "torch", "--out"]
    if older:
        result = json.loads(Path("first/result.json").read_text())
        for point in result["points"]:
            point["key"] = None
        Path("first/result.json").write_text(json.dumps(result))
    else:
        toml.write_text(TINY.replace("= 10\n", "= 20\n"))
    done = CliRunner().invoke(reproduce, [*command, "second", "--known", "first"])
    assert isinstance(done.exception, FormatError)
    assert "no point went through the stages of this preset" in str(done.exception)
    assert not Path("second").exists()
    refused = CliRunner().invoke(reproduce, [*command, "x", "--known", "first", "--measure"])
    assert "--measure needs the nets of all points" in refused.output


def test_packed_stages_give_the_report_of_stages_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    build_digits(tmp_path / "digits")
    several = TINY.replace("seeds = [1]", "seeds = [1, 2, 3]").replace("[1.0]", "[0.5, 1.0]")
    (tmp_path / "tiny.toml").write_text(several)
    stages = {}
    for pack in (1, 4):
        out = tmp_path / f"pack{pack}"
        command = ["tiny.toml", "--data", "digits", "--engine", "torch", "--out", str(out)]
        done = CliRunner().invoke(reproduce, [*command, "--pack", str(pack)])
        assert done.exit_code == 0, done.output
        assert (out / "report.html").is_file()
        assert json.loads((out / "result.json").read_text())["execution"]["pack"] == pack
        stages[pack] = {
            path.parent.name: json.loads(path.read_text()) for path in out.rglob("stage.json")
        }
    alone, packed = stages[1], stages[4]
    assert alone.keys() == packed.keys()
    assert len(alone) == 9
    for name, one in alone.items():
        assert packed[name]["seed"] == one["seed"]
        # A weight at the threshold may be on its other side.
        assert packed[name]["kept"] == pytest.approx(one["kept"], rel=1e-3)
        for when in ("before", "after"):
            assert abs(packed[name][when]["correct"] - one[when]["correct"]) <= 1
            assert packed[name][when]["loss"] == pytest.approx(one[when]["loss"], rel=1e-3)
