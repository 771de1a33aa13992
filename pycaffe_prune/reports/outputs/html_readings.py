"""The page's section on readings of the paper: a figure and three tables of each experiment."""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from pycaffe_prune.experiments.result import ExperimentResult
from pycaffe_prune.reports.readings.fit import readings
from pycaffe_prune.reports.readings.tables import fit_grid, readings_grid, sets_grid, signs_grid
from pycaffe_prune.reports.tables import Grid

__all__ = ["ReadingSection", "reading_sections"]


@dataclass(frozen=True)
class ReadingSection:
    """What the page shows of the readings of one experiment."""

    title: str
    fit: Grid
    signs: Grid
    measured: Grid
    sets: Grid
    figure: str | None
    """An SVG as the page takes it (``data:``)."""


def reading_sections(
    results: Sequence[ExperimentResult], figures: Sequence[bytes] = ()
) -> list[ReadingSection]:
    """Return a section for each group of `readings`.

    Args:
        results: Those of the page.
        figures: Of each group its figure as SVG; none, or one each.
    """
    return [
        ReadingSection(
            title=group[0].title,
            fit=fit_grid(group),
            signs=signs_grid(group),
            measured=readings_grid(group),
            sets=sets_grid(group),
            figure=None if figure is None else b64encode(figure).decode(),
        )
        for group, figure in zip_longest(readings(results), figures)
    ]
