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
from pycaffe_prune.reports.paper.drawn import opened_by, papers_plot
from pycaffe_prune.reports.paper.figures_and_tables import FIGURES
from pycaffe_prune.reports.paper.judge import judge, judge_together
from pycaffe_prune.reports.paper.weigh import noise_note
from pycaffe_prune.reports.plot import caption, plot_of, preset_plots
from pycaffe_prune.reports.readings.fit import RULE, Reading, readings
from pycaffe_prune.reports.readings.signs import SIGNS
from pycaffe_prune.reports.readings.tables import (
    READINGS_NOTE,
    fit_grid,
    readings_grid,
    sets_grid,
    signs_grid,
)
from pycaffe_prune.reports.rows import accuracy_name, sample_warning, taken_over
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
    reading_figures: Sequence[str] = (),
    papers_figures: Sequence[str] = (),
) -> str:
    """Return the report of one or several results.

    Args:
        results: The finished experiments.
        figures: Of each result, the name of its figure, a file beside the report.
        preset_figures: The same of each of `preset_plots`.
        method_figures: The same of each result that has `method_curves`.
        shared_figures: The same of each group of `of_one_net`.
        reading_figures: The same of each group of `readings`.
        papers_figures: The same of the paper's figure of each result that the report opens with.
    """
    parts = ["# The paper beside ours"]
    openings = opened_by(results)
    of_result = {id(result): figure for result, figure in zip(results, figures, strict=True)}
    for result, papers in zip(openings, papers_figures, strict=False):
        parts += _opening(result, papers, of_result[id(result)])
    opened = {id(result) for result in openings[: len(papers_figures)]}
    together = judge_together(results)
    parts += _section("Claims about two networks", claims_grid(together))
    for presets, figure in zip(readings(results), reading_figures, strict=False):
        parts += _readings(presets, figure)
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
        parts += _result(result)
        parts += _opened(result) if id(result) in opened else _beside(result, figure)
        parts += _tables(result)
        parts += _methods(result, next(left)) if method_curves(result) else []
    parts += _section("Table 1: parameters of networks", table_1_grid())
    return "\n\n".join(parts) + "\n"


def _opening(result: ExperimentResult, papers: str, figure: str) -> list[str]:
    name = f"paper's figure {FIGURES[result.experiment].number}"
    title, preset = _escape(result.title), _escape(result.preset)
    pictures = f"![The {name}]({papers}) | ![{_figure_title(result)}]({figure})"
    return [
        f"## {title}: the {name} beside ours, preset {preset}",
        *_warning(result),
        f"| the paper's | ours |\n|---|---|\n| {pictures} |",
        _escape(caption(papers_plot(result.experiment))),
        f"Ours: {_escape(caption(plot_of(result)))}",
        *_section("Verdicts", claims_grid(judge(result))),
        noise_note(result),
    ]


def _readings(group: Sequence[Reading], figure: str) -> list[str]:
    return [
        f"## {_escape(group[0].title)}: which reading of the paper fits best, and by what",
        _table(fit_grid(group)),
        _escape(RULE),
        f"![Curves of every reading on the paper's axes, a panel each]({figure})",
        f"### What each reading gives\n\n{_escape(READINGS_NOTE)}",
        _table(readings_grid(group)),
        *_section("The least alpha after each set: reduction / accuracy in %", sets_grid(group)),
        "### Sign by sign",
        _table(signs_grid(group)),
        "\n".join(
            f"- **{sign.name}** ({sign.grade}): {_escape(sign.text)} Paper: {_escape(sign.why)}"
            for sign in SIGNS
        ),
    ]


def _figure_title(result: ExperimentResult) -> str:
    return f"Accuracy against the reduction of FC weights{_judge(result)}"


def _warning(result: ExperimentResult) -> list[str]:
    warning = sample_warning(result)
    return [] if warning is None else [f"> **⚠ {_escape(warning)}**"]


def _result(result: ExperimentResult) -> list[str]:
    parts = [f"## {_escape(result.title)}, preset {_escape(result.preset)}", *_warning(result)]
    if result.experiment in NOTES:
        parts.append(f"> {NOTES[result.experiment]}")
    parts.append(
        f"Finished {_escape(result.finished)}, engine {_escape(result.engine)}, "
        f"{result.data.test_images:,} test images{_judge(result)}. Rates count FC weights only. "
        '"Before" and "after": the last round\'s training. Differences in points.'
    )
    if taken := taken_over(result):
        parts.append(f"Points that were not trained for this result: {_escape(taken)}.")
    return parts


def _opened(result: ExperimentResult) -> list[str]:
    return [f"The report opens with its figure and verdicts (preset {_escape(result.preset)})."]


def _beside(result: ExperimentResult, figure: str) -> list[str]:
    judged = judge(result)
    parts = _section("Ours beside the paper", claims_grid(judged))
    parts += [noise_note(result)] if judged else []
    return [*parts, f"![{_figure_title(result)}]({figure})", _escape(caption(plot_of(result)))]


def _tables(result: ExperimentResult) -> list[str]:
    parts = _section("Every point", points_grid(result))
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
