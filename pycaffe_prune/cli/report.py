"""``caffe-prune report``: tables, figures and a page from finished runs."""

from pathlib import Path

import click

from pycaffe_prune.collector import without_collector
from pycaffe_prune.errors import PruneError
from pycaffe_prune.experiments.result import read_result, result_path
from pycaffe_prune.reports.outputs.tensorboard import write_all_events
from pycaffe_prune.reports.outputs.write import print_summary, write_reports
from pycaffe_prune.reports.transfer.study import study
from pycaffe_prune.reports.transfer.write import write_study
from pycaffe_prune.screen import Screen, echo

__all__ = ["report"]


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the report, made when missing. Default: beside the result.json; several runs "
    "need it, they share one page.",
)
@click.option(
    "--tensorboard",
    is_flag=True,
    help="Also write TensorBoard event files of the training curves, each beside its log.jsonl.",
)
@click.option(
    "--control",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of the same experiment's run from random values: also write what the pre-training "
    "of RUN changes in the weights and in the order of the methods (transfer.md).",
)
@without_collector()
def report(
    runs: tuple[Path, ...], out: Path | None, tensorboard: bool, control: Path | None
) -> None:
    """Make tables, figures and an HTML page from finished runs, beside the paper's numbers.

    RUN is an experiment's result.json or the folder that holds it. Written are report.html (one
    file, no network needed), report.md, report.json, and a figure of each run as PNG and SVG.

    \b
    Examples:
      caffe-prune report runs/lenet-300-100-quick
      caffe-prune report runs/lenet-300-100-paper/result.json --out report
      caffe-prune report runs/lenet-300-100-paper runs/lenet-5-paper --out report
      caffe-prune report runs/lenet-5-paper --tensorboard
      tensorboard --logdir runs/lenet-5-paper
      caffe-prune report runs/transfer_flowers20-pretrained \\
          --control runs/transfer_flowers20-random --out transfer
    """
    sources = [result_path(run) for run in runs]
    if len({source.resolve() for source in sources}) < len(sources):
        raise PruneError("a run is named twice; name each once")
    if control is not None and len(sources) > 1:
        raise click.UsageError("--control is held against one RUN; name one")
    if out is None:
        if len(sources) > 1:
            raise click.UsageError("several runs share one report: name its folder with --out")
        out = sources[0].parent
    # All are read before anything is written: a fault in the last one leaves nothing behind
    results = [read_result(source) for source in sources]
    found = None if control is None else study(sources[0].parent, control)
    console = Screen()
    for result in results:
        print_summary(result, console)
    if tensorboard:
        for source in sources:
            written = write_all_events(source.parent)
            echo(f"{len(written)} TensorBoard files below {source.parent}")
    echo(f"report {write_reports(results, out)}")
    if found is not None:
        echo(f"transfer {write_study(found, out)}")
