"""Who wins at 90, 95, 98 and 99 % of the whole net's weights gone, and who cannot be told apart."""

from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction

from pycaffe_prune.experiments.result import ExperimentResult, Point
from pycaffe_prune.reports.methods.curves import method_curves
from pycaffe_prune.reports.once import once
from pycaffe_prune.reports.paper.weigh import trial_of
from pycaffe_prune.reports.rows import parameter, percent
from pycaffe_prune.reports.tables import Grid
from pycaffe_prune.reports.uncertainty.winners import Entrant, Winner, winner_at

__all__ = ["LEVELS", "winners", "winners_grid"]

LEVELS = tuple(Fraction(level, 100) for level in (90, 95, 98, 99))
_LISTED = 6


@once
def winners(result: ExperimentResult) -> Sequence[Winner]:
    """Return the winner at each level that some method reaches; none where nets were not measured.

    The unpruned net's weights are all of its layers', convolutions too.
    """
    if not method_curves(result):
        return ()
    alike: dict[tuple[str, str], list[Point]] = defaultdict(list)
    for point in result.points:
        if point.selected and point.method != "baseline":
            alike[point.method, parameter(point)].append(point)
    whole = next(p.sizes.whole.weights for p in result.select("baseline") if p.sizes is not None)
    entrants = [
        Entrant(
            result.title_of(method),
            setting,
            max(Fraction(p.sizes.whole.non_zero_weights, whole) for p in points if p.sizes),
            tuple(map(trial_of, points)),
        )
        for (method, setting), points in alike.items()
    ]
    found = (winner_at(entrants, level) for level in LEVELS)
    return tuple(winner for winner in found if winner is not None)


def winners_grid(result: ExperimentResult) -> Grid:
    """Return a line for each level."""
    heads = ("gone %", "wins", "accuracy %", "kept %", "setting", "within noise of it", "behind")
    return Grid(heads, tuple(map(_line, winners(result))), numbers=2)


def _line(winner: Winner) -> tuple[str, ...]:
    best = winner.best
    behind = [rival for rival in winner.rivals if not rival.is_within_noise]
    return (
        f"{percent(winner.level):g}",
        best.method,
        f"{percent(best.accuracy):.2f}",
        f"{percent(best.kept):.3g}",
        best.setting,
        _listed([rival.entrant for rival in winner.within_noise]),
        _listed([rival.entrant for rival in behind]),
    )


def _listed(entrants: Sequence[Entrant]) -> str:
    told = [f"{one.method} {percent(one.accuracy):.2f}" for one in entrants[:_LISTED]]
    more = len(entrants) - _LISTED
    return ", ".join(told + ([f"{more} more"] if more > 0 else [])) or "–"
