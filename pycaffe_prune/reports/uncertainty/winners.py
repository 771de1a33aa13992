"""Who wins at a level of reduction: the best method there, and who cannot be told from it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from pycaffe_prune.reports.uncertainty.trials import (
    Comparison,
    Trial,
    compare,
    mean_accuracy,
    side_of,
)

__all__ = ["Entrant", "Rival", "Winner", "winner_at"]


@dataclass(frozen=True)
class Entrant:
    """A method's nets of one setting, one of each seed."""

    method: str
    setting: str
    kept: Fraction
    """Share of the weights that is left; of several seeds the greatest."""
    trials: tuple[Trial, ...]

    @property
    def accuracy(self) -> Fraction:
        """The mean over the seeds."""
        return mean_accuracy(self.trials)


@dataclass(frozen=True)
class Rival:
    """Another method's entrant, held against the winner's."""

    entrant: Entrant
    comparison: Comparison
    """The winner minus this one."""

    @property
    def is_within_noise(self) -> bool:
        """Whether it cannot be told from the winner."""
        return side_of(self.comparison.interval) != "above"


@dataclass(frozen=True)
class Winner:
    """The most accurate entrant at a level, and all others by falling accuracy."""

    level: Fraction
    best: Entrant
    rivals: tuple[Rival, ...]

    @property
    def within_noise(self) -> tuple[Rival, ...]:
        """The rivals that cannot be told from the best."""
        return tuple(rival for rival in self.rivals if rival.is_within_noise)


def winner_at(entrants: Iterable[Entrant], level: Fraction) -> Winner | None:
    """Return who wins where a share of at least ``level`` of the weights is gone.

    Each method enters with its nearest net at or beyond the level; nothing is interpolated between
    nets. Each comparison with the best holds at 95 % by itself: of twenty methods that are as good
    as the best, one will seem to be beaten. With a few seeds none would be if all had to hold
    together.

    Returns:
        None where no method has a net there.
    """
    nearest: dict[str, Entrant] = {}
    for entrant in entrants:
        known = nearest.get(entrant.method)
        if entrant.kept <= 1 - level and (known is None or _rank(entrant) > _rank(known)):
            nearest[entrant.method] = entrant
    order: Sequence[Entrant] = sorted(nearest.values(), key=_by_accuracy)
    if not order:
        return None
    best, *others = order
    rivals = (Rival(other, compare(best.trials, other.trials)) for other in others)
    return Winner(level, best, tuple(rivals))


def _rank(entrant: Entrant) -> tuple[Fraction, Fraction]:
    """The nearest to the level; of equally near ones the more accurate."""
    return entrant.kept, entrant.accuracy


def _by_accuracy(entrant: Entrant) -> tuple[Fraction, Fraction, str]:
    """The most accurate first; of equally accurate ones the smaller."""
    return -entrant.accuracy, entrant.kept, entrant.method
