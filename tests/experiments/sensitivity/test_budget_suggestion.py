"""Rates for a budget: the net that their command prunes is within it, and tests as it is said."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pycaffe_prune.engines.caffe.engine import CaffeEngine
from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.experiments.sensitivity.budget_suggestion import suggest_within
from pycaffe_prune.experiments.sensitivity.measure import SensitivityRequest
from pycaffe_prune.experiments.sensitivity.result import read_sensitivity
from pycaffe_prune.experiments.sensitivity.suggestion import cost_curves
from pycaffe_prune.formats.caffemodel import read_caffemodel
from pycaffe_prune.formats.prototxt import read_net, write_prototxt
from pycaffe_prune.pruning.budget import Quantity
from pycaffe_prune.pruning.connections import prune_to_ratios
from pycaffe_prune.pruning.rate_amounts import amount_dense, amount_sparse
from pycaffe_prune.pruning.sizes import net_size
from pycaffe_prune.pruning.units import choose_units, delete_units
from tests.experiments.sensitivity.conftest import finished

pytestmark = pytest.mark.real_caffe

INPUTS = {"data": (1, 1, 28, 28)}
DROPS = {"ip1": [-2, 0, 3], "ip2": [5, 90, 90], "ip3": [1, 2, 3]}
ScoreOf = Callable[..., int]


@pytest.mark.parametrize("quantity", ["bytes"])
def test_connections_within_a_budget_are_measured_beside_one_rate(
    request_: SensitivityRequest,
    engine: CaffeEngine,
    tmp_path: Path,
    score_of: ScoreOf,
    quantity: Quantity,
) -> None:
    analysis = finished(request_, tmp_path / "out", DROPS)
    assert analysis.earlier is not None
    result = suggest_within(analysis, analysis.earlier, quantity, 0.2, engine)
    assert read_sensitivity(tmp_path / "out" / "sensitivity.json") == result
    found = result.budget_suggestion
    assert found is not None
    net, model = read_net(request_.net), read_caffemodel(request_.weights)
    assert found.whole == amount_dense(net_size(net, model, INPUTS), quantity)
    assert found.budget == int(0.2 * found.whole)
    for measured in (found.suggested, found.single):
        ratios = {(row.layer, 0): row.rate for row in measured.layers}
        pruned, masks = prune_to_ratios(model, ratios)
        assert measured.amount == amount_sparse(net_size(net, pruned, INPUTS), quantity)
        assert 0.95 * found.budget <= measured.amount <= found.budget
        for row in measured.layers:
            assert (row.size, row.kept) == (masks[row.layer, 0].size, masks[row.layer, 0].sum())
        assert measured.score.correct == score_of(request_.net, pruned)
    assert len({row.rate for row in found.single.layers}) == 1
    rates = {row.layer: row.rate for row in found.suggested.layers}
    assert rates["ip2"] < 0.4 < rates["ip1"]  # ip2 loses a lot from there on
    curves = cost_curves(result)
    single = sum(curves[row.layer].cost(row.rate) for row in found.single.layers)
    assert found.predicted_drop <= single
    again = suggest_within(analysis, result, quantity, found.budget, CaffeEngine(Path("/nowhere")))
    assert again is result


def test_units_within_a_budget_leave_a_small_net_that_tests_so(
    request_: SensitivityRequest,
    engine: CaffeEngine,
    tmp_path: Path,
    score_of: ScoreOf,
) -> None:
    drops = {"ip1": [80, 90, 95], "ip2": [0, 1, 2]}
    analysis = finished(replace(request_, method="units"), tmp_path / "out", drops)
    assert analysis.earlier is not None
    found = suggest_within(analysis, analysis.earlier, "macs", 0.5, engine).budget_suggestion
    assert found is not None
    net, model = read_net(request_.net), read_caffemodel(request_.weights)
    for measured in (found.suggested, found.single):
        kept = choose_units(net, model, {row.layer: row.rate for row in measured.layers})
        small_net, small = delete_units(net, model, kept)
        assert measured.amount == amount_dense(net_size(small_net, small, INPUTS), "macs")
        assert measured.amount <= found.budget
        write_prototxt(tmp_path / "small.prototxt", small_net)
        assert measured.score.correct == score_of(tmp_path / "small.prototxt", small)
        assert {row.layer: row.kept for row in measured.layers} == {
            name: int(keep.sum()) for name, keep in kept.items()
        }
    # ip1 reads the images and has nearly all of the weights, dear as it is: ip2 cannot make up.
    assert found.suggested.layers[0].rate >= 0.5
    with pytest.raises(SurgeryError, match=r"budget of 100 is below .* --rates"):
        suggest_within(analysis, analysis.earlier, "macs", 100, engine)
