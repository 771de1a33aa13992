"""Methods whose masks change while the net trains: what they plan, and one small run of both."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from pydantic import ValidationError

from data_prep.digits import build_digits
from pycaffe_prune.cli import cli
from pycaffe_prune.errors import FormatError
from pycaffe_prune.experiments.result import read_result
from pycaffe_prune.experiments.spec import read_experiment
from pycaffe_prune.formats.caffemodel import read_caffemodel
from pycaffe_prune.formats.mask import read_mask
from pycaffe_prune.methods.dynamic_surgery import DynamicSurgery
from pycaffe_prune.methods.gradual import Gradual

HEAD = """
name = "moving"
preset = "one"
title = "Moving"
solver = "solver.prototxt"
data = "mnist"
layers = ["ip1", "ip2", "ip3"]
[baseline]
seeds = [1]
iterations = 20
"""
SURGERY = """
[[methods]]
kind = "dynamic-surgery"
cs = [0.5, 1.0]
more = { ip3 = -1.0 }
iterations = 12
stop = 9
"""
GRADUAL = """
[[methods]]
kind = "gradual"
sparsities = [0.5, 0.9]
own = { ip3 = 0.4 }
iterations = 12
every = 2
changes = 4
initial = 0.1
"""


def test_one_run_of_both_reaches_what_they_are_told(
    tmp_path: Path, small_net: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = CliRunner()
    toml = small_net / "moving.toml"
    toml.write_text(HEAD + SURGERY + GRADUAL)
    monkeypatch.chdir(tmp_path)
    build_digits(Path("data/mnist"))
    asked = ["reproduce", str(toml), "--engine", "torch", "--jobs", "1", "--out", "run"]
    asked += ["--data", "data/mnist"]
    listed = run.invoke(cli, [*asked, "--dry-run"], catch_exceptions=False)
    assert "dynamic-surgery-c0.5" in listed.output
    assert "gradual-0.9" in listed.output
    done = run.invoke(cli, asked, catch_exceptions=False)
    assert done.exit_code == 0, done.output

    points = [point for point in read_result(Path("run/result.json")).points if point.setting.value]
    assert [(point.method, point.setting.text) for point in points] == [
        ("dynamic-surgery", "c = 0.5"),
        ("dynamic-surgery", "c = 1"),
        ("gradual", "sparsity = 0.5"),
        ("gradual", "sparsity = 0.9"),
    ]
    mild, hard, half, most = (
        {layer.layer: layer for layer in point.rounds[-1].layers} for point in points
    )
    for name, layer in hard.items():
        assert layer.kept < mild[name].kept < layer.weights
    for layers, sparsity in ((half, 0.5), (most, 0.9)):
        for name, layer in layers.items():
            gone = round((0.4 if name == "ip3" else sparsity) * layer.weights)
            assert layer.weights - layer.kept == gone
    (trained,) = Path("run").rglob("gradual-0.9*/**/final.caffemodel")
    masks = read_mask(trained.with_name("final.mask.h5")).masks
    model = read_caffemodel(trained)
    assert set(masks) == {(name, 0) for name in most}
    for (name, index), mask in masks.items():
        assert not np.any(model.layer(name).blobs[index][~mask])
    (told,) = Path("run").rglob("gradual-0.9*/stage.json")
    assert {Path(name).name for name in json.loads(told.read_text())["files"]} == {
        "final.caffemodel",
        "final.mask.h5",
    }


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (SURGERY.replace("ip3", "ip9"), "more: layer 'ip9' is not pruned; there are: ip1, ip2"),
        (SURGERY.replace("1.0]", "0.5]"), "0.5 is given twice"),
        (GRADUAL.replace("ip3", "ip9"), "own: layer 'ip9' is not pruned"),
        (GRADUAL.replace("changes = 4", "changes = 6"), "before iteration 12, counted from 0"),
        (GRADUAL.replace("initial = 0.1", "initial = 0.45"), "from 0.45 to 0.4 they cannot"),
    ],
)
def test_settings_that_cannot_be_followed_are_refused(
    small_net: Path, text: str, sentence: str
) -> None:
    toml = small_net / "moving.toml"
    toml.write_text(HEAD + text)
    with pytest.raises(FormatError, match=sentence):
        read_experiment(toml)


def test_layers_may_be_others_than_the_experiments() -> None:
    surgery = DynamicSurgery(cs=(1.0,), layers=("conv1",), more={"conv1": -1}, iterations=9, stop=5)
    surgery.check(["ip1"], [])
    gradual = {"sparsities": (0.5,), "iterations": 9, "every": 1, "changes": 2}
    with pytest.raises(ValueError, match="own: layer 'ip1'"):
        Gradual(layers=("conv1",), own={"ip1": 0.2}, **gradual).check(["ip1"], [])
    with pytest.raises(ValidationError, match="less than 1"):
        Gradual(**gradual | {"sparsities": (1.0,)})
