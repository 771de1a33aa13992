from collections.abc import Callable

import pytest

from pycaffe_prune.experiments.result import ExperimentResult, Point
from pycaffe_prune.pruning.sizes import ModelSizes, NetSize
from pycaffe_prune.reports.sizes import size_rows

Make = Callable[..., Point]
MakeResult = Callable[..., ExperimentResult]
BIASES = 410


def _cost(result: ExperimentResult, method: str, place: int = 0) -> tuple[int, ...]:
    found = [row.cost for row in size_rows(result) if row.method == method][place]
    return (found.parameters, found.macs, found.dense_macs, found.dense_bytes, found.sparse_bytes)


def test_an_unpruned_network_is_counted_whole(with_net: ExperimentResult) -> None:
    parameters = 266_200 + BIASES
    expected = (parameters, 266_200, 266_200, 4 * parameters, 4 * parameters)
    assert _cost(with_net, "baseline") == expected


def test_pruned_connections_cost_nothing_but_are_stored_and_multiplied(
    point: Make, result_of: MakeResult
) -> None:
    points = [point("connections", 250_000, 9_500, alpha=1.5)]
    result = result_of(points, settings={"solver": "solvers/lenet_300_100.prototxt"})
    parameters, macs, dense_macs, dense, sparse = _cost(result, "connections")
    assert (parameters, macs) == (16_200 + BIASES, 16_200)
    assert (dense_macs, dense) == (266_200, 4 * (266_200 + BIASES))
    assert 5 * 16_200 < sparse < dense


def test_deleted_units_are_gone_from_every_count(with_net: ExperimentResult) -> None:
    weights = 784 * 60 + 60 * 10 + 10 * 10
    parameters = weights + 60 + 10 + 10
    expected = (parameters, weights, weights, 4 * parameters, 4 * parameters)
    assert _cost(with_net, "units") == _cost(with_net, "small") == expected


def test_the_spread_is_over_all_seeds_of_a_shape(with_net: ExperimentResult) -> None:
    small = next(row for row in size_rows(with_net) if row.method == "small")
    assert (small.lowest, small.accuracy, small.highest, small.seeds) == (96.33, 96.4, 96.4, 2)


@pytest.mark.parametrize("solver", [None, "solvers/nobody.prototxt", "solvers/lenet.prototxt"])
def test_without_the_right_net_nothing_is_said(
    point: Make, result_of: MakeResult, solver: str | None
) -> None:
    result = result_of([point("baseline", 0, 9_800)], settings={"solver": solver})
    assert size_rows(result) == []


def test_a_net_of_other_layers_is_counted_as_it_was_measured(
    point: Make, result_of: MakeResult
) -> None:
    size = NetSize(
        parameters=100_410,
        weights=100_000,
        non_zero_weights=100_000,
        macs=100_000,
        non_zero_macs=100_000,
        stored_bytes={"caffemodel": 402_000, "sparse": 402_500},
        units={},
    )
    factored = point("connections", 166_200, 9_500, alpha=1.5)
    solver = {"solver": "solvers/lenet_300_100.prototxt"}
    known = factored.model_copy(update={"sizes": ModelSizes(whole=size, alive=None)})
    result = result_of([known], settings=solver)
    assert _cost(result, "connections") == (100_410, 100_000, 100_000, 4 * 100_410, 402_500)
    unknown = size.model_copy(update={"macs": None})
    unknown = factored.model_copy(update={"sizes": ModelSizes(whole=unknown, alive=None)})
    assert size_rows(result_of([unknown], settings=solver)) == []


@pytest.mark.parametrize("net", [7, {"units": [1]}, {"units": {"ip1": 0}}, {"units": {"ip9": 3}}])
def test_of_units_that_the_net_cannot_have_nothing_is_said(
    point: Make, result_of: MakeResult, net: object
) -> None:
    settings = {"solver": "solvers/lenet_300_100.prototxt", "net": net}
    assert size_rows(result_of([point("baseline", 0, 9_800)], settings=settings)) == []
