"""Rates foreseen from the unpruned network alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycaffe_prune.experiments.plan import solver_path
from pycaffe_prune.experiments.prediction import predict, shrink
from pycaffe_prune.experiments.spec import find_experiment, read_experiment
from pycaffe_prune.formats.caffe_pb2 import LayerParameter, NetParameter, SolverParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer
from pycaffe_prune.formats.prototxt import read_solver
from pycaffe_prune.reports.paper.figures_and_tables import TABLE_5


def _model(**weights: np.ndarray) -> Caffemodel:
    layers = tuple(
        Layer(LayerParameter(name=name, type="InnerProduct"), (values.astype(np.float32),))
        for name, values in weights.items()
    )
    return Caffemodel(layers, NetParameter(name="net"))


def test_the_papers_settings_for_caffenet_shrink_weights_to_0_8017():
    toml = find_experiment("caffenet-oxford102", "paper")
    spec = read_experiment(toml)
    connections = spec.methods[0]
    once = shrink(read_solver(solver_path(spec, toml)), connections.iterations)
    assert once == pytest.approx(0.8954, abs=5e-5)
    assert once ** (connections.rounds - 1) == pytest.approx(0.8017, abs=5e-5)


def test_table_5_has_fc6_and_fc7_shrunk_by_0_8_and_the_classifier_not_by_its_own_multipliers():
    """The integral of 2 * alpha * (1 - rate) is the mean square of the weights over sigma's."""
    alphas = np.array([0, *(row.alpha for row in TABLE_5)])
    grid = np.linspace(0, alphas[-1], 1000)

    def left(rates: list[float]) -> float:
        """At least so much of their size the weights have kept; what is above 2.6 is missing."""
        kept = 1 - np.interp(grid, alphas, np.array([0, *rates]) / 100)
        return float(np.sqrt((2 * grid * kept).mean() * grid[-1]))

    assert left([row.fc6 for row in TABLE_5]) == pytest.approx(0.8017, abs=0.01)
    assert left([row.fc7 for row in TABLE_5]) == pytest.approx(0.8017, abs=0.01)
    assert left([row.fc8 for row in TABLE_5]) > 0.8 > 0.8017**10


@given(
    rate=st.floats(1e-4, 1e-2),
    momentum=st.floats(0, 0.9),
    decay=st.floats(0, 0.01),
    iterations=st.integers(500, 2000),
)
def test_a_weight_that_only_decays_shrinks_by_the_factor(rate, momentum, decay, iterations):
    """Caffe's update, followed step by step."""
    solver = SolverParameter(
        base_lr=rate, momentum=momentum, weight_decay=decay, lr_policy="fixed", type="SGD"
    )
    weight, history = 1.0, 0.0
    for _ in range(iterations):
        history = momentum * history + rate * decay * weight
        weight -= history
    # What the factor leaves out: the momentum's first iterations, and terms of the second order.
    share = rate * decay / (1 - momentum)
    left_out = share * momentum / (1 - momentum) + iterations * share**2 / (1 - momentum)
    assert shrink(solver, iterations) == pytest.approx(weight, rel=1.1 * left_out + 1e-9)


def test_there_is_nothing_to_foresee_with_another_kind_of_solver():
    assert shrink(SolverParameter(type="Adam", base_lr=0.1, lr_policy="fixed"), 10) is None
    l1 = SolverParameter(base_lr=0.1, lr_policy="fixed", regularization_type="L1")
    assert shrink(l1, 10) is None


@given(shrunk=st.floats(0.5, 1), seed=st.integers(0, 99))
def test_an_alpha_removes_what_alpha_by_shrink_removes_of_the_unpruned_network(shrunk, seed):
    random = np.random.default_rng(seed)
    a, b = random.normal(size=(20, 30)), random.normal(size=(10, 20)) * 3 + 1
    found = predict(_model(a=a, b=b), ["a", "b"], [1.0, 0.5], shrunk)
    assert [row.alpha for row in found.rates] == [0.5, 1.0]
    for row in found.rates:
        for layer, values in zip(row.layers, (a, b), strict=True):
            values = values.astype(np.float32)
            removed = np.abs(values) < np.float32(row.alpha / shrunk * values.std(dtype=np.float64))
            assert layer.weights - layer.kept == pytest.approx(removed.sum(), abs=1)
            assert layer.reduction == 1 - layer.kept / layer.weights
        kept = sum(layer.kept for layer in row.layers)
        assert row.reduction == pytest.approx(1 - kept / 800)
