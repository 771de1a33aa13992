"""``caffe-prune report``: tables, figures and a page from finished runs."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console

from pycaffe_prune.errors import FormatError
from pycaffe_prune.experiments.result import read_result
from pycaffe_prune.reports.write import print_summary, write_report

__all__ = ["report"]

_NAME = "result.json"


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the report, made when missing; of several runs each gets a folder in it. "
    "Default: beside each result.json.",
)
def report(runs: tuple[Path, ...], out: Path | None) -> None:
    """Make tables, figures and an HTML page from finished runs, beside the paper's numbers.

    RUN is an experiment's result.json or the folder that holds it. Written are report.html (one
    file, no network needed), report.md, figure.png and figure.svg.

    \b
    Examples:
      caffe-prune report runs/lenet-300-100-quick
      caffe-prune report runs/lenet-300-100-paper/result.json --out report
      caffe-prune report runs/lenet-300-100-quick runs/lenet-300-100-paper --out reports
    """
    sources = [run / _NAME if run.is_dir() else run for run in runs]
    # All are read before any is written: a fault in the last one leaves nothing behind
    results = [read_result(source) for source in sources]
    console = Console()
    for result, folder in zip(results, _folders(sources, out), strict=True):
        print_summary(result, console)
        click.echo(f"report {write_report(result, folder)}")


def _folders(sources: Sequence[Path], out: Path | None) -> list[Path]:
    """Where each report goes.

    Raises:
        FormatError: Two reports would overwrite each other.
    """
    if out is None:
        folders = [source.parent for source in sources]
    elif len(sources) == 1:
        folders = [out]
    else:
        folders = [out / source.resolve().parent.name for source in sources]
    folder, count = Counter(folders).most_common(1)[0]
    if count > 1:
        raise FormatError(
            f"{folder}: {count} of the runs would write their reports here, each over the other; "
            "report them one at a time, each with its own --out"
        )
    return folders
