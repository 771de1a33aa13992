"""How far apart two ways through a job are: the arithmetic, and what counts as the same."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from pycaffe_prune.engines.base import TestScore
from pycaffe_prune.engines.comparison.distances import allowing
from pycaffe_prune.engines.comparison.trajectory import (
    Reached,
    Trajectory,
    checkpoint_iterations,
    compare_trajectories,
    read_trajectory,
    relative_difference,
    tolerance_at,
)
from pycaffe_prune.errors import EngineError, FormatError
from pycaffe_prune.formats.named_model import named_model

VALUES = arrays(np.float32, array_shapes(), elements=st.floats(-1e3, 1e3, width=32))


def score(iteration: int, correct: int, images: int = 10_000) -> TestScore:
    return TestScore(
        iteration=iteration,
        images=images,
        correct=correct,
        accuracy=correct / images,
        loss=0.5,
        finite=True,
    )


def way(iterations: int = 20, **changed: object) -> Trajectory:
    """A made-up run of 20 iterations: one layer with weights and biases."""
    reached = Reached(
        named_model(
            {("ip", 0): np.ones((2, 3), np.float32), ("ip", 1): np.full(2, -4, np.float32)}
        ),
        (np.ones((2, 3), np.float32), np.zeros(2, np.float32)),
    )
    whole = Trajectory(
        engine="one",
        losses={at: 1 / at for at in range(1, iterations + 1)},
        checkpoints=dict.fromkeys(checkpoint_iterations(iterations), reached),
        tests=(score(0, 1000), score(iterations, 9000)),
    )
    return replace(whole, **changed)


@given(VALUES, st.floats(1e-3, 1e3))
def test_the_difference_is_relative_and_counts_whatever_the_scale(values, factor) -> None:
    assert relative_difference(values, values) == 0
    moved = values.astype(np.float64) * 1.25
    expected = 0.25 if values.any() else 0
    assert relative_difference(values, moved) == pytest.approx(expected)
    scaled = relative_difference(values * np.float64(factor), moved * factor)
    assert scaled == pytest.approx(expected)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_never_the_same(bad: float) -> None:
    assert relative_difference([1, bad], [1, bad]) == math.inf
    assert relative_difference([0, 0], [0, 1e-30]) == math.inf


def test_runs_are_compared_after_each_power_of_ten_and_at_the_end() -> None:
    assert checkpoint_iterations(1) == (1,)
    assert checkpoint_iterations(10) == (1, 10)
    assert checkpoint_iterations(11) == (1, 10, 11)
    assert checkpoint_iterations(1000) == (1, 10, 100, 1000)
    assert tolerance_at(1) == 1e-5
    assert tolerance_at(1000) == pytest.approx(1e-3)


def test_a_way_is_the_same_as_itself() -> None:
    found = compare_trajectories(way(), way(engine="other"))
    assert found.is_same
    assert found.engines == ("one", "other")
    assert [point.iteration for point in found.checkpoints] == [1, 10, 20]
    assert {part.relative for point in found.checkpoints for part in point.differences} == {0}


@pytest.mark.parametrize("iteration", [1, 10, 20])
@pytest.mark.parametrize("what", ["weights", "history", "loss"])
def test_whatever_differs_is_named_with_its_iteration(iteration: int, what: str) -> None:
    for factor, same in ((1 + 0.9 * tolerance_at(iteration), True), (1.01, False)):
        other = way()
        losses, checkpoints = dict(other.losses), dict(other.checkpoints)
        reached = checkpoints[iteration]
        bias = reached.weights.layer("ip").blobs[1] * np.float64(factor)
        if what == "weights":
            weights = reached.weights.with_blobs({("ip", 1): bias.astype(np.float32)})
            checkpoints[iteration] = replace(reached, weights=weights)
        elif what == "history":
            history = (reached.history[0] * np.float64(factor), reached.history[1])
            checkpoints[iteration] = replace(reached, history=history)
        else:
            # Of the losses 1/11 to 1/20, say, the largest is what differences are relative to.
            since = {1: 1, 10: 2, 20: 11}[iteration]
            losses[iteration] += (factor - 1) / since
        found = compare_trajectories(way(), replace(other, losses=losses, checkpoints=checkpoints))
        assert found.is_same == same
        if not same:
            named = {"weights": "weights ip/1", "history": "history 0", "loss": "training loss"}
            assert f"at iteration {iteration}: {named[what]} by 0.01" in found.difference


def test_one_answer_of_ten_thousand_may_be_another() -> None:
    for correct, same in ((9000, True), (8999, True), (9001, True), (8998, False)):
        found = compare_trajectories(way(), way(tests=(score(0, 1000), score(20, correct))))
        assert found.is_same == same
    assert "test at iteration 20: 9000 and 8998 of 10000" in found.difference


def test_what_rounding_does_to_one_engine_is_allowed_to_the_other() -> None:
    def moved(factor: float, correct: int) -> Trajectory:
        losses = {at: loss * factor if at > 10 else loss for at, loss in way().losses.items()}
        return way(losses=losses, tests=(score(0, 1000), score(20, correct)))

    def judged(factor: float, correct: int) -> bool:
        rounding = compare_trajectories(way(), moved(1.01, 8990))
        return allowing(compare_trajectories(way(), moved(factor, correct)), [rounding]).is_same

    assert judged(1.039, 8961)
    assert not judged(1.041, 9000)
    assert not judged(1, 8959)
    early = way(losses={at: loss * 1.001 for at, loss in way().losses.items()})
    found = allowing(compare_trajectories(way(), early), [compare_trajectories(way(), moved(2, 0))])
    assert "at iteration 1:" in found.difference


def test_a_loss_that_was_not_logged_is_a_difference() -> None:
    losses = {at: loss for at, loss in way().losses.items() if at != 7}
    assert not compare_trajectories(way(), way(losses=losses)).is_same


def test_tests_are_compared_where_both_made_one() -> None:
    longer = way(tests=(score(0, 1000), score(10, 5), score(20, 8999)))
    found = compare_trajectories(way(), longer)
    assert [test.iteration for test in found.tests] == [0, 20]
    first_only = way(tests=(score(0, 998),))
    found = compare_trajectories(way(), first_only)
    assert [(test.iteration, test.allowed) for test in found.tests] == [(0, 1)]
    assert allowing(found, [found]).tests[0].allowed == 8
    assert allowing(compare_trajectories(way(), longer), [found]).tests[1].allowed == 1


def test_other_jobs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="train both with the same job"):
        compare_trajectories(way(), way(30))
    with pytest.raises(EngineError, match="with 0"):
        compare_trajectories(way(), way(tests=()))
    other = {at: replace(reached, history=()) for at, reached in way().checkpoints.items()}
    with pytest.raises(EngineError, match="different blobs"):
        compare_trajectories(way(), way(checkpoints=other))
    with pytest.raises(FormatError, match="no finished run"):
        read_trajectory(tmp_path, 20)


def test_each_test_net_is_compared_with_its_own() -> None:
    def both(correct: int) -> tuple[TestScore, ...]:
        other = score(20, correct).model_copy(
            update={"test_net": 1, "test_net_name": "test net #1 (b)"}
        )
        return (score(0, 1000), score(20, 9000), other)

    same = compare_trajectories(way(tests=both(2000)), way(tests=both(2000)))
    assert (same.is_same, len(same.tests)) == (True, 3)
    apart = compare_trajectories(way(tests=both(2000)), way(tests=both(9000)))
    assert "in the test of test net #1 (b) at iteration 20: 2000 and 9000" in (
        apart.difference or ""
    )
    assert allowing(apart, [apart]).is_same
    assert not allowing(apart, [same]).is_same
