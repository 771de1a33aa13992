"""Small dense nets are the largest within what a point of another method has, or within a share."""

from pathlib import Path
from typing import Any

import pytest

from pycaffe_prune.experiments.result import ExperimentResult, read_result
from pycaffe_prune.formats.prototxt import read_net
from pycaffe_prune.methods.registry import method_of
from pycaffe_prune.methods.small_dense import SmallDense
from pycaffe_prune.net.widths import with_widths
from pycaffe_prune.pruning.budget import dense_amount
from pycaffe_prune.pruning.small_dense import least_amount
from pycaffe_prune.reports.sizes import layer_counts
from pycaffe_prune.share import share_root
from tests.methods.conftest import run_methods

METHODS = """
[[methods]]
kind = "connections"
alphas = [0.5, 6.0]
rounds = 1
iterations = 5
[[methods]]
kind = "small-dense"
of = "connections"
seeds = [1, 2]
iterations = 5
[[methods]]
kind = "small-dense"
name = "macs"
quantity = "macs"
budgets = [0.5]
layers = ["ip1"]
seeds = [1]
iterations = 5
"""
INPUTS = {"data": (1, 1, 28, 28)}
TABLE = {"kind": "small-dense", "seeds": [1], "iterations": 5}


@pytest.fixture
def result(small_net: Path, digits: Path, monkeypatch: pytest.MonkeyPatch) -> ExperimentResult:
    monkeypatch.chdir(small_net)
    said = run_methods(small_net, digits, METHODS, iterations=20)
    assert "trained, and is larger than the point" in said
    return read_result(Path("run/result.json"))


def test_each_is_the_largest_net_of_one_factor_within_its_budget(
    result: ExperimentResult, small_net: Path
) -> None:
    net = read_net(small_net / "net.prototxt")

    def points(name: str) -> list[Any]:
        return [point for point in result.points if point.method == name]

    rivals, dense = points("connections"), points("small-dense")
    assert [point.setting.value for point in dense] == [0.5, 0.5, 6.0, 6.0]
    assert [point.seed for point in dense] == [1, 2, 1, 2]
    assert [point.selected for point in dense].count(True) == 2
    for rival, alike in zip(rivals, (dense[:2], dense[2:]), strict=True):
        assert alike[0].units == alike[1].units
        assert alike[0].setting.text == f"parameters of connections {rival.setting.value:g}"
        budget = rival.sizes.whole.kept_parameters
        least = least_amount(net, "parameters", inputs=INPUTS)
        if budget < least:  # the narrowest stands in
            assert rival.setting.value == 6
            assert set(alike[0].units.values()) == {1}
            budget = least
        assert alike[0].sizes.whole.parameters <= budget
        wider = {name: count + 1 for name, count in alike[0].units.items()}
        assert dense_amount(with_widths(net, wider), "parameters", INPUTS) > budget

    (point,) = points("macs")
    assert point.setting.text == "macs = 0.5"
    assert list(point.units) == ["ip1"]
    assert point.sizes.whole.macs <= dense_amount(net, "macs", INPUTS) / 2
    for layer in point.rounds[-1].layers:
        if layer.layer == "ip1":
            assert layer.kept == point.units["ip1"] * 784


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({}, "give either budgets or of"),
        ({"budgets": [0.5], "of": "connections"}, "give either budgets or of"),
        ({"budgets": [0.5, 0.5]}, "0.5 is given twice"),
        ({"budgets": [0]}, "greater than 0"),
        ({"budgets": [0.5], "quantity": "units"}, "quantity"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        method_of({**TABLE, **changed})


def test_a_method_that_is_not_there_tells_no_budgets() -> None:
    method = method_of({**TABLE, "of": "connections"})
    assert isinstance(method, SmallDense)
    with pytest.raises(ValueError, match="no method before it is called 'connections'"):
        method.check(["ip1"], [])


def test_reports_count_narrowed_convolutions() -> None:
    net = read_net(share_root() / "prototxt" / "lenet" / "deploy.prototxt")
    widths = {"conv1": 5, "conv2": 12, "ip1": 125}
    counts = layer_counts(net, widths)
    assert counts is not None
    told = sum(layer.weights + layer.biases for layer in counts.values())
    assert told == dense_amount(with_widths(net, widths), "parameters")
