"""Pre-training: a stage of its own, on data of its own, whose layers fine-tuning begins with."""

from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

from data_prep.subset import Subset, build_subset
from pycaffe_prune.cli.reproduce.command import reproduce
from pycaffe_prune.errors import DataError, FormatError
from pycaffe_prune.experiments.plan import Plan, make_plan
from pycaffe_prune.experiments.pretrained import Pretrained
from pycaffe_prune.experiments.pretraining import PretrainingFiles
from pycaffe_prune.experiments.result import DataSet, read_result
from pycaffe_prune.experiments.spec import read_experiment
from pycaffe_prune.experiments.store.moving import Kept, moved
from pycaffe_prune.formats.caffemodel import read_caffemodel

TOML = """
name = "small"
preset = "test"
title = "Small"
solver = "tuning.prototxt"
data = "subset"
layers = ["ip1", "ip2", "ip3_new"]
[data_settings]
folder = "digits-5-9"
[pretraining]
solver = "solver.prototxt"
folder = "digits-0-4"
iterations = 30
net = { units = { ip3 = 5 } }
[baseline]
seeds = [1, 2]
iterations = 5
prune = "each"
[[methods]]
kind = "units"
layer = "ip1"
ratios = [0.5]
iterations = 5
"""


@pytest.fixture
def tuned(toml: Path) -> Path:
    """The experiment: its net has a new classifier, and learns nothing, so that weights stay."""
    folder = toml.parent
    net = (folder / "net.prototxt").read_text()
    (folder / "tuned.prototxt").write_text(net.replace('"ip3"', '"ip3_new"').replace("10", "5"))
    solver = (folder / "solver.prototxt").read_text()
    tuning = solver.replace("net.prototxt", "tuned.prototxt").replace("base_lr: 0.02", "base_lr: 0")
    (folder / "tuning.prototxt").write_text(tuning)
    toml.write_text(TOML)
    return toml


def plan(toml: Path, out: Path, data_set: DataSet, other: DataSet, **changed: object) -> Plan:
    files = PretrainingFiles(toml.parent / "solver.prototxt", out, other)
    return make_plan(
        read_experiment(toml),
        toml.parent / "tuning.prototxt",
        *(out, out, data_set, "torch"),
        **{"pretraining": files, **changed},  # type: ignore[arg-type]
    )


def keys(found: Plan) -> dict[str, str]:
    return {stage.key: stage.kind for stage in found.stages}


def test_all_stages_hang_on_the_pre_training_and_it_on_its_own_data_alone(
    tuned, tmp_path, data_set
):
    before = plan(tuned, tmp_path, data_set, data_set)
    kinds = ["pretraining"] * 2 + ["baseline"] * 2 + ["units"] * 2
    assert [stage.kind for stage in before.stages] == kinds
    assert [one.seed for one in before.pretrainings] == [1, 2]
    assert all(one.inputs == (one.pretraining,) for one in before.baselines)
    other = data_set.model_copy(update={"train_sha256": "3" * 64})

    def kept(found: Plan) -> set[str]:
        return {kind for key, kind in keys(before).items() if key in keys(found)}

    assert kept(plan(tuned, tmp_path, data_set, other)) == set()
    assert kept(plan(tuned, tmp_path, other, data_set)) == {"pretraining"}
    text = tuned.read_text()
    tuned.write_text(text.replace("iterations = 30", "iterations = 31"))
    assert kept(plan(tuned, tmp_path, data_set, data_set)) == set()
    tuned.write_text(text.replace("iterations = 5\nprune", "iterations = 6\nprune"))
    assert kept(plan(tuned, tmp_path, data_set, data_set)) == {"pretraining"}


def test_workers_elsewhere_see_the_pre_training_with_its_own_data_under_the_same_key(
    tuned, tmp_path, data_set
):
    found = plan(tuned, tmp_path, data_set, data_set)
    places = Kept(found.pretrainings[0].context.folder)
    for stage in found.stages:
        assert moved(stage, places).key == stage.key
    there = moved(found.baselines[0], places).pretraining
    assert there.context.solver.parent.parent == tmp_path / "inputs"
    assert there.context.solver.read_text() == (tuned.parent / "solver.prototxt").read_text()


def test_an_experiment_begins_with_one_kind_of_weights(tuned, tmp_path, data_set):
    own = Pretrained(tmp_path / "own.model", "5" * 64)
    with pytest.raises(FormatError, match=r"preset 'test': has a \[pretraining\] .*own\.model"):
        plan(tuned, tmp_path, data_set, data_set, pretrained=own)
    with pytest.raises(FormatError, match=r"solver and data of \[pretraining\] are needed"):
        plan(tuned, tmp_path, data_set, data_set, pretraining=None)
    tuned.write_text(f'{TOML}\n[weights]\npath = "w"\n')
    with pytest.raises(FormatError, match="give either weights or pretraining"):
        read_experiment(tuned)


def test_fine_tuning_begins_with_the_layers_of_the_pre_training_and_a_new_classifier(
    tuned, tmp_path, digits, monkeypatch
):
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    command = [str(tuned), "--out", "run", "--engine", "torch", "--jobs", "1"]
    quiet = Console(file=StringIO())
    build_subset(Path("data/digits-5-9"), Subset(digits, range(5, 10)), console=quiet)
    missing = CliRunner().invoke(reproduce, command)
    assert isinstance(missing.exception, DataError)
    assert "what the experiment pre-trains on" in str(missing.exception)
    build_subset(Path("data/digits-0-4"), Subset(digits, range(5)), console=quiet)
    listed = CliRunner().invoke(reproduce, [*command, "--dry-run"])
    assert (listed.exit_code, "6 stages, 6 to do: 80 iterations" in listed.output) == (0, True)
    done = CliRunner().invoke(reproduce, command)
    assert done.exit_code == 0, done.output

    def weights(stage: str) -> dict[str, np.ndarray]:
        (folder,) = Path("run/stages").glob(f"{stage}-*")
        model = read_caffemodel(folder / "train/final.caffemodel")
        return {layer.name: layer.blobs[0] for layer in model.layers if layer.blobs}

    for seed in (1, 2):
        before, after = weights(f"pretraining-seed{seed}"), weights(f"baseline-seed{seed}")
        assert (before.keys(), after.keys()) == (
            {"ip1", "ip2", "ip3"},
            {"ip1", "ip2", "ip3_new"},
        )
        assert before["ip3"].shape == (5, 12)
        for name in ("ip1", "ip2"):
            np.testing.assert_array_equal(before[name], after[name])
    result = read_result(Path("run/result.json"))
    assert [(row.seed, row.iterations) for row in result.pretraining] == [(1, 30), (2, 30)]
    assert result.pretraining[0].data != result.data
    assert result.data.name == "subset"
    # The digits that it was trained on, it knows; with a new classifier that learns nothing, none.
    assert all(row.after.accuracy > 0.4 for row in result.pretraining)
    again = CliRunner().invoke(reproduce, [*command, "--dry-run"])
    assert "6 stages, 0 to do" in again.output
