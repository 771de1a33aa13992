"""The solver as an engine runs it, and what its learning rate depends on."""

from pycaffe_prune.engines.job import SolverSettings, TrainRequest
from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.caffe_pb2 import SolverParameter

__all__ = ["resolved_solver", "solver_settings"]

_NEVER = 2**31 - 1


def resolved_solver(solver: SolverParameter, request: TrainRequest) -> SolverParameter:
    """Return the solver, but for its nets, as the engine runs it.

    The worker tests and takes snapshots itself.

    Raises:
        FormatError: A number is out of range, or missing.
    """
    resolved = SolverParameter()
    resolved.CopyFrom(solver)
    resolved.snapshot_prefix = "snapshot"
    resolved.snapshot = 0
    resolved.snapshot_after_train = False
    resolved.snapshot_format = SolverParameter.BINARYPROTO
    resolved.test_interval = _NEVER
    resolved.test_initialization = False
    resolved.display = 0
    resolved.ClearField("weights")  # the worker loads them: see `initial_weights.weights_files`
    if request.test_interval is None:
        if solver.test_iter and solver.test_interval < 1:
            raise FormatError(
                f"{request.solver}: has test_iter and test_interval {solver.test_interval}, at "
                "which Caffe ends; give it a test_interval of 1 or more, or --test-interval N"
            )
    elif not resolved.test_iter:
        apart = len(resolved.test_net) + len(resolved.test_net_param)
        resolved.test_iter.extend([1] * max(1, apart))
    if request.max_iter is not None:
        resolved.max_iter = request.max_iter
    for name in ("iter_size", "average_loss"):
        if (value := getattr(resolved, name)) < 1:
            raise FormatError(f"{request.solver}: {name} is {value}; it has to be 1 or more")
    # 0 where it is asked for: the weights are then what the fillers, or the files, make them.
    if resolved.max_iter < (0 if request.max_iter is not None else 1):
        raise FormatError(f"{request.solver}: max_iter is {resolved.max_iter}; give --max-iter N")
    if request.seed is not None:
        resolved.random_seed = request.seed
    elif resolved.random_seed < 0:
        resolved.random_seed = 1
    return resolved


def solver_settings(solver: SolverParameter) -> SolverSettings:
    """Return what the solver's learning rate depends on."""
    return SolverSettings(
        lr_policy=solver.lr_policy,
        base_lr=solver.base_lr,
        gamma=solver.gamma,
        power=solver.power,
        stepsize=solver.stepsize,
        stepvalue=tuple(solver.stepvalue),
        max_iter=solver.max_iter,
    )
