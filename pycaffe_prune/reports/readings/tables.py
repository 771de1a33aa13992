"""Readings of the paper as tables of text."""

from collections.abc import Sequence

from pycaffe_prune.reports.readings.curves import Reach, Spot
from pycaffe_prune.reports.readings.fit import Reading
from pycaffe_prune.reports.readings.signs import SIGNS
from pycaffe_prune.reports.tables import Grid

__all__ = ["READINGS_NOTE", "fit_grid", "readings_grid", "sets_grid", "signs_grid"]

READINGS_NOTE = (
    "Leaves: the reduction at which a curve falls through the lower end of the paper's axis, on "
    "the line between two points; “to”: it ends there, within the axes. Of several pruning seeds "
    "means, and the lowest and highest. Held: claims reproduced, noise counted."
)


def fit_grid(group: Sequence[Reading]) -> Grid:
    """Return which reading fits best, and by what: a line each, the best first."""
    heads = ("place", "preset", "signs", "ticks off", "shows", "does not", "reading")
    lines = tuple(
        (
            str(reading.place),
            reading.preset,
            f"{reading.met} of {reading.judged}",
            f"{reading.distance:.2f}",
            _named(reading, is_met=True),
            _named(reading, is_met=False),
            reading.told or "–",
        )
        for reading in group
    )
    return Grid(heads, lines, numbers=2)


def _named(reading: Reading, *, is_met: bool) -> str:
    return ", ".join(found.sign for found in reading.findings if found.met is is_met) or "–"


def signs_grid(group: Sequence[Reading]) -> Grid:
    """Return what each reading shows of each sign, in numbers."""
    lines = tuple(
        (
            reading.preset,
            *(
                f"{_mark(found.met)} {found.ours}"
                + (f" ({found.distance:.2f} off)" if found.distance else "")
                for found in reading.findings
            ),
        )
        for reading in group
    )
    return Grid(("preset", *(sign.name for sign in SIGNS)), lines, numbers=0)


def sets_grid(group: Sequence[Reading]) -> Grid:
    """Return where the least alpha stands after each set: reduction and accuracy in %."""
    most = max(len(reading.sets) for reading in group)
    lines = tuple(
        (
            reading.preset,
            f"{reading.sets[0].value:g}",
            *(f"{spot.reduction:.2f} / {spot.accuracy:.2f}" for spot in reading.sets),
            *("–" for _ in range(most - len(reading.sets))),
        )
        for reading in group
        if reading.sets
    )
    heads = (f"after set {number}" for number in range(1, most + 1))
    return Grid(("preset", "least α", *heads), lines, numbers=most)


def _mark(met: bool | None) -> str:
    return "–" if met is None else "✓" if met else "✗"


def readings_grid(group: Sequence[Reading]) -> Grid:
    """Return what each reading gives: baseline, least alpha, where curves leave the axis."""
    heads = ("preset", "α below the axis", "seeds", "baseline %", "least α", "its all FC %")
    tail = ("its accuracy %", "connections leave", "units leave", "small leave", "held")
    lines = tuple(_line(reading) for reading in group)
    return Grid((*heads, *tail), lines, numbers=9)


def _line(reading: Reading) -> tuple[str, ...]:
    first = reading.first
    baseline = next(iter(reading.curves.get("baseline", ())), None)
    below = ", ".join(setting.split("= ")[-1] for setting in reading.below)
    return (
        reading.preset,
        below or "none",
        str(reading.seeds),
        _accuracy(baseline),
        "–" if first is None else f"{first.value:g}",
        "–" if first is None else f"{first.reduction:.2f}",
        _accuracy(first),
        *(_left(reach) for reach in reading.reaches.values()),
        f"{reading.held} of {reading.claims}",
    )


def _accuracy(spot: Spot | None) -> str:
    if spot is None:
        return "–"
    several = f" ({spot.lowest:.2f} to {spot.highest:.2f})" if spot.seeds > 1 else ""
    return f"{spot.accuracy:.2f}{several}"


def _left(reach: Reach | None) -> str:
    if reach is None:
        return "–"
    return f"{'' if reach.leaves else 'to '}{reach.reduction:.2f}"
