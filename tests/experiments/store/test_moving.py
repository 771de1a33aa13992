"""Stages in other places keep their keys, and everything they name exists there."""

from dataclasses import fields

import pytest

from pycaffe_prune.experiments.plan import make_plan
from pycaffe_prune.experiments.pretrained import Pretrained
from pycaffe_prune.experiments.spec import read_experiment
from pycaffe_prune.experiments.stages import Context, Stage
from pycaffe_prune.experiments.store.moving import Kept, moved


@pytest.fixture
def stages(toml, tmp_path, data_set, monkeypatch):
    """All stages of an experiment that begins with trained weights, named by relative paths."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "begin.caffemodel").write_bytes(b"weights")
    retraining = toml.parent / "retraining.prototxt"
    retraining.write_text((toml.parent / "solver.prototxt").read_text() + "# slower")
    folder = toml.parent.relative_to(tmp_path)
    return make_plan(
        read_experiment(toml),
        folder / "solver.prototxt",
        folder.parent / "run",
        folder.parent / "data",
        data_set,
        "torch",
        retraining_solver=folder / "retraining.prototxt",
        pretrained=Pretrained(folder.parent / "begin.caffemodel", "0" * 64),
    ).stages


def _paths(value):
    """All paths that a stage names, at any depth."""
    if isinstance(value, Context):
        return [value.folder.path, value.solver, value.net, value.data, value.retraining_solver]
    if isinstance(value, Pretrained):
        return [value.path]
    if isinstance(value, Stage):
        return [path for field in fields(value) for path in _paths(getattr(value, field.name))]
    if isinstance(value, tuple):
        return [path for part in value for path in _paths(part)]
    return []


def test_kept_stages_have_their_keys_and_name_whole_paths_that_outlive_the_originals(
    stages, toml, tmp_path
):
    kept = Kept(stages[0].context.folder)
    elsewhere = [moved(stage, kept) for stage in stages]
    assert [stage.key for stage in elsewhere] == [stage.key for stage in stages]
    assert [stage.folder.path for stage in elsewhere] == [
        stage.folder.path.resolve() for stage in stages
    ]
    for file in toml.parent.iterdir():
        file.unlink()
    (tmp_path / "begin.caffemodel").unlink()
    (tmp_path / "run").mkdir(exist_ok=True)
    paths = {path for stage in elsewhere for path in _paths(stage)}
    assert len(paths) == 6
    assert all(path.is_absolute() and path.exists() for path in paths)
