"""Write the report of one or several results, and show a summary in the terminal."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from rich.console import Console

from pycaffe_prune.experiments.result import ExperimentResult
from pycaffe_prune.formats.files import atomic_write, write_text
from pycaffe_prune.reports.methods.curves import method_curves
from pycaffe_prune.reports.methods.groups import of_one_net
from pycaffe_prune.reports.outputs.html import render_html
from pycaffe_prune.reports.outputs.markdown import markdown
from pycaffe_prune.reports.outputs.summary import report_json
from pycaffe_prune.reports.outputs.terminal import terminal
from pycaffe_prune.reports.paper.drawn import opened_by, papers_plot
from pycaffe_prune.reports.paper.figures_and_tables import FIGURES
from pycaffe_prune.reports.plot import plot_of, preset_plots
from pycaffe_prune.reports.readings.fit import readings

__all__ = ["print_summary", "write_report", "write_reports"]


def write_report(result: ExperimentResult, out: Path) -> Path:
    """Write the report of one result: `write_reports`, with ``figure.png`` and ``figure.svg``."""
    return write_reports([result], out)


def write_reports(results: Sequence[ExperimentResult], out: Path) -> Path:
    """Write ``report.html``, ``report.md``, ``report.json`` and figures into ``out``.

    A figure is called ``figure.png`` and ``figure.svg``; those of several results are numbered, in
    their order: ``figure-1.png``. The paper's own, as far as it can be read, is ``paper-5.png`` to
    ``paper-7.png``. Where presets of an experiment differ, ``presets-1.png`` and so on show their
    curves together; all readings of a LeNet are on ``readings-1.png`` and so on. Where nets were
    measured ``methods.png`` (or ``methods-1.png``) has all methods against what is left of the net.
    Several results of one net share ``together-1.png``, the methods of all of them against bytes.
    Everything is made before anything is written, and each file replaces its predecessor whole.

    Args:
        results: The finished experiments, at least one.
        out: Folder; made when missing.

    Returns:
        The path of ``report.html``.

    Raises:
        PruneError: The folder cannot be written to, or the disk is full.
    """
    from pycaffe_prune.reports.figures import png, svg
    from pycaffe_prune.reports.methods.figure import png as methods_png
    from pycaffe_prune.reports.methods.figure import svg as methods_svg
    from pycaffe_prune.reports.methods.together import png as together_png
    from pycaffe_prune.reports.methods.together import svg as together_svg
    from pycaffe_prune.reports.readings.figure import png as readings_png
    from pycaffe_prune.reports.readings.figure import svg as readings_svg

    several = len(results) > 1
    names = [f"figure-{number}" if several else "figure" for number in range(1, len(results) + 1)]
    plots = dict(zip(names, map(plot_of, results), strict=True))
    plots_of_presets = {
        f"presets-{number}": plot for number, plot in enumerate(preset_plots(results), 1)
    }
    pictures: dict[str, bytes] = {}
    of_paper = {
        f"paper-{FIGURES[one.experiment].number}": one.experiment for one in opened_by(results)
    }
    for name, experiment in of_paper.items():
        drawn = _papers_figure(experiment)
        pictures |= {f"{name}.png": drawn[0], f"{name}.svg": drawn[1]}
    for name, plot in (plots | plots_of_presets).items():
        pictures |= {f"{name}.png": png(plot), f"{name}.svg": svg(plot)}
    of_methods = {
        name.replace("figure", "methods"): result
        for name, result in zip(names, results, strict=True)
        if method_curves(result)
    }
    for name, result in of_methods.items():
        pictures |= {f"{name}.png": methods_png(result), f"{name}.svg": methods_svg(result)}
    together = {f"together-{number}": group for number, group in enumerate(of_one_net(results), 1)}
    for name, group in together.items():
        pictures |= {f"{name}.png": together_png(group), f"{name}.svg": together_svg(group)}
    groups = {f"readings-{number}": one for number, one in enumerate(readings(results), 1)}
    for name, readings_group in groups.items():
        drawn = readings_png(readings_group), readings_svg(readings_group)
        pictures |= {f"{name}.png": drawn[0], f"{name}.svg": drawn[1]}
    texts = {
        "report.md": markdown(
            results,
            [f"{name}.png" for name in plots],
            [f"{name}.png" for name in plots_of_presets],
            [f"{name}.png" for name in of_methods],
            [f"{name}.png" for name in together],
            [f"{name}.png" for name in groups],
            [f"{name}.png" for name in of_paper],
        ),
        "report.json": report_json(results),
        "report.html": render_html(
            results,
            [pictures[f"{name}.svg"] for name in of_methods],
            [pictures[f"{name}.svg"] for name in together],
            [pictures[f"{name}.svg"] for name in groups],
        ),
    }
    for name, content in pictures.items():
        with atomic_write(out / name) as temporary:
            temporary.write_bytes(content)
    for name, text in texts.items():
        write_text(out / name, text)
    return out / "report.html"


@cache
def _papers_figure(experiment: str) -> tuple[bytes, bytes]:
    """The paper's figure as PNG and as SVG; no result changes it."""
    from pycaffe_prune.reports.figures import png, svg

    plot = papers_plot(experiment)
    return png(plot), svg(plot)


def print_summary(result: ExperimentResult, console: Console) -> None:
    """Print every point and the verdicts beside what the paper leads one to expect."""
    console.print(terminal(result))
