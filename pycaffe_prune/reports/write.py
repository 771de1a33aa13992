"""Write a result's report, and show its summary in the terminal."""

from pathlib import Path

from rich.console import Console

from pycaffe_prune.experiments.result import ExperimentResult
from pycaffe_prune.formats.files import atomic_write, write_text
from pycaffe_prune.reports.html import render_html
from pycaffe_prune.reports.plot import plot_of
from pycaffe_prune.reports.tables import markdown
from pycaffe_prune.reports.terminal import terminal

__all__ = ["print_summary", "write_report"]


def write_report(result: ExperimentResult, out: Path) -> Path:
    """Write ``figure.png``, ``figure.svg``, ``report.md`` and ``report.html`` into ``out``.

    Everything is made before anything is written, and each file replaces its predecessor whole.

    Args:
        result: The finished experiment.
        out: Folder; made when missing.

    Returns:
        The path of ``report.html``.

    Raises:
        PruneError: The folder cannot be written to, or the disk is full.
    """
    from pycaffe_prune.reports.figures import png, svg

    plot = plot_of(result)
    pictures = {"figure.png": png(plot), "figure.svg": svg(plot)}
    texts = {"report.md": markdown(result), "report.html": render_html(result)}
    for name, content in pictures.items():
        with atomic_write(out / name) as temporary:
            temporary.write_bytes(content)
    for name, text in texts.items():
        write_text(out / name, text)
    return out / "report.html"


def print_summary(result: ExperimentResult, console: Console) -> None:
    """Print every point and the verdicts beside what the paper leads one to expect."""
    console.print(terminal(result))
