from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pycaffe_prune.engines.resolved_solver import solver_settings
from pycaffe_prune.engines.torch.rates import RatePolicy
from pycaffe_prune.engines.torch.snapshots import read_snapshot
from pycaffe_prune.engines.torch.update import ParamGroup
from pycaffe_prune.engines.torch.updates import bias_correction, make_update
from pycaffe_prune.formats.caffe_pb2 import NetParameter, SolverParameter

pytestmark = pytest.mark.real_caffe

CaffeSolver = Callable[..., dict[str, np.ndarray]]

# Two layers whose gradients are new in each pass: the data are drawn.
NET = """
layer { name: "data" type: "DummyData" top: "data" top: "label"
        dummy_data_param { shape { dim: 4 dim: 3 } shape { dim: 4 dim: 2 }
                           data_filler { type: "gaussian" } data_filler { type: "gaussian" } } }
layer { name: "ip1" type: "InnerProduct" bottom: "data" top: "ip1" param {} param {}
        inner_product_param { num_output: 5 weight_filler { type: "gaussian" std: 0.5 }
                              bias_filler { type: "gaussian" } } }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2" param {} param {}
        inner_product_param { num_output: 2 weight_filler { type: "gaussian" std: 0.5 } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip2" bottom: "label" loss_weight: 0.1 }
"""
SHAPES = [(5, 3), (5,), (2, 5), (2,)]
TYPES = {"SGD": 1, "Nesterov": 1, "AdaGrad": 1, "RMSProp": 1, "AdaDelta": 2, "Adam": 2}
# Relative to a blob's largest value so far, by updates done: each may round each value anew.
TOLERANCES = {1: 1e-6, 10: 3e-6, 100: 3e-6}


def solver_of(kind: str, momentum: float) -> SolverParameter:
    return SolverParameter(
        net="net.prototxt",
        type=kind,
        lr_policy="inv",
        base_lr=0.01,
        gamma=0.01,
        power=0.75,
        momentum=0 if kind in ("AdaGrad", "RMSProp") else momentum,
        weight_decay=0.01,
        random_seed=3,
        snapshot_prefix="theirs",
    )


def check_with_caffe(
    caffe_solver: CaffeSolver,
    folder: Path,
    solver: SolverParameter,
    multipliers: list[tuple[float, float]],
    checked: dict[int, float],
) -> None:
    """Give Caffe's gradients to our rule: values and history must be Caffe's."""
    net = text_format.Parse(NET, NetParameter())
    specs = [spec for layer in net.layer for spec in layer.param]
    for spec, (lr_mult, decay_mult) in zip(specs, multipliers, strict=True):
        spec.lr_mult, spec.decay_mult = lr_mult, decay_mult
    (folder / "net.prototxt").write_text(text_format.MessageToString(net))
    (folder / "solver.prototxt").write_text(text_format.MessageToString(solver))
    steps = max(checked)
    found = caffe_solver(folder / "solver.prototxt", "train", state=None, steps=steps)

    groups, start = [], 0
    for shape, multiplier in zip(SHAPES, multipliers, strict=True):
        groups.append(ParamGroup(start, start + int(np.prod(shape)), *multiplier))
        start = groups[-1].stop
    data = torch.from_numpy(joined(found, "start"))
    diff = torch.empty_like(data)
    update, policy = make_update(solver, groups, data, diff), RatePolicy(solver_settings(solver))
    largest = np.zeros(len(SHAPES))
    for step in range(1, steps + 1):
        diff.copy_(torch.from_numpy(joined(found, f"gradient:{step}")))
        update.apply(torch.tensor(policy.rate(step - 1) * bias_correction(solver, step - 1)))
        theirs = joined(found, f"data:{step}")
        largest = np.maximum(largest, largest_values(groups, theirs))
        if step in checked:
            require_close(groups, data.numpy(), theirs, checked[step] * largest)
    state = read_snapshot(folder / f"theirs_iter_{steps}.solverstate", SHAPES * TYPES[solver.type])
    for number, history in enumerate(update.history):
        blobs = state.history[number * len(SHAPES) : (number + 1) * len(SHAPES)]
        theirs = np.concatenate([blob.reshape(-1) for blob in blobs])
        largest = largest_values(groups, theirs)
        require_close(groups, history.numpy(), theirs, checked[steps] * largest)


def joined(found: dict[str, np.ndarray], key: str) -> np.ndarray:
    return np.concatenate([found[f"{key}:{index}"].reshape(-1) for index in range(len(SHAPES))])


def largest_values(groups: list[ParamGroup], values: np.ndarray) -> np.ndarray:
    return np.array([np.abs(values[group.start : group.stop]).max() for group in groups])


def require_close(
    groups: list[ParamGroup], ours: np.ndarray, theirs: np.ndarray, allowed: np.ndarray
) -> None:
    assert np.isfinite(theirs).all()
    differences = largest_values(groups, ours - theirs)
    assert (differences <= allowed + 1e-30).all(), (differences, allowed)


@pytest.mark.parametrize("kind", TYPES)
def test_values_and_history_are_caffes_after_100_updates(
    kind: str, caffe_solver: CaffeSolver, tmp_path: Path
) -> None:
    multipliers = [(1.0, 1.0), (2.0, 0.0), (0.5, 2.0), (0.0, 1.0)]
    check_with_caffe(caffe_solver, tmp_path, solver_of(kind, 0.9), multipliers, TOLERANCES)


factors = st.sampled_from([0.0, 0.5, 1.0, 2.0])


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(sorted(TYPES)),
    momentum=st.sampled_from([0.0, 0.5, 0.9, 0.95]),
    multipliers=st.lists(st.tuples(factors, factors), min_size=4, max_size=4),
    changed=st.fixed_dictionaries(
        {
            "base_lr": st.floats(1e-4, 0.02),
            "weight_decay": st.floats(0, 0.1),
            "regularization_type": st.sampled_from(["L1", "L2"]),
            "clip_gradients": st.one_of(st.just(-1.0), st.floats(0.0, 5.0)),
            "iter_size": st.integers(1, 3),
            "delta": st.sampled_from([1e-8, 1e-4, 0.1]),
            "rms_decay": st.floats(0.5, 0.99),
            "momentum2": st.floats(0.5, 0.999),
        }
    ),
)
def test_any_solver_updates_as_caffe_does(
    kind: str,
    momentum: float,
    multipliers: list[tuple[float, float]],
    changed: dict[str, object],
    caffe_solver: CaffeSolver,
    tmp_path: Path,
) -> None:
    solver = solver_of(kind, momentum)
    solver.MergeFrom(SolverParameter(**changed))
    # Where decay cancels a gradient, what is left of it has fewer digits, and adaptive rules divide
    # by its size.
    check_with_caffe(caffe_solver, tmp_path, solver, multipliers, {1: 2e-6, 10: 1e-5})
