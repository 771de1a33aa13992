"""The report as Markdown."""

import re
from collections.abc import Sequence
from itertools import chain

from pycaffe_prune.experiments.result import ExperimentResult
from pycaffe_prune.reports.methods.curves import method_curves
from pycaffe_prune.reports.methods.groups import of_one_net
from pycaffe_prune.reports.methods.tables import methods_grid
from pycaffe_prune.reports.methods.winners import winners_grid
from pycaffe_prune.reports.methods.worth import WORTH_NOTE, worth_grid
from pycaffe_prune.reports.paper.claims import NOTES
from pycaffe_prune.reports.paper.judge import judge, judge_together
from pycaffe_prune.reports.paper.weigh import noise_note
from pycaffe_prune.reports.plot import caption, plot_of, preset_plots
from pycaffe_prune.reports.rows import accuracy_name, sample_warning
from pycaffe_prune.reports.tables import (
    PRESETS_NOTE,
    Grid,
    claims_grid,
    points_grid,
    presets_grid,
    shapes_grid,
    sizes_grid,
    table_1_grid,
    table_5_grid,
    units_grid,
    weights_grid,
)
from pycaffe_prune.shown import shown

__all__ = ["markdown"]


def markdown(
    results: Sequence[ExperimentResult],
    figures: Sequence[str],
    preset_figures: Sequence[str],
    method_figures: Sequence[str] = (),
    shared_figures: Sequence[str] = (),
) -> str:
    """Return the report of one or several results.

    Args:
        results: The finished experiments.
        figures: Of each result, the name of its figure, a file beside the report.
        preset_figures: The same of each of `preset_plots`.
        method_figures: The same of each result that has `method_curves`.
        shared_figures: The same of each group of `of_one_net`.
    """
    parts = ["# The paper beside ours"]
    together = judge_together(results)
    parts += _section("Claims about two networks", claims_grid(together))
    parts += _section(f"Presets side by side ({PRESETS_NOTE})", presets_grid(results))
    for plot, figure in zip(preset_plots(results), preset_figures, strict=True):
        parts += [f"![{_escape(plot.title)}]({figure})", _escape(caption(plot))]
    for group, figure in zip(of_one_net(results), shared_figures, strict=False):
        parts += [
            f"## {_escape(group[0].title)}: the methods of all these runs against bytes",
            f"![Accuracy of all methods against bytes]({figure})",
        ]
    left = iter(method_figures)
    for result, figure in zip(results, figures, strict=True):
        parts += _result(result, figure)
        parts += _methods(result, next(left)) if method_curves(result) else []
    parts += _section("Table 1: parameters of networks", table_1_grid())
    return "\n\n".join(parts) + "\n"


def _result(result: ExperimentResult, figure: str) -> list[str]:
    warning = sample_warning(result)
    parts = [f"## {_escape(result.title)}, preset {_escape(result.preset)}"]
    if warning is not None:
        parts.append(f"> **⚠ {_escape(warning)}**")
    if result.experiment in NOTES:
        parts.append(f"> {NOTES[result.experiment]}")
    parts.append(
        f"Finished {_escape(result.finished)}, engine {_escape(result.engine)}, "
        f"{result.data.test_images:,} test images{_judge(result)}. Rates count FC weights only. "
        '"Before" and "after": the last round\'s training. Differences in points.'
    )
    judged = judge(result)
    parts += _section("Ours beside the paper", claims_grid(judged))
    parts += [noise_note(result)] if judged else []
    title = f"Accuracy against the reduction of FC weights{_judge(result)}"
    parts.append(f"![{title}]({figure})")
    parts.append(_escape(caption(plot_of(result))))
    parts += _section("Every point", points_grid(result))
    parts += _section("Table 5 row by row: paper / ours / foretold", table_5_grid(result))
    parts += _section("Unit pruning against the connection curve", units_grid(result))
    parts += _section("Small models against unit pruning", shapes_grid(result))
    parts += _section("Accuracy against size", sizes_grid(result))
    parts += _section("Weights by layer", weights_grid(result))
    return parts


def _methods(result: ExperimentResult, figure: str) -> list[str]:
    return [
        "### All methods, by what is left of the whole net",
        f"![Accuracy of all methods against kept weights and bytes]({figure})",
        _table(methods_grid(result)),
        *_section("Who wins", winners_grid(result)),
        "### What it is worth at equal accuracy",
        _escape(WORTH_NOTE),
        _table(worth_grid(result)),
    ]


def _judge(result: ExperimentResult) -> str:
    judged = accuracy_name(result)
    return "" if judged is None else f", accuracy in '{_escape(judged)}'"


def _section(title: str, grid: Grid) -> list[str]:
    return [f"### {title}", _table(grid)] if grid.lines else []


def _table(grid: Grid) -> str:
    rule = ["--:" if grid.is_number(column) else "---" for column in range(len(grid.heads))]
    # Most cells of a long table are the same few texts
    escaped = {text: _escape(text) for text in {*grid.heads, *chain.from_iterable(grid.lines)}}
    lines = [[escaped[text] for text in line] for line in (grid.heads, *grid.lines)]
    lines.insert(1, rule)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escape(text: str) -> str:
    """Keep names from being read as Markdown or HTML."""
    plain = shown(" ".join(text.split())).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*_~$\[\]|])", r"\\\1", plain)
