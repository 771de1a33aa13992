"""How far apart two engines are on the same job, blob by blob, and what of it roundings explain."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

__all__ = [
    "ROUNDING_FACTOR",
    "Checkpoint",
    "Difference",
    "EngineComparison",
    "TestDifference",
    "allowing",
    "gap_of",
]

ROUNDING_FACTOR = 4
"""How many times further apart than a run from its twins with other roundings they may be."""


def gap_of(first: ArrayLike, second: ArrayLike) -> tuple[float, float]:
    """Return the largest absolute difference, and the largest absolute value of ``first``.

    Args:
        first: Values, any shape.
        second: Values, the same shape.

    Returns:
        Both infinite where a value of either is not finite.
    """
    one, other = (np.asarray(values, np.float64) for values in (first, second))
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        return math.inf, math.inf
    return float(np.abs(one - other).max(initial=0.0)), float(np.abs(one).max(initial=0.0))


@dataclass(frozen=True)
class Difference:
    """How far two engines are apart in one respect."""

    what: str
    """The losses, or a blob."""
    gap: float
    """The largest absolute difference; infinite where values are not finite."""
    largest: float
    """The first engine's largest absolute value."""
    tolerance: float
    """What is allowed, relative to `largest`."""
    jitter: float = 0.0
    """The largest absolute difference that other roundings made to the first engine itself."""

    @property
    def relative(self) -> float:
        """`gap` by `largest`; infinite where values are not finite."""
        return _quotient(self.gap, self.largest)

    @property
    def allowed(self) -> float:
        """What is allowed, as `relative` is measured."""
        return max(self.tolerance, _quotient(ROUNDING_FACTOR * self.jitter, self.largest))

    @property
    def is_same(self) -> bool:
        """Whether it is within what is allowed; values that are not finite never are."""
        limit = max(self.tolerance * self.largest, ROUNDING_FACTOR * self.jitter)
        return math.isfinite(self.gap) and self.gap <= limit

    @property
    def excess(self) -> float:
        """`relative` by `allowed`: above 1 where it is not the same."""
        if not self.is_same and not math.isfinite(self.relative):
            return math.inf
        return _quotient(self.relative, self.allowed) if self.gap else 0.0


def _quotient(part: float, whole: float) -> float:
    if part == 0:
        return 0.0
    return part / whole if whole and math.isfinite(part) else math.inf


@dataclass(frozen=True)
class Checkpoint:
    """How far two engines are apart after some iterations."""

    iteration: int
    loss: Difference
    """Over all iterations since the checkpoint before."""
    weight_blobs: tuple[Difference, ...]
    history_blobs: tuple[Difference, ...]

    @property
    def weights(self) -> Difference:
        """The worst blob of the weights, by what is allowed to each."""
        return _worst(self.weight_blobs, self.loss.tolerance)

    @property
    def history(self) -> Difference:
        """The worst blob of the history."""
        return _worst(self.history_blobs, self.loss.tolerance)

    @property
    def differences(self) -> tuple[Difference, Difference, Difference]:
        """The losses, and the worst blobs."""
        return self.loss, self.weights, self.history


def _worst(blobs: Iterable[Difference], tolerance: float) -> Difference:
    nothing = Difference("no blob", 0.0, 0.0, tolerance)
    return max(blobs, key=lambda found: (found.excess, found.relative), default=nothing)


@dataclass(frozen=True)
class TestDifference:
    """One test by both engines, each of its own weights."""

    __test__ = False  # pytest: not a test class

    iteration: int
    images: int
    correct: tuple[int, int]
    loss: tuple[float | None, float | None]
    allowed: int
    """Images that may be judged otherwise."""
    test_net_name: str = ""
    """Empty where the solver has one test net."""

    @property
    def apart(self) -> int:
        """The difference in right answers."""
        return abs(self.correct[0] - self.correct[1])

    @property
    def is_same(self) -> bool:
        """Whether the numbers of right answers agree, up to `allowed`."""
        return self.apart <= self.allowed


@dataclass(frozen=True)
class EngineComparison:
    """Two engines on the same job."""

    engines: tuple[str, str]
    checkpoints: tuple[Checkpoint, ...]
    tests: tuple[TestDifference, ...]

    @property
    def difference(self) -> str | None:
        """The first thing that differs by more than is allowed, as a sentence; None: nothing."""
        both = " and ".join(self.engines)
        for point in self.checkpoints:
            for found in point.differences:
                if not found.is_same:
                    return f"{both} differ at iteration {point.iteration}: {_how_far(found)}"
        for test in self.tests:
            if not test.is_same:
                of = f" of {test.test_net_name}" if test.test_net_name else ""
                return (
                    f"{both} differ in the test{of} at iteration {test.iteration}: "
                    f"{test.correct[0]} and {test.correct[1]} of {test.images} images are right"
                )
        return None

    @property
    def is_same(self) -> bool:
        """Whether everything is within what is allowed."""
        return self.difference is None


def _how_far(found: Difference) -> str:
    if not math.isfinite(found.gap):
        return f"{found.what} has values that are NaN, infinite or missing"
    return (
        f"{found.what} by {found.relative:.2g} of the largest value, more than the "
        f"{found.allowed:.2g} that is allowed"
    )


def allowing(found: EngineComparison, roundings: Sequence[EngineComparison]) -> EngineComparison:
    """Allow two engines, in each blob, `ROUNDING_FACTOR` times what rounding does to one of them.

    Each blob has its own allowance: the gradient of a bias before BatchNorm is nothing but
    rounding, and excuses no other blob.

    Args:
        found: The two engines.
        roundings: The first of them against itself, each time from initial weights of which each
            was moved to the next float32: what no engine can be expected to stay below. Of
            several the largest counts, blob by blob.
    """
    for rounding in roundings:
        apart = {(test.iteration, test.test_net_name): test.apart for test in rounding.tests}
        found = replace(
            found,
            checkpoints=tuple(
                Checkpoint(
                    one.iteration,
                    _wider(one.loss, other.loss),
                    tuple(map(_wider, one.weight_blobs, other.weight_blobs)),
                    tuple(map(_wider, one.history_blobs, other.history_blobs)),
                )
                for one, other in zip(found.checkpoints, rounding.checkpoints, strict=True)
            ),
            tests=tuple(
                replace(one, allowed=max(one.allowed, ROUNDING_FACTOR * apart.get(at, 0)))
                for one in found.tests
                for at in [(one.iteration, one.test_net_name)]
            ),
        )
    return found


def _wider(one: Difference, other: Difference) -> Difference:
    """Where rounding alone makes NaN, nothing is known of how far it moves the blob."""
    jitter = other.gap if math.isfinite(other.gap) else 0.0
    return replace(one, jitter=max(one.jitter, jitter))
