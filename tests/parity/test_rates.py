from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pycaffe_prune.engines.resolved_solver import solver_settings
from pycaffe_prune.engines.torch.rates import RatePolicy
from pycaffe_prune.formats.caffe_pb2 import SolverParameter, SolverState
from pycaffe_prune.formats.solverstate import read_solverstate

pytestmark = pytest.mark.real_caffe

NOTHING_TO_LEARN = """
layer { name: "data" type: "DummyData" top: "data" dummy_data_param { shape { dim: 1 } } }
layer { name: "silence" type: "Silence" bottom: "data" }
"""

floats = st.floats(0, 2, width=32)
iterations = st.lists(st.integers(0, 100_000), min_size=20, max_size=20, unique=True)
solvers = st.builds(
    SolverParameter,
    net=st.just("net.prototxt"),
    lr_policy=st.sampled_from(["fixed", "step", "exp", "inv", "multistep", "poly", "sigmoid"]),
    base_lr=st.floats(2**-14, 1, width=32),
    gamma=st.one_of(floats, st.floats(2**-14, 2**-7, width=32)),
    power=floats,
    stepsize=st.integers(1, 50_000),
    stepvalue=st.lists(st.integers(0, 100_000), max_size=4).map(sorted),
    max_iter=st.integers(100_000, 200_000),
)


@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(solver=solvers, at=iterations, step=st.integers(0, 4))
def test_every_policy_gives_caffes_rate_at_any_iteration_and_step(
    solver: SolverParameter,
    at: list[int],
    step: int,
    caffe_solver: Callable[..., dict[str, np.ndarray]],
    tmp_path: Path,
) -> None:
    (tmp_path / "net.prototxt").write_text(NOTHING_TO_LEARN)
    (tmp_path / "solver.prototxt").write_text(text_format.MessageToString(solver))
    states = [str(tmp_path / f"{iteration}.solverstate") for iteration in at]
    for path, iteration in zip(states, at, strict=True):
        state = SolverState(iter=iteration, current_step=step)
        Path(path).write_bytes(state.SerializeToString())
    theirs = caffe_solver(tmp_path / "solver.prototxt", "rates", states=states)["rates"]
    ours = [RatePolicy(solver_settings(solver), step).rate(iteration) for iteration in at]
    # The C library and NumPy round powers and exponentials differently: a few float32 apart.
    smallest = float(np.finfo(np.float32).tiny)
    np.testing.assert_allclose(ours, theirs, rtol=2**-21, atol=smallest)


MULTISTEP = """
net: "net.prototxt" lr_policy: "multistep" base_lr: 1 gamma: 0.5 snapshot_prefix: "theirs"
stepvalue: 2 stepvalue: 3 stepvalue: 3 stepvalue: 3 stepvalue: 9
"""


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 6, 9, 10, 11])
@pytest.mark.parametrize("policy", ["multistep", "step"])
def test_the_step_that_a_solverstate_keeps_is_caffes(
    policy: str,
    steps: int,
    caffe_solver: Callable[..., dict[str, np.ndarray]],
    tmp_path: Path,
) -> None:
    (tmp_path / "net.prototxt").write_text(NOTHING_TO_LEARN)
    text = MULTISTEP.replace('"multistep"', f'"{policy}" stepsize: 4')
    (tmp_path / "solver.prototxt").write_text(text)
    caffe_solver(tmp_path / "solver.prototxt", "train", state=None, steps=steps)
    state = read_solverstate(tmp_path / f"theirs_iter_{steps}.solverstate")
    ours = RatePolicy(solver_settings(text_format.Parse(text, SolverParameter())))
    for iteration in range(steps):
        ours.rate(iteration)
    assert ours.current_step == state.current_step
