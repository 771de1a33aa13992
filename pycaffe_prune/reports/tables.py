"""The rows as tables of text, and the report as Markdown."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pycaffe_prune.experiments.result import ExperimentResult
from pycaffe_prune.reports.compare import Judged, compare_shapes, compare_units, judge
from pycaffe_prune.reports.plot import caption, plot_of
from pycaffe_prune.reports.rows import (
    METHOD_NAMES,
    Row,
    accuracy,
    parameter,
    percent,
    rows,
    sample_warning,
)

__all__ = [
    "Grid",
    "claims_grid",
    "markdown",
    "points_grid",
    "rounds_grid",
    "shapes_grid",
    "units_grid",
]


@dataclass(frozen=True)
class Grid:
    """A table of text: the one form that Markdown, terminal and HTML are made from."""

    heads: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    numbers: int
    """How many columns, from the third on, hold numbers and stand to the right."""


def points_grid(result: ExperimentResult) -> Grid:
    """Return a line for every point of the result."""
    found = rows(result)
    layers = list(dict.fromkeys(name for row in found for name in row.layers))
    heads = ("method", "α or units kept", "all FC %", *(f"{name} %" for name in layers))
    tail = ("before %", "after %", "to baseline", "rounds", "seed", "note")
    lines = tuple(_point_line(row, layers) for row in found)
    return Grid((*heads, *tail), lines, numbers=len(layers) + 6)


def _point_line(row: Row, layers: Sequence[str]) -> tuple[str, ...]:
    return (
        row.name,
        row.parameter,
        f"{row.reduction:.2f}",
        *(f"{row.layers[name]:.2f}" if name in row.layers else "–" for name in layers),
        f"{row.before:.2f}",
        f"{row.after:.2f}",
        "–" if row.difference is None else f"{row.difference:+.2f}",
        str(row.rounds),
        str(row.seed),
        row.note,
    )


def rounds_grid(result: ExperimentResult) -> Grid:
    """Return a line for every round of every point, in the result's own order."""
    heads = ("method", "α or units kept", "seed", "round")
    lines = tuple(
        (
            METHOD_NAMES[point.method],
            parameter(point),
            str(point.seed),
            str(step.round),
            f"{100 * step.reduction:.2f}",
            f"{percent(accuracy(step.before)):.2f}",
            f"{percent(accuracy(step.after)):.2f}",
            "not finite" if step.after.loss is None else f"{step.after.loss:.4f}",
            f"{step.iterations:,}",
            f"{step.seconds:.1f}",
        )
        for point in result.points
        for step in point.rounds
    )
    tail = ("all FC %", "before %", "after %", "loss", "iterations", "seconds")
    return Grid((*heads, *tail), lines, numbers=8)


def claims_grid(judged: Iterable[Judged]) -> Grid:
    """Return a line for every claim: ours beside what the paper leads one to expect."""
    return Grid(
        ("claim", "verdict", "paper", "ours", "rule"),
        tuple(
            (entry.claim.text, entry.verdict, entry.claim.paper, entry.ours, entry.rule)
            for entry in judged
        ),
        numbers=0,
    )


def units_grid(result: ExperimentResult) -> Grid:
    """Return unit pruning against the connection curve at the same reduction."""
    return Grid(
        ("kept units", "connection value is", "all FC %", "units %", "connections %", "difference"),
        tuple(
            (
                row.parameter,
                f"{'interpolated between' if row.interpolated else 'measured at'} {row.source}",
                f"{row.reduction:.2f}",
                f"{row.units:.2f}",
                f"{row.connections:.2f}",
                f"{row.units - row.connections:+.2f}",
            )
            for row in compare_units(result)
        ),
        numbers=4,
    )


def shapes_grid(result: ExperimentResult) -> Grid:
    """Return small models against unit pruning at the same shape."""
    return Grid(
        ("kept units", "values are", "all FC %", "units %", "small model %", "difference"),
        tuple(
            (
                row.parameter,
                "measured",
                f"{row.reduction:.2f}",
                f"{row.units:.2f}",
                f"{row.small:.2f}",
                f"{row.difference:+.2f}",
            )
            for row in compare_shapes(result)
        ),
        numbers=4,
    )


def markdown(result: ExperimentResult) -> str:
    """Return the report as Markdown; it expects ``figure.png`` beside it."""
    warning = sample_warning(result)
    parts = [f"# {_escape(result.title)}, preset {_escape(result.preset)}"]
    if warning is not None:
        parts.append(f"> **⚠ {_escape(warning)}**")
    parts.append(
        f"Finished {_escape(result.finished)}, engine {_escape(result.engine)}, "
        f"{result.data.test_images:,} test images. Rates count FC weights only. "
        '"Before" and "after": the last round\'s training. Differences in points.'
    )
    parts += _section("Ours beside the paper", claims_grid(judge(result)))
    parts.append("![Accuracy against the reduction of FC weights](figure.png)")
    parts.append(_escape(caption(plot_of(result))))
    parts += _section("Every point", points_grid(result))
    parts += _section("Unit pruning against the connection curve, from 90 %", units_grid(result))
    parts += _section("Small models against unit pruning", shapes_grid(result))
    return "\n\n".join(parts) + "\n"


def _section(title: str, grid: Grid) -> list[str]:
    return [f"## {title}", _markdown_table(grid)] if grid.lines else []


def _markdown_table(grid: Grid) -> str:
    rule = ["--:" if _is_number(grid, column) else "---" for column in range(len(grid.heads))]
    lines = [map(_escape, grid.heads), rule, *(map(_escape, line) for line in grid.lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _is_number(grid: Grid, column: int) -> bool:
    return 2 <= column < 2 + grid.numbers


def _escape(text: str) -> str:
    """Keep names from being read as Markdown or HTML."""
    plain = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", plain)
