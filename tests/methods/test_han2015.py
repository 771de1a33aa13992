"""Han et al. 2015 in full, in a small real run: turns, fixed layers, dropout, dead units."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from data_prep.digits import build_digits
from pycaffe_prune.cli import cli
from pycaffe_prune.errors import FormatError
from pycaffe_prune.experiments.result import ExperimentResult, read_result
from pycaffe_prune.formats.caffemodel import Caffemodel, read_caffemodel
from pycaffe_prune.formats.mask import read_mask
from pycaffe_prune.formats.prototxt import read_net, read_solver
from pycaffe_prune.pruning.connections import layer_thresholds, prune_connections
from tests.experiments.conftest import NET, SOLVER

CONVOLUTION = """
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 8 stride: 6 weight_filler { type: "xavier" } } }
"""
DROPOUT = 'layer { name: "drop" type: "Dropout" bottom: "ip1" top: "ip1" }\n'
EXPERIMENT = """
name = "han"
preset = "one"
title = "Han"
solver = "solver.prototxt"
retraining_solver = "again.prototxt"
data = "mnist"
layers = ["ip1", "ip2", "ip3"]
[baseline]
seeds = [1]
iterations = 30
[[methods]]
kind = "han2015"
factors = { conv = 0.5, ip1 = 1.0, ip2 = 0.8 }
scales = [1.6]
rounds = 2
iterations = 4
"""
FACTORS = {"conv": 0.8, "ip1": 1.6, "ip2": 1.28}


def write_experiment(place: Path, data: Path, text: str = EXPERIMENT) -> list[str]:
    net = NET.replace('layer { name: "ip1"', CONVOLUTION + 'layer { name: "ip1"')
    net = net.replace('type: "InnerProduct" bottom: "data"', 'type: "InnerProduct" bottom: "conv"')
    net = net.replace('layer { name: "ip2"', DROPOUT + 'layer { name: "ip2"')
    (place / "net.prototxt").write_text(net)
    (place / "solver.prototxt").write_text(SOLVER)
    again = SOLVER.replace("base_lr: 0.02", "base_lr: 0.04")
    (place / "again.prototxt").write_text(again)
    (place / "han.toml").write_text(text)
    asked = ["reproduce", str(place / "han.toml"), "--engine", "torch", "--jobs", "1"]
    return [*asked, "--out", str(place / "run"), "--data", str(data)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the experiment, run by the engine torch."""
    place = tmp_path_factory.mktemp("han")
    build_digits(place / "data")
    done = CliRunner().invoke(cli, write_experiment(place, place / "data"), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return place / "run"


@pytest.fixture(scope="module")
def turns(folder: Path) -> list[Path]:
    """The folders of the turns, in their order."""
    names = [f"{layer}-round{number}" for number in (1, 2) for layer in ("conv-0.8", "ip1-1.6")]
    return [next(folder.glob(f"stages/han2015-{name}-*")) for name in names]


@pytest.fixture(scope="module")
def result(folder: Path) -> ExperimentResult:
    return read_result(folder / "result.json")


def final(place: Path) -> Caffemodel:
    return read_caffemodel(place / "train/final.caffemodel")


def test_each_layer_is_pruned_by_its_own_factor(folder: Path, turns: list[Path]) -> None:
    (baseline,) = folder.glob("stages/baseline-*")
    original = final(baseline)
    limits = layer_thresholds(original, original, FACTORS)
    _, expected = prune_connections(original, limits)
    first = read_mask(turns[0] / "kept.mask.h5").masks
    assert set(first) == {("conv", 0)}
    np.testing.assert_array_equal(first["conv", 0], expected["conv", 0])
    second = read_mask(turns[1] / "kept.mask.h5").masks
    assert set(second) == {(name, 0) for name in FACTORS}
    for key in (("ip1", 0), ("ip2", 0)):  # fixed while the convolution was retrained
        np.testing.assert_array_equal(second[key], expected[key])
    last = read_mask(turns[3] / "kept.mask.h5").masks
    assert all(not (last[key] & ~second[key]).any() for key in second)


def test_layers_are_retrained_in_turns(folder: Path, turns: list[Path]) -> None:
    (baseline,) = folder.glob("stages/baseline-*")
    before, moving = final(baseline), [{"conv"}, {"ip1", "ip2"}] * 2
    for place, expected in zip(turns, moving, strict=True):
        after, masks = final(place), read_mask(place / "kept.mask.h5").masks
        moved = set()
        for (name, index), blob in after.blobs():
            kept = masks.get((name, index), np.ones(blob.shape, np.bool_))
            if (blob[kept] != before.layer(name).blobs[index][kept]).any():
                moved.add(name)
        assert moved == expected
        before = after


def test_the_rate_is_a_tenth_of_the_retraining_solvers_and_dropout_falls_with_the_root(
    turns: list[Path],
) -> None:
    for place in turns:
        assert read_solver(place / "solver.prototxt").base_lr == pytest.approx(0.004)
        mask = read_mask(place / "kept.mask.h5").masks.get(("ip2", 0), np.ones(1, np.bool_))
        (drop,) = [
            layer for layer in read_net(place / "net.prototxt").layer if layer.type == "Dropout"
        ]
        assert drop.dropout_param.dropout_ratio == pytest.approx(0.5 * mask.mean() ** 0.5)


def test_dead_units_go_and_the_answers_stay(result: ExperimentResult) -> None:
    (point,) = [point for point in result.points if point.method == "han2015"]
    *_, pruned, alive = point.rounds
    assert len(point.rounds) == 5
    assert alive.images == 0
    assert alive.after.correct == pruned.after.correct
    assert sum(row.kept for row in alive.layers) <= sum(row.kept for row in pruned.layers)
    assert point.setting.value == 1.6


def test_a_factor_for_another_layer_is_refused(folder: Path, tmp_path: Path) -> None:
    text = EXPERIMENT.replace("ip2 = 0.8", "drop = 0.8")
    build = write_experiment(tmp_path, folder.parent / "data", text)
    with pytest.raises(FormatError, match="layer 'drop' of factors is of the type Dropout"):
        CliRunner().invoke(cli, [*build, "--dry-run"], catch_exceptions=False)


def test_measured_factors_do_what_the_same_do_when_given(folder: Path, tmp_path: Path) -> None:
    given = "factors = { conv = 0.5, ip1 = 1.0, ip2 = 0.8 }"
    how = 'layers = ["conv", "ip1", "ip2"], loses = 0.02, rates = [0.3, 0.6, 0.9], images = 300'
    text = EXPERIMENT.replace(given, f"measured = {{ {how} }}")
    build = write_experiment(tmp_path, folder.parent / "data", text)
    CliRunner().invoke(cli, build, catch_exceptions=False)
    stages = tmp_path / "run" / "stages"
    (said,) = stages.glob("han2015-factors-0.02-*/factors.json")
    found = json.loads(said.read_bytes())
    assert all(0 < rate <= 0.9 for rate in found["rates"].values())
    (point,) = read_result(tmp_path / "run" / "result.json").points[1:]
    first, *_, alive = point.rounds
    assert len(point.rounds) == 6
    assert first.images == 0
    told = ", ".join(f"{name} = {factor!r}" for name, factor in found["factors"].items())
    again = EXPERIMENT.replace(given, f"factors = {{ {told} }}")
    CliRunner().invoke(
        cli, write_experiment(tmp_path, folder.parent / "data", again), catch_exceptions=False
    )
    (same,) = read_result(tmp_path / "run" / "result.json").points[1:]
    assert same.rounds[-1].after == alive.after
    assert [row.kept for row in same.rounds[-1].layers] == [row.kept for row in alive.layers]


@pytest.mark.parametrize(
    "factors", ["", "factors = { ip1 = 1.0 }\nmeasured = { layers = ['ip2'] }"]
)
def test_factors_are_given_or_measured(folder: Path, tmp_path: Path, factors: str) -> None:
    text = EXPERIMENT.replace("factors = { conv = 0.5, ip1 = 1.0, ip2 = 0.8 }", factors)
    build = write_experiment(tmp_path, folder.parent / "data", text)
    with pytest.raises(FormatError, match="give factors, or say under measured"):
        CliRunner().invoke(cli, [*build, "--dry-run"], catch_exceptions=False)
