import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pycaffe_prune.engines.torch.update import ParamGroup
from pycaffe_prune.engines.torch.updates import bias_correction, make_update
from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.caffe_pb2 import SolverParameter

TYPES = ["SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam"]
GROUPS = [ParamGroup(0, 5, 1, 1), ParamGroup(5, 8, 2, 0), ParamGroup(8, 10, 0, 1)]
COUNT = 10


def solver_of(kind: str, **changed: object) -> SolverParameter:
    momentum = 0 if kind in ("AdaGrad", "RMSProp") else 0.9
    solver = SolverParameter(type=kind, momentum=momentum, weight_decay=0.01, delta=1e-4)
    solver.MergeFrom(SolverParameter(**changed))
    return solver


solvers = st.builds(
    solver_of,
    st.sampled_from(TYPES),
    clip_gradients=st.sampled_from([-1.0, 0.5, 100.0]),
    iter_size=st.integers(1, 3),
    regularization_type=st.sampled_from(["L1", "L2"]),
)


def values(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(solver=solvers, runs=st.integers(1, 3))
def test_runs_that_are_updated_together_are_as_if_alone(solver: SolverParameter, runs: int) -> None:
    data, diff = values(runs, COUNT), torch.zeros(runs, COUNT)
    alone = [data[run].clone() for run in range(runs)]
    diffs = [torch.zeros(COUNT) for _ in range(runs)]
    together = make_update(solver, GROUPS, data, diff)
    updates = [make_update(solver, GROUPS, *pair) for pair in zip(alone, diffs, strict=True)]
    for step in range(3):
        gradients, rate = values(runs, COUNT, seed=step + 1), torch.tensor(0.1 / (step + 1))
        diff.copy_(gradients)
        together.apply(rate)
        for run, update in enumerate(updates):
            diffs[run].copy_(gradients[run])
            update.apply(rate)
    np.testing.assert_allclose(data, torch.stack(alone), rtol=1e-6, atol=1e-7)
    for number, history in enumerate(together.history):
        own = torch.stack([update.history[number] for update in updates])
        np.testing.assert_allclose(history, own, rtol=1e-6, atol=1e-7)


@given(solver=solvers)
def test_what_is_shown_is_what_the_values_lost(solver: SolverParameter) -> None:
    data, diff = values(COUNT), torch.zeros(COUNT)
    update = make_update(solver, GROUPS, data, diff)
    for step in range(3):
        before, rate = data.clone(), torch.tensor(0.1 / (step + 1))
        diff.copy_(values(COUNT, seed=step + 1))
        update.change(rate)
        update.show_change(rate)
        np.testing.assert_allclose(diff, before - data, rtol=1e-4, atol=1e-6)


@given(solver=solvers)
def test_what_has_no_rate_stays_and_what_is_masked_stays_zero(solver: SolverParameter) -> None:
    data, diff = values(COUNT), torch.zeros(COUNT)
    kept = torch.tensor([True, False] * (COUNT // 2))
    data *= kept
    start, update = data.clone(), make_update(solver, GROUPS, data, diff)
    for step in range(4):
        diff.copy_(values(COUNT, seed=step) * kept)
        update.apply(torch.tensor(0.1))
    unmoved = GROUPS[2]
    assert torch.equal(data[unmoved.start : unmoved.stop], start[unmoved.start : unmoved.stop])
    assert not data[~kept].any()
    assert not any(history[~kept].any() for history in update.history)
    assert (data[: unmoved.start] != start[: unmoved.start])[kept[: unmoved.start]].all()


@given(solver=solvers)
def test_no_value_is_looked_at_so_that_a_gpu_need_not_be_waited_for(
    solver: SolverParameter,
) -> None:
    # A tensor of the device "meta" has no values: whatever asks for one raises.
    data, diff = (torch.zeros(COUNT, device="meta") for _ in range(2))
    make_update(solver, GROUPS, data, diff).apply(torch.zeros((), device="meta"))


def test_both_forms_of_sgd_agree() -> None:
    # Two runs and a momentum take the fused form, an L1 decay of nothing takes the other.
    pairs = [(values(2, COUNT), values(2, COUNT, seed=1)) for _ in range(2)]
    for regularization, (data, diff) in zip(("L2", "L1"), pairs, strict=True):
        solver = solver_of("SGD", regularization_type=regularization)
        solver.weight_decay = 0
        update = make_update(solver, GROUPS, data, diff)
        update.apply(torch.tensor(0.1))
        update.apply(torch.tensor(0.01))
    np.testing.assert_allclose(pairs[0][0], pairs[1][0], rtol=1e-6)


def test_gradients_are_clipped_by_the_norm_of_all_blobs_before_they_are_divided() -> None:
    data, diff = torch.zeros(COUNT), torch.zeros(COUNT)
    diff[0], diff[5] = 3, 4
    solver = SolverParameter(type="SGD", clip_gradients=1, iter_size=2)
    make_update(solver, GROUPS, data, diff).apply(torch.tensor(1.0))
    np.testing.assert_allclose(data[[0, 5]], [-3 / 5 / 2, -2 * 4 / 5 / 2], rtol=1e-6)


def test_a_gradient_that_is_no_number_spoils_no_other_one() -> None:
    data, diff = torch.zeros(COUNT), torch.ones(COUNT)
    diff[0] = torch.nan
    solver = SolverParameter(type="SGD", clip_gradients=1)
    make_update(solver, GROUPS, data, diff).apply(torch.tensor(1.0))
    assert data.isnan().tolist() == [True] + [False] * (COUNT - 1)


@settings(max_examples=20)
@given(beta1=st.floats(0, 0.99), beta2=st.floats(0, 0.999))
def test_adams_first_update_is_as_large_as_the_rate(beta1: float, beta2: float) -> None:
    solver = SolverParameter(type="Adam", momentum=beta1, momentum2=beta2, delta=0)
    data, diff = torch.zeros(COUNT), values(COUNT)
    update = make_update(solver, [ParamGroup(0, COUNT, 1, 1)], data, diff)
    update.apply(torch.tensor(0.1 * bias_correction(solver, 0)))
    np.testing.assert_allclose(data.abs(), np.full(COUNT, 0.1), rtol=1e-4)
    assert bias_correction(solver_of("SGD"), 0) == 1


@pytest.mark.parametrize(
    ("solver", "sentence"),
    [
        (solver_of("sgd"), "type 'sgd' is not known; use one of SGD, Nesterov"),
        (solver_of("SGD", regularization_type="L3"), "'L3' is not known; use one of L2, L1"),
        (solver_of("AdaGrad", momentum=0.5), "AdaGrad takes no momentum, but it is 0.5"),
        (solver_of("RMSProp", momentum=0.5), "RMSProp takes no momentum, but it is 0.5"),
        (solver_of("RMSProp", rms_decay=1), "rms_decay 1 must be"),
        (solver_of("Adam", momentum=1), r"momentum \(1\)"),
    ],
)
def test_what_caffe_refuses_is_refused(solver: SolverParameter, sentence: str) -> None:
    with pytest.raises(FormatError, match=sentence):
        make_update(solver, GROUPS, torch.zeros(COUNT), torch.zeros(COUNT))
