"""Two layers for one, as methods of an experiment: their stages, and a real run of each."""

from pathlib import Path
from typing import Any

import pytest

from pycaffe_prune.errors import FormatError
from pycaffe_prune.experiments.result import read_result
from pycaffe_prune.methods.registry import method_of
from pycaffe_prune.pruning.predicted import sampled_inputs
from tests.methods.conftest import run_methods
from tests.methods.test_unit_methods import bench

METHODS = """
[[methods]]
kind = "low-rank"
parameters = [0.3]
iterations = 5
[[methods]]
kind = "low-rank"
name = "energy"
energies = [1.0]
layers = ["ip1", "ip3"]
iterations = 0
[[methods]]
kind = "predicted"
shares = [0.9]
layers = ["ip1"]
iterations = 5
[[methods]]
kind = "predicted"
name = "covariance"
shares = [0.5]
layers = ["ip1", "ip2"]
kernel = "covariance"
images = 200
iterations = 0
"""
TABLES: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "parameters": (
        {"kind": "low-rank", "parameters": [0.3, 0.2], "iterations": 3},
        [{"parameters": [0.1]}, {"iterations": 4}, {"layers": ["ip1"]}],
    ),
    "energies": (
        {"kind": "low-rank", "energies": [0.3], "iterations": 3},
        [{"energies": [0.1]}, {"convolutions": "filters"}],
    ),
    "places": (
        {"kind": "predicted", "shares": [0.5, 0.9], "layers": ["ip1"], "iterations": 3},
        [{"shares": [0.4]}, {"layers": ["ip2"]}, {"scale": 1.5}, {"ridge": 1.0}, {"seed": 1}],
    ),
    "covariance": (
        {
            "kind": "predicted",
            "shares": [0.5],
            "layers": ["ip1"],
            "iterations": 3,
            "kernel": "covariance",
        },
        [{"images": 5}, {"kernel": "squared-exponential"}],
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_as_many_stages_as_are_told_and_each_setting_makes_another(name: str) -> None:
    table, others = TABLES[name]
    chains = method_of(table).chains(bench())
    stages = [stage for chain in chains for stage in chain.stages]
    assert len(stages) == method_of(table).most_stages(())
    keys = {stage.key for stage in stages}
    for other in others:
        changed = method_of(table | other).chains(bench())
        assert {chain.stages[-1].key for chain in changed}.isdisjoint(keys), other


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"energies": [0.5]}, "give either parameters or energies"),
        ({"parameters": []}, "give either parameters or energies"),
        ({"parameters": [0]}, "greater than 0"),
        ({"convolutions": "matrix"}, "convolutions"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        method_of({"kind": "low-rank", "parameters": [0.5], "iterations": 1, **changed})


def test_a_layer_that_the_net_lacks_is_named() -> None:
    method = method_of(TABLES["places"][0] | {"layers": ["other"]})
    with pytest.raises(FormatError, match="method 'predicted': the net has no layer 'other'"):
        method.chains(bench())


def test_both_run(small_net: Path, digits: Path) -> None:
    run_methods(small_net, digits, METHODS, iterations=20)
    result = read_result(small_net / "run" / "result.json")
    points = {point.method: point for point in result.points}
    weights, biases = 784 * 20 + 20 * 12 + 12 * 10, 42
    samples = len(sampled_inputs(784, 0.9, 0))
    fixed = {"predicted": samples * 784, "covariance": 392 * 784 + 10 * 20}
    for name, point in points.items():
        assert point.sizes is not None
        kept = sum(layer.kept for layer in point.rounds[-1].layers) + fixed.get(name, 0)
        assert point.sizes.whole.parameters == kept + biases
        assert point.sizes.whole.macs == kept
    assert points["low-rank"].setting.text == "parameters = 0.3"
    assert points["low-rank"].sizes is not None
    assert points["low-rank"].sizes.whole.weights <= 0.3 * weights
    # All of the energy: no two layers of that rank are smaller than one, and nothing changes.
    whole, untouched = points["baseline"].rounds[-1], points["energy"].rounds[0]
    assert untouched.after.accuracy == untouched.before.accuracy == whole.after.accuracy
    kept = {layer.layer: layer.kept for layer in points["predicted"].rounds[-1].layers}
    assert kept == {"ip1": samples * 20, "ip2": 240, "ip3": 120}
    kept = {layer.layer: layer.kept for layer in points["covariance"].rounds[-1].layers}
    assert kept == {"ip1": 392 * 20, "ip2": 10 * 12, "ip3": 120}
