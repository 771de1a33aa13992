"""Do two engines train alike? The same job from the same weights, compared on the way."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

from pycaffe_prune.engines.base import Engine, Event, Observer
from pycaffe_prune.engines.comparison.distances import EngineComparison, allowing
from pycaffe_prune.engines.comparison.rounding import rounded_otherwise
from pycaffe_prune.engines.comparison.trajectory import (
    TOLERANCE,
    Trajectory,
    checkpoint_iterations,
    compare_trajectories,
    read_trajectory,
)
from pycaffe_prune.engines.initial_weights import weights_files
from pycaffe_prune.engines.job import TrainRequest
from pycaffe_prune.engines.run import train
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.engines.solver_nets import net_of_solver, solver_nets, with_nets
from pycaffe_prune.errors import EngineError
from pycaffe_prune.formats.caffe_pb2 import TRAIN, LayerParameter, SolverParameter
from pycaffe_prune.formats.prototxt import read_net, read_solver, write_prototxt
from pycaffe_prune.net.graph import NetState, layers_in_state
from pycaffe_prune.net.shape_pyramid import draws_values
from pycaffe_prune.net.state_wish import OWN_STATE

__all__ = [
    "ROUNDINGS",
    "Watch",
    "compare_engines",
    "follow",
    "initial_weights",
    "run_name",
    "store_runs",
]

ROUNDINGS = 4
"""How many twins with other roundings a run may have: by one alone a corner may not be met."""

Watch = Callable[[str], AbstractContextManager[Observer]]
"""Gives the observer of a run, called with its name (see `run_name`)."""


def _unwatched(_engine: str) -> AbstractContextManager[Observer]:
    def ignore(event: Event) -> None:
        """Report nothing."""

    return nullcontext(ignore)


def compare_engines(
    request: TrainRequest,
    engines: Sequence[Engine],
    iterations: int,
    folder: Path,
    *,
    devices: Sequence[str] | None = None,
    tolerance: float = TOLERANCE,
    watch: Watch = _unwatched,
) -> EngineComparison:
    """Train the same job with two engines from the same weights, and compare them on the way.

    Where they differ by more than the tolerance, the first engine trains again, with other
    roundings (`engines.comparison.rounding`), and what that does to a blob is allowed to the second
    one as well (`engines.comparison.distances.allowing`). Up to `ROUNDINGS` such twins are made, as
    long as a difference is not explained by them.

    Args:
        request: The job. Without ``weights`` the first engine draws them, once for both.
        engines: Two engines, or one that computes on two devices; the first is what differences
            are measured by.
        iterations: How long to train.
        folder: Where the runs are kept, each in a folder of its engine's name (and its device's,
            if that is not the CPU); a finished one is not repeated.
        devices: What each engine computes on; None: both on the request's.
        tolerance: See `tolerance_at`.
        watch: See `Watch`.

    Raises:
        EngineError: An engine failed, or a layer draws random numbers.
        PruneError: The request is at fault.
    """
    request = _self_contained(request, folder / "job")
    _refuse_random(request)
    jobs = [replace(request, device=device) for device in devices or [request.device] * 2]
    weights = request.weights or initial_weights(jobs[0], engines[0], folder / "initial")
    requests = [replace(job, weights=weights) for job in jobs]
    first, second = (
        follow(job, engine, iterations, folder / run_name(engine.name, job.device), watch)
        for job, engine in zip(requests, engines, strict=True)
    )
    found = compare_trajectories(first, second, tolerance)
    for twin in range(ROUNDINGS):
        if found.is_same:
            break
        again = _follow_twin(twin, requests[0], weights, engines[0], iterations, folder, watch)
        found = allowing(found, [compare_trajectories(first, again, tolerance)])
    return found


def store_runs(
    request: TrainRequest,
    engine: Engine,
    iterations: int,
    folder: Path,
    *,
    device: str | None = None,
    watch: Watch = _unwatched,
) -> None:
    """Make all runs that `compare_engines` may ask of its first engine.

    With them the comparison can be made where that engine is not (`engines.stored_runs`): the run,
    and its twins with other roundings, which only some comparisons need.

    Args:
        request: As for `compare_engines`, like the others.
        engine: The first engine.
        iterations: How long to train.
        folder: Where the runs are kept; finished ones are not repeated.
        device: What the engine computes on; None: the request's.
        watch: See `Watch`.

    Raises:
        EngineError, PruneError: As `compare_engines`.
    """
    request = _self_contained(request, folder / "job")
    _refuse_random(request)
    job = replace(request, device=device or request.device)
    weights = job.weights or initial_weights(job, engine, folder / "initial")
    job = replace(job, weights=weights)
    follow(job, engine, iterations, folder / run_name(engine.name, job.device), watch)
    for twin in range(ROUNDINGS):
        _follow_twin(twin, job, weights, engine, iterations, folder, watch)


def run_name(engine: str, device: str) -> str:
    """Return the name of an engine's run, and of its folder.

    Runs made on a CPU may lie beside those of a GPU, and must not be taken for them.
    """
    return engine if device == "cpu" else f"{engine}-{device.replace(':', '-')}"


def _follow_twin(
    number: int,
    request: TrainRequest,
    weights: Path,
    engine: Engine,
    iterations: int,
    folder: Path,
    watch: Watch,
) -> Trajectory:
    """Train the same job from ``weights``, with other roundings."""
    ending = f"-{number + 1}" if number else ""
    twin = folder / f"{run_name(engine.name, request.device)}-rounded{ending}"
    job = rounded_otherwise(request, weights, twin / "job", number)
    return follow(job, engine, iterations, twin, watch)


def follow(
    request: TrainRequest,
    engine: Engine,
    iterations: int,
    folder: Path,
    watch: Watch = _unwatched,
) -> Trajectory:
    """Train a job and keep every loss and the state at each of `checkpoint_iterations`.

    Args:
        request: The job.
        engine: What trains.
        iterations: How long.
        folder: Where; kept, so that `read_trajectory` finds it. A finished run is not repeated.
        watch: See `Watch`.

    Raises:
        PruneError: As `engines.run.train`.
    """
    solver = _own_solver(request)
    solver.display = 1
    run = RunFolder(folder)
    name = run_name(engine.name, request.device)
    with watch(name) as observe:
        train(
            replace(
                request,
                solver=_written(solver, folder / "job"),
                max_iter=iterations,
                snapshot=0,
                test_interval=0 if solver.test_iter else None,
                keep_snapshots=True,
                checkpoints=checkpoint_iterations(iterations),
            ),
            run.path,
            engine,
            observe,
        )
    return replace(read_trajectory(folder, iterations), engine=name)


def initial_weights(request: TrainRequest, engine: Engine, folder: Path) -> Path:
    """Let an engine fill a net's blobs; return the caffemodel, which is in ``folder``.

    The engine trains one iteration at a rate of 0, which every engine can be asked for. (BatchNorm
    then has the statistics of one batch.) What is there already is not drawn again.

    Raises:
        PruneError: As `engines.run.train`.
    """
    own = _own_solver(request)
    still = SolverParameter(
        net=own.net,
        base_lr=0.0,
        lr_policy="fixed",
        max_iter=1,
        random_seed=own.random_seed,
        weights=own.weights,
    )
    run = RunFolder(folder)
    train(
        replace(
            request,
            solver=_written(still, folder / "job"),
            mask=None,
            max_iter=1,
            snapshot=0,
            test_interval=None,
        ),
        run.path,
        engine,
        lambda _: None,
    )
    return run.final_weights


def _own_solver(request: TrainRequest) -> SolverParameter:
    """The request's solver with an absolute path to its net: it will lie elsewhere."""
    solver = read_solver(request.solver)
    solver.net = str((request.net or net_of_solver(request.solver)).resolve())
    return solver


def _self_contained(request: TrainRequest, folder: Path) -> TrainRequest:
    """The same job by a solver in ``folder`` that has all its nets in one, and absolute paths."""
    solver = read_solver(request.solver)
    folder.mkdir(parents=True, exist_ok=True)
    net_path = folder / "net.prototxt"
    nets = solver_nets(request, solver)
    write_prototxt(net_path, nets.net)
    own = with_nets(solver, nets, net_path)
    begun = weights_files(replace(request, weights=None, more_weights=()), solver)
    own.weights[:] = [str(path) for path in begun]
    return replace(
        request,
        solver=_written(own, folder),
        net=None,
        state=OWN_STATE,
        own=(*request.own, request.solver.resolve().parent, nets.source.resolve().parent),
    )


def _written(solver: SolverParameter, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "solver.prototxt"
    write_prototxt(path, solver)
    return path


def _refuse_random(request: TrainRequest) -> None:
    net_path = request.net or net_of_solver(request.solver)
    for layer in layers_in_state(read_net(net_path), NetState(TRAIN)):
        for what in _random_parts(layer):
            raise EngineError(
                f"{net_path}: layer '{layer.name}' ({layer.type}) draws random numbers ({what}), "
                "each engine its own: their trainings cannot be compared; take it out"
            )


def _random_parts(layer: LayerParameter) -> Iterator[str]:
    """What a layer draws anew in every iteration."""
    if layer.type == "Dropout" and layer.dropout_param.dropout_ratio > 0:
        yield "dropout_ratio"
    if draws_values(layer):
        yield "pool: STOCHASTIC"
    if layer.transform_param.mirror:
        yield "mirror"
    if layer.transform_param.crop_size:
        yield "crop_size"
    if layer.image_data_param.shuffle or layer.hdf5_data_param.shuffle:
        yield "shuffle"
    fillers = (filler.type for filler in layer.dummy_data_param.data_filler)
    yield from (f"filler {kind}" for kind in fillers if kind != "constant")
