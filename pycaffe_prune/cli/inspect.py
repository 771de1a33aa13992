"""``caffe-prune inspect``: what a model holds."""

import json
from pathlib import Path

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from pycaffe_prune.cli.options import path_type
from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffemodel import read_caffemodel
from pycaffe_prune.formats.mask import read_mask
from pycaffe_prune.net.summary import ModelSummary, summarise
from pycaffe_prune.pruning.connections import nonzero_where_masked


@click.command()
@click.argument("models", metavar="MODEL...", nargs=-1, required=True, type=path_type)
@click.option("--json", "as_json", is_flag=True, help="One JSON list instead of tables.")
@click.option(
    "--audit",
    type=path_type,
    metavar="MASK",
    help="Check that every weight this mask file prunes is exactly zero.",
)
def inspect(models: tuple[Path, ...], as_json: bool, audit: Path | None) -> None:
    """Show the layers, shapes, parameters and non-zeros of caffemodels.

    With --audit, exit code 1 when a pruned weight is not zero.

    \b
    Examples:
      caffe-prune inspect lenet_iter_10000.caffemodel
      caffe-prune inspect before.caffemodel after.caffemodel --json
      caffe-prune inspect final.caffemodel --audit kept.mask.h5
    """
    summaries = [summarise(path) for path in models]
    if as_json:
        click.echo(json.dumps([summary.model_dump(mode="json") for summary in summaries], indent=1))
    else:
        # Layers and files may be called [anything]: no markup.
        console = Console(markup=False, emoji=False, highlight=False)
        for summary in summaries:
            _show(console, summary)
    if audit is not None:
        for path in models:
            _audit(path, audit)


def _show(console: Console, summary: ModelSummary) -> None:
    name = summary.name or "no name"
    console.print(f"{summary.path}: {name}, {summary.bytes:,} bytes", style="bold", soft_wrap=True)
    console.print(_table(summary))
    console.print(f"{summary.nonzero:,} of {summary.parameters:,} parameters are not zero\n")


def _table(summary: ModelSummary) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("blob", no_wrap=True)
    table.add_column("type", overflow="ellipsis")  # the column that gives way when space is short
    table.add_column("shape", no_wrap=True)
    for column in ("values", "nonzero", "zero %", "std"):
        table.add_column(column, justify="right", no_wrap=True)
    for blob in summary.blobs:
        zeros = 100 * (1 - blob.nonzero / blob.count) if blob.count else 0.0
        table.add_row(
            f"{blob.layer}/{blob.index}",
            blob.type,
            "x".join(map(str, blob.shape)),
            f"{blob.count:,}",
            f"{blob.nonzero:,}",
            f"{zeros:.2f}",
            f"{blob.std:#.2g}" if blob.finite else "NaN/Inf",
        )
    return table


def _audit(path: Path, mask_path: Path) -> None:
    found = nonzero_where_masked(read_caffemodel(path), read_mask(mask_path).masks)
    bad = {f"{name}/{index}": count for (name, index), count in found.items() if count}
    if bad:
        listed = ", ".join(f"{count} in {place}" for place, count in bad.items())
        raise SurgeryError(
            f"{path}: pruned weights are not zero: {listed}; they were trained without "
            f"--mask {mask_path}"
        )
    click.echo(f"{path}: all weights that {mask_path} prunes are exactly zero", err=True)
