"""The ways of two engines through the same job, and how far apart they are."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from numpy.typing import ArrayLike

from pycaffe_prune.engines.base import TestScore, losses_in_log, read_result
from pycaffe_prune.engines.comparison.distances import (
    Checkpoint,
    Difference,
    EngineComparison,
    TestDifference,
    gap_of,
)
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.errors import EngineError, FormatError
from pycaffe_prune.formats.blobs import Blob
from pycaffe_prune.formats.caffemodel import Caffemodel, read_caffemodel
from pycaffe_prune.formats.solverstate import read_solverstate

__all__ = [
    "TOLERANCE",
    "Reached",
    "Trajectory",
    "checkpoint_iterations",
    "compare_trajectories",
    "read_trajectory",
    "relative_difference",
    "tolerance_at",
]

TOLERANCE = 1e-5
"""After one iteration, relative to a blob's largest value: float32 sums in another order."""

_GROWTH = 2 / 3
_IMAGES_PER_DIFFERENT_ANSWER = 10_000


def tolerance_at(iteration: int, first: float = TOLERANCE) -> float:
    """Return the relative difference that is allowed after ``iteration`` iterations.

    Roundings feed back through the weights: 1e-5 after one iteration becomes 1e-3 after 1,000. They
    can do much more, once one turns a ReLU on in one run and not in the other: see `allowing`.
    """
    return float(first * iteration**_GROWTH)


def checkpoint_iterations(iterations: int) -> tuple[int, ...]:
    """Return where runs are compared: after 1, 10, 100, … iterations, and after the last."""
    powers = (10**power for power in range(len(str(iterations))))
    return tuple(sorted({*(at for at in powers if at < iterations), iterations}))


@dataclass(frozen=True)
class Reached:
    """How far a run was at one checkpoint."""

    weights: Caffemodel
    history: tuple[Blob, ...]
    """As in the solverstate: in the order of the learnable parameters."""


@dataclass(frozen=True)
class Trajectory:
    """One engine's way through a job."""

    engine: str
    losses: Mapping[int, float]
    """Of the training batch, after each iteration."""
    checkpoints: Mapping[int, Reached]
    tests: tuple[TestScore, ...]
    """Before the first and after the last iteration, of a longer run the first one only, of each
    test net that counts right answers; none when there is none."""


def read_trajectory(folder: Path, iterations: int) -> Trajectory:
    """Return the way of an engine that `follow` left in ``folder``.

    Args:
        folder: Its run.
        iterations: How far; the run may have gone on.

    Raises:
        FormatError: The run is not finished, left no snapshot there, or a file is damaged.
    """
    run = RunFolder(folder)
    result = read_result(run)
    if result is None:
        raise FormatError(f"{folder}: holds no finished run")
    states = {
        at: run.snapshots / f"snapshot_iter_{at}.solverstate"
        for at in checkpoint_iterations(iterations)
    }
    if missing := [at for at, state in states.items() if not state.is_file()]:
        there = ", ".join(map(str, checkpoint_iterations(result.iterations)))
        raise FormatError(
            f"{folder}: its run of {result.iterations} iterations has no snapshot after "
            f"{missing[0]}; compare after one of {there}"
        )
    return Trajectory(
        engine=result.engine,
        losses=losses_in_log(run),
        checkpoints={
            at: Reached(
                read_caffemodel(state.with_suffix(".caffemodel")), read_solverstate(state).history
            )
            for at, state in states.items()
        },
        tests=tuple(
            test for test in (*result.tests, *result.other_tests) if test.iteration <= iterations
        ),
    )


def compare_trajectories(
    first: Trajectory, second: Trajectory, tolerance: float = TOLERANCE
) -> EngineComparison:
    """Compare two engines' ways through the same job, and the tests that both made.

    Raises:
        EngineError: They were not led through the same job: other checkpoints, tests or blobs.
    """
    tests = [
        {(test.iteration, test.test_net): test for test in way.tests} for way in (first, second)
    ]
    both = sorted(tests[0].keys() & tests[1].keys())
    is_untested = not (first.tests or second.tests)
    if first.checkpoints.keys() != second.checkpoints.keys() or not (both or is_untested):
        raise EngineError(
            f"{first.engine} was compared at iterations {sorted(first.checkpoints)} with "
            f"{len(first.tests)} tests, {second.engine} at {sorted(second.checkpoints)} with "
            f"{len(second.tests)}; train both with the same job"
        )
    points = [0, *sorted(first.checkpoints)]
    return EngineComparison(
        engines=(first.engine, second.engine),
        checkpoints=tuple(
            _checkpoint(first, second, since, at, tolerance_at(at, tolerance))
            for since, at in pairwise(points)
        ),
        tests=tuple(
            TestDifference(
                iteration=one.iteration,
                images=one.images,
                correct=(one.correct, other.correct),
                loss=(one.loss, other.loss),
                test_net_name=one.test_net_name,
                allowed=math.ceil(one.images / _IMAGES_PER_DIFFERENT_ANSWER),
            )
            for one, other in ((tests[0][at], tests[1][at]) for at in both)
        ),
    )


def _checkpoint(
    first: Trajectory, second: Trajectory, since: int, at: int, tolerance: float
) -> Checkpoint:
    # A net without a loss logs none; of one with a loss each has to be there.
    iterations = range(since + 1, at + 1) if first.losses or second.losses else ()
    curves = [
        [way.losses.get(iteration, math.nan) for iteration in iterations] for way in (first, second)
    ]
    reached = first.checkpoints[at], second.checkpoints[at]
    weights = [
        {f"weights {layer}/{index}": blob for (layer, index), blob in state.weights.blobs()}
        for state in reached
    ]
    history = [
        {f"history {place}": blob for place, blob in enumerate(state.history)} for state in reached
    ]
    return Checkpoint(
        iteration=at,
        loss=_difference("training loss", curves[0], curves[1], tolerance),
        weight_blobs=tuple(_blob_differences(tolerance, *weights)),
        history_blobs=tuple(_blob_differences(tolerance, *history)),
    )


def _blob_differences(
    tolerance: float, first: Mapping[str, Blob], second: Mapping[str, Blob]
) -> Iterator[Difference]:
    if [(name, blob.shape) for name, blob in first.items()] != [
        (name, blob.shape) for name, blob in second.items()
    ]:
        raise EngineError(
            f"the engines left different blobs: {', '.join(first)} and {', '.join(second)}"
        )
    for name, blob in first.items():
        yield _difference(name, blob, second[name], tolerance)


def _difference(what: str, first: ArrayLike, second: ArrayLike, tolerance: float) -> Difference:
    gap, largest = gap_of(first, second)
    return Difference(what, gap, largest, tolerance)


def relative_difference(first: ArrayLike, second: ArrayLike) -> float:
    """Return the largest absolute difference by the largest absolute value of ``first``.

    Args:
        first: Values, any shape.
        second: Values, the same shape.

    Returns:
        0 where both are equal (all zero, say); infinity where values are not finite, or where
        ``first`` is all zero and ``second`` is not.
    """
    return Difference("", *gap_of(first, second), 0).relative
