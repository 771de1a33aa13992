"""What older versions wrote is read as what it says."""

import json
import tomllib
from pathlib import Path

import pytest

from pycaffe_prune.errors import FormatError
from pycaffe_prune.experiments.migration import MigrationError, as_schema_2, with_methods
from pycaffe_prune.experiments.result import ExperimentResult, read_result, write_result
from pycaffe_prune.experiments.spec import ExperimentSpec, read_experiment
from pycaffe_prune.methods.registry import methods

ROOT = Path(__file__).parents[2]
COMMITTED = [
    path
    for path in sorted((ROOT / "results").glob("*/result.json"))
    if json.loads(path.read_text())["schema_version"] == 1
]
OLD_TOML = """
name = "old"
preset = "one"
title = "Old"
solver = "s.prototxt"
data = "mnist"
layers = ["ip1", "ip2"]
[baseline]
seeds = [1]
iterations = 10
[connections]
alphas = [0.9]
rounds = 2
iterations = 10
[units]
layer = "ip1"
ratios = [0.5, 0.9]
iterations = 10
[small]
seeds = [1]
iterations = 10
"""


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.parent.name)
def test_a_committed_result_says_the_same_in_schema_2(path: Path) -> None:
    written, result = json.loads(path.read_text()), read_result(path)
    assert written["schema_version"] == 1
    assert len(result.points) == len(written["points"])
    for point, old in zip(result.points, written["points"], strict=True):
        assert (point.method, point.alpha, point.units) == (
            old["method"],
            old["alpha"],
            old["units"],
        )
        assert [step.after.correct for step in point.rounds] == [
            step["after"]["correct"] for step in old["rounds"]
        ]
    ratios = [point.setting.value for point in result.points if point.method == "units"]
    assert ratios == written["settings"]["units"]["ratios"]
    for record in result.methods[1:]:
        ours = methods()[record.kind]
        assert (record.title, record.setting, record.control) == (
            ours.title,
            ours.setting,
            ours.control,
        )
    assert ExperimentSpec.model_validate(result.settings)


def test_a_result_of_schema_1_is_written_as_one_of_schema_2_and_stays_that(tmp_path: Path) -> None:
    result = read_result(COMMITTED[0])
    write_result(tmp_path / "result.json", result)
    assert json.loads((tmp_path / "result.json").read_text())["schema_version"] == 2
    assert read_result(tmp_path / "result.json") == result


@pytest.mark.parametrize(
    "harm",
    [{"points": 3}, {"settings": []}, {"points": [[], {}, None]}, {"points": [{"method": []}]}],
)
def test_what_is_damaged_is_one_sentence(tmp_path: Path, harm: dict[str, object]) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps(json.loads(COMMITTED[0].read_text()) | harm))
    with pytest.raises(FormatError, match=r"an experiment's result\.json is needed"):
        read_result(path)


def test_a_point_of_a_method_that_is_not_described_is_refused() -> None:
    fields = as_schema_2(json.loads(COMMITTED[0].read_text()))
    with pytest.raises(ValueError, match="which is not described"):
        ExperimentResult.model_validate(fields | {"methods": []})


def test_an_old_experiment_is_the_new_one(tmp_path: Path) -> None:
    new = OLD_TOML
    for kind in ("connections", "units", "small"):
        new = new.replace(f"[{kind}]", f'[[methods]]\nkind = "{kind}"')
    for name, text in (("old", OLD_TOML), ("new", new)):
        (tmp_path / f"{name}.toml").write_text(text)
    assert read_experiment(tmp_path / "old.toml") == read_experiment(tmp_path / "new.toml")
    fields = with_methods(tomllib.loads(OLD_TOML))
    assert with_methods(fields) == fields


def test_both_forms_at_once_are_refused() -> None:
    with pytest.raises(MigrationError, match=r"has \[\[methods\]\] and \[units\]"):
        with_methods({"methods": [], "units": {}})
