"""Rates for a budget: the retrained net is within it, and no test image chose them."""

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format

from pycaffe_prune.errors import FormatError
from pycaffe_prune.experiments.rate_curves import on_training_images
from pycaffe_prune.experiments.result import ExperimentResult, read_result
from pycaffe_prune.formats.caffe_pb2 import TEST, NetParameter
from pycaffe_prune.formats.mask import read_mask
from pycaffe_prune.formats.prototxt import read_net
from pycaffe_prune.methods.automatic_rates import connection_places, unit_sizes
from pycaffe_prune.methods.registry import method_of
from pycaffe_prune.net.graph import NetState, layers_in_state
from pycaffe_prune.pruning.budget import dense_amount
from pycaffe_prune.share import share_root
from tests.methods.conftest import run_methods
from tests.pruning.random_nets import random_weights

METHODS = """
[[methods]]
kind = "automatic-rates"
budgets = [0.1]
rates = [0.5, 0.9, 0.98]
images = 400
iterations = 20
[[methods]]
kind = "automatic-rates"
name = "one-rate"
allocation = "one-rate"
budgets = [0.1]
rates = [0.98]
iterations = 20
[[methods]]
kind = "automatic-rates"
name = "units"
prunes = "units"
quantity = "macs"
budgets = [0.4]
rates = [0.9, 0.5]
images = 400
iterations = 20
"""
TABLE = {"kind": "automatic-rates", "budgets": [0.1], "iterations": 5}


@pytest.fixture
def result(small_net: Path, digits: Path, monkeypatch: pytest.MonkeyPatch) -> ExperimentResult:
    monkeypatch.chdir(small_net)
    run_methods(small_net, digits, METHODS, iterations=60)
    return read_result(Path("run/result.json"))


def said(label: str) -> tuple[Path, dict[str, Any]]:
    (folder,) = Path("run/stages").glob(f"{label}-*")
    return folder, json.loads((folder / "rates.json").read_text())


def test_the_retrained_net_is_within_the_budget(result: ExperimentResult, small_net: Path) -> None:
    net = read_net(small_net / "net.prototxt")
    inputs = {"data": (1, 1, 28, 28)}
    own, single, units = (
        next(point for point in result.points if point.method == name)
        for name in ("automatic-rates", "one-rate", "units")
    )
    budget = int(0.1 * dense_amount(net, "parameters", inputs))
    for point, label in ((own, "sensitivity-connections"), (single, "one-rate-connections")):
        assert point.setting.text == "parameters = 0.1"
        assert point.sizes is not None
        folder, rates = said(label)
        assert 0.9 * budget <= rates["amount"] <= rates["budget"] == budget
        assert point.sizes.whole.kept_parameters <= rates["amount"]
        masks = read_mask(folder / "kept.mask.h5").masks
        kept = {name: int(mask.sum()) for (name, _), mask in masks.items()}
        assert {row.layer: row.kept for row in point.rounds[-1].layers} == kept
        assert not (folder / "testing").exists()
    assert len(set(said("one-rate-connections")[1]["rates"].values())) == 1
    assert len(set(said("sensitivity-connections")[1]["rates"].values())) > 1

    assert units.units is not None
    assert list(units.units) == ["ip1", "ip2"]
    assert units.sizes is not None
    assert units.sizes.whole.macs == said("sensitivity-units")[1]["amount"]
    assert units.sizes.whole.macs <= 0.4 * dense_amount(net, "macs", inputs)


def test_the_test_phase_is_given_the_training_images_and_nothing_else_changes() -> None:
    net = read_net(share_root() / "prototxt" / "lenet" / "train_val.prototxt")
    changed = on_training_images(net)
    for before, after in zip(net.layer, changed.layer, strict=True):
        if before != after:
            assert after.data_param.source == "mnist_train_lmdb"
            after.data_param.source = "mnist_test_lmdb"
            assert before == after
    (data, *_) = layers_in_state(on_training_images(net), NetState.of(net, TEST))
    assert data.data_param.source == "mnist_train_lmdb"
    deploy = read_net(share_root() / "prototxt" / "lenet" / "deploy.prototxt")
    with pytest.raises(FormatError, match=r"layer 'data' \(Input\) .* TRAIN"):
        on_training_images(deploy)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"budgets": []}, "at least 1"),
        ({"rates": []}, "at least 1"),
        ({"rates": [0.5, 1.0]}, "less than 1"),
        ({"criterion": "size"}, "no unit criterion is called 'size'"),
        ({"quantity": "weights"}, "quantity"),
        ({"prunes": "layers"}, "prunes"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        method_of({**TABLE, **changed})


def test_layers_that_cannot_be_pruned_are_refused_by_name() -> None:
    net = read_net(share_root() / "prototxt" / "lenet" / "deploy.prototxt")
    model = random_weights(net, 0)
    assert connection_places(net, model, ["conv1", "ip1"]) == {
        "conv1": [("conv1", 0)],
        "ip1": [("ip1", 0)],
    }
    assert unit_sizes(net, model, ["conv1", "ip1"]) == {"conv1": 20, "ip1": 500}
    with pytest.raises(FormatError, match=r"'pool1' has no connections .*: conv1, conv2, ip1, ip2"):
        connection_places(net, model, ["ip1", "pool1"])
    with pytest.raises(FormatError, match=r"no unit of layer 'ip2' .*: conv1, conv2, ip1"):
        unit_sizes(net, model, ["ip1", "ip2"])


def test_layers_that_lose_their_units_together_have_one_rate() -> None:
    text = (
        'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 4 } } }'
        + "".join(
            f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}" '
            "inner_product_param { num_output: 6 } }"
            for name, bottom in (("a", "data"), ("b", "data"), ("out", "sum"))
        ).replace(
            'layer { name: "out"',
            'layer { name: "sum" type: "Eltwise" bottom: "a" bottom: "b" top: "sum" } '
            'layer { name: "out"',
        )
    )
    net = text_format.Parse(text, NetParameter())
    assert unit_sizes(net, random_weights(net, 0), ["b", "a"]) == {"b": 6}
