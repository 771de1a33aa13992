"""Which reading of the paper fits its figure best, and by what."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pycaffe_prune.experiments.result import ExperimentResult
from pycaffe_prune.reports.paper.compare import why_not_comparable
from pycaffe_prune.reports.paper.figures_and_tables import FIGURES
from pycaffe_prune.reports.paper.judge import judge
from pycaffe_prune.reports.readings.curves import Reach, Spot, after_sets, curve, reach
from pycaffe_prune.reports.readings.signs import Curves, Finding, find_signs

__all__ = ["METHODS", "RULE", "Reading", "reading_of", "readings"]

METHODS = ("connections", "units", "small")
"""Of the paper's figures."""

_EXPERIMENTS = ("lenet-300-100", "lenet-5")

RULE = (
    "A reading scores a point for each sign that it shows. Of readings with as many points the "
    "one that is less far off is before the other: distances of all signs are added, each in "
    "ticks of the paper's own axes. A sign that a run cannot show, since it left out that alpha or "
    "method, is no point and no distance. Several pruning seeds are judged by their means, and "
    "noise is not counted: readings a tick's tenth apart are not told apart by this."
)


@dataclass(frozen=True)
class Reading:
    """A preset of an experiment, held against the paper's figure."""

    experiment: str
    title: str
    preset: str
    told: str
    """The reading in words."""
    seeds: int
    """Initial trainings that were pruned."""
    curves: Curves
    reaches: dict[str, Reach | None]
    """By method; None: the axes show nothing of it."""
    sets: tuple[Spot, ...]
    """Connection pruning with the least alpha after each set."""
    below: tuple[str, ...]
    """Settings of connection pruning whose points lie below the axes, the least alpha first."""
    findings: tuple[Finding, ...]
    held: int
    """Claims of the paper that are reproduced."""
    claims: int
    place: int = 1
    """Counted from 1 among the readings of its experiment, the best fit."""

    @property
    def met(self) -> int:
        """How many signs it shows."""
        return sum(finding.met is True for finding in self.findings)

    @property
    def judged(self) -> int:
        """How many signs the run can show."""
        return sum(finding.met is not None for finding in self.findings)

    @property
    def distance(self) -> float:
        """All distances together, in ticks of the paper's axes."""
        return sum(finding.distance or 0.0 for finding in self.findings)

    @property
    def first(self) -> Spot | None:
        """The connection-pruned net of the least alpha; None: there is none."""
        found = [spot for spot in self.curves.get("connections", ()) if spot.value is not None]
        return min(found, key=lambda spot: spot.value or 0.0, default=None)


def readings(results: Sequence[ExperimentResult]) -> list[list[Reading]]:
    """Return the readings of each LeNet of which ``results`` have several, the best fit first.

    Samples and results that cannot be held against the paper's are left out.
    """
    groups: dict[str, list[Reading]] = defaultdict(list)
    for result in results:
        if result.experiment in _EXPERIMENTS and why_not_comparable(result) is None:
            groups[result.experiment].append(reading_of(result))
    return [_placed(group) for group in groups.values() if len(group) > 1]


def reading_of(result: ExperimentResult) -> Reading:
    """Return a LeNet's result as a reading, in place 1.

    Raises:
        KeyError: It is another experiment's.
    """
    figure = FIGURES[result.experiment]
    curves = {method: curve(result, method) for method in ("baseline", *METHODS)}
    judged = judge(result)
    return Reading(
        experiment=result.experiment,
        title=result.title,
        preset=result.preset,
        told=str(result.settings.get("reading") or ""),
        seeds=len(result.select("baseline")),
        curves=curves,
        reaches={method: reach(curves[method], figure) for method in METHODS},
        sets=after_sets(result),
        below=tuple(
            spot.setting
            for spot in sorted(curves["connections"], key=lambda spot: spot.value or 0)
            if spot.accuracy < figure.y.low
        ),
        findings=find_signs(result.experiment, curves),
        held=sum(entry.verdict == "reproduced" for entry in judged),
        claims=len(judged),
    )


def _placed(group: Sequence[Reading]) -> list[Reading]:
    best = sorted(group, key=lambda reading: (-reading.met, reading.distance))
    return [replace(reading, place=place) for place, reading in enumerate(best, 1)]
