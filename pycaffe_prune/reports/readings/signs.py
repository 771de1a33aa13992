"""What can be read from the paper's figures 5 and 6, and how far a result is from it.

The points of the curves cannot be read from the scan; the ends of the axes, the baselines, the
range of alpha and the order of the curves can. Each is a sign. Distances are in ticks of the
figure's own axes, so that they may be added.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pycaffe_prune.reports.paper.figures_and_tables import BASELINES, FIGURES, Figure, Grade
from pycaffe_prune.reports.readings.curves import Reach, Spot, line_at, reach

__all__ = ["SIGNS", "Curves", "Finding", "Sign", "find_signs"]

Curves = Mapping[str, Sequence[Spot]]
"""Of ``baseline``, ``connections``, ``units`` and ``small``, each by rising reduction."""

_LEAST_ALPHA = {"lenet-300-100": 0.6, "lenet-5": 0.7}
_BASELINE = {"lenet-300-100": (98.0, 98.99), "lenet-5": (99.10, 99.10)}
"""What the printed number may be, in %: the decimals of 98.x are lost."""
_BASELINE_SLACK = 0.1
"""Points: the standard error of such an accuracy over 10,000 test images."""
_SMALL_SLACK = 0.1
"""Points that a small model may lie below unit pruning and still equal it, as in the verdicts."""


_MOST_UNITS = 0.99
"""Share of the units that the presets delete at most: where unit pruning is lowest."""


@dataclass(frozen=True)
class Sign:
    """Something that a repetition under the right reading should show."""

    name: str
    text: str
    """What is to be so, and when it counts as so."""
    why: str
    """What it is read from."""
    grade: Grade


@dataclass(frozen=True)
class Finding:
    """What a result shows of a sign."""

    sign: str
    ours: str
    """The numbers in words."""
    met: bool | None
    """None: the result has nothing to judge by."""
    distance: float | None
    """Ticks of the figure's axis by which it is missed, 0 when it is not; of the start and of
    LeNet-5's baseline from the printed number itself."""


SIGNS = (
    Sign(
        "start",
        "The least alpha ends where the axis begins: at most one tick (2 points) from 80 %.",
        "Alphas begin at 0.6 (LeNet-5: 0.7), the axis at 80 %. CaffeNet's table 5 has lesser "
        "alphas, and the first that figure 7 shows, 1.0, ends at 80.62 %.",
        "likely",
    ),
    Sign(
        "baseline",
        "The unpruned network has the printed accuracy: 98.00 to 98.99 % (98.x), or 99.10 %, "
        "either within 0.1 points.",
        "LeNet-300-100 98.x % (decimals lost), LeNet-5 99.10 %.",
        "certain",
    ),
    Sign(
        "order",
        "At every reduction from 80 % on that was measured, unit pruning lies below the line of "
        "connection pruning; not judged where both are below the axes, where the paper's figure "
        "shows nothing.",
        "Connection pruning keeps its accuracy at clearly higher reduction.",
        "certain",
    ),
    Sign(
        "small",
        "At every shape the small model equals or beats unit pruning: it lies at most 0.1 points "
        "below; not judged where both are below the axes.",
        "The small model equals or beats unit pruning.",
        "certain",
    ),
    Sign(
        "leaving",
        "Connection pruning stays within the axes at least as far to the right as unit pruning.",
        "The same sentence, and the order of the curves.",
        "likely",
    ),
    Sign(
        "floor",
        "The axis's lower end is needed: some curve comes within one tick of it, or leaves there.",
        "Axes end at 90 % (figure 5) and 96 % (figure 6); one that nothing comes near would have "
        "been drawn shorter.",
        "uncertain",
    ),
)


def find_signs(experiment: str, curves: Curves) -> tuple[Finding, ...]:
    """Return what the curves show of each of `SIGNS`, in their order.

    Args:
        experiment: ``lenet-300-100`` or ``lenet-5``.
        curves: Those of one result; a method that was not run has none.

    Raises:
        KeyError: The paper's figure of this experiment has no such signs.
    """
    figure, least = FIGURES[experiment], _LEAST_ALPHA[experiment]
    finders: Mapping[str, Callable[[], Finding]] = {
        "start": lambda: _start(curves.get("connections", ()), figure, least),
        "baseline": lambda: _baseline(curves.get("baseline", ()), figure, experiment),
        "order": lambda: _order(curves, figure),
        "small": lambda: _small(curves, figure),
        "leaving": lambda: _leaving(curves, figure),
        "floor": lambda: _floor(curves, figure),
    }
    return tuple(finders[sign.name]() for sign in SIGNS)


def _not_run(sign: str, why: str) -> Finding:
    return Finding(sign, why, None, None)


def _start(connections: Sequence[Spot], figure: Figure, least: float) -> Finding:
    spot = next((spot for spot in connections if spot.value == least), None)
    if spot is None:
        return _not_run("start", f"alpha {least:g} was not run")
    distance = abs(spot.reduction - figure.x.low) / figure.x.tick
    told = f"alpha {least:g} ends at {spot.reduction:.2f} %"
    return Finding("start", told, distance <= 1, distance)


def _baseline(baseline: Sequence[Spot], figure: Figure, experiment: str) -> Finding:
    if not baseline:
        return _not_run("baseline", "no baseline")
    low, high = _BASELINE[experiment]
    found = baseline[0].accuracy
    points = max(low - found, found - high, 0.0)
    told = f"{found:.2f} % (paper: {BASELINES[experiment].accuracy})"
    return Finding("baseline", told, points <= _BASELINE_SLACK + 1e-9, points / figure.y.tick)


def _order(curves: Curves, figure: Figure) -> Finding:
    connections = curves.get("connections", ())
    pairs = [
        (spot.accuracy, line_at(connections, spot.reduction))
        for spot in curves.get("units", ())
        if spot.reduction >= figure.x.low
    ]
    above = [
        units - line
        for units, line in pairs
        if line is not None and max(units, line) >= figure.y.low
    ]
    if not above:
        return _not_run("order", "no unit-pruned point beside the line of connection pruning")
    below = sum(gap < 0 for gap in above)
    told = f"{below} of {len(above)} lie below, by {-max(above):.2f} to {-min(above):.2f} points"
    return Finding("order", told, below == len(above), max(0.0, *above) / figure.y.tick)


def _small(curves: Curves, figure: Figure) -> Finding:
    units = {spot.setting: spot.accuracy for spot in curves.get("units", ())}
    small = {spot.setting: spot.accuracy for spot in curves.get("small", ())}
    both = [(units[shape], small[shape]) for shape in units if shape in small]
    short = [units - small for units, small in both if max(units, small) >= figure.y.low]
    if not short:
        return _not_run("small", "no small model of a unit-pruned network's shape")
    equal = sum(gap <= _SMALL_SLACK + 1e-9 for gap in short)
    told = (
        f"{equal} of {len(short)} equal or beat it, {-max(short):+.2f} to {-min(short):+.2f} points"
    )
    distance = sum(max(0.0, gap) for gap in short) / len(short) / figure.y.tick
    return Finding("small", told, equal == len(short), distance)


def _leaving(curves: Curves, figure: Figure) -> Finding:
    connections = reach(curves.get("connections", ()), figure)
    units = reach(curves.get("units", ()), figure)
    if connections is None or units is None:
        return _not_run("leaving", "one of the two curves is not within the axes")
    distance = max(0.0, units.reduction - connections.reduction) / figure.x.tick
    # Where it ends within the axes, nothing says that it would leave them before the other
    met = distance == 0 or not connections.leaves
    told = f"connections {_told(connections)}, units {_told(units)}"
    return Finding("leaving", told, met, 0.0 if met else distance)


def _told(reach: Reach) -> str:
    return f"{'leave' if reach.leaves else 'end within'} at {reach.reduction:.2f} %"


def _floor(curves: Curves, figure: Figure) -> Finding:
    drawn = [
        spot.accuracy
        for method in ("connections", "units", "small")
        for spot in curves.get(method, ())
        if spot.reduction >= figure.x.low
    ]
    if not drawn:
        return _not_run("floor", "nothing is within the axes")
    lowest = min(drawn)
    distance = max(0.0, lowest - figure.y.low - figure.y.tick) / figure.y.tick
    shares = [spot.value for spot in curves.get("units", ()) if spot.value is not None]
    if distance and max(shares, default=0.0) < _MOST_UNITS:
        return _not_run("floor", "the highest rates of units were not run")
    return Finding("floor", f"the lowest point has {lowest:.2f} %", distance == 0, distance)
