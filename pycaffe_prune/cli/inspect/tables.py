"""What ``caffe-prune inspect`` prints, as tables."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from pycaffe_prune.formats.storage import StorageSizes
from pycaffe_prune.net.counts import NetCounts
from pycaffe_prune.net.fork_summary import ForkStatus
from pycaffe_prune.net.shapes import extents
from pycaffe_prune.net.summary import ModelSummary

__all__ = ["show_model", "show_net", "show_storage", "show_totals"]

_WIDE = 100
"""From this many columns on, the table of a model has room for multiply-accumulates."""
_ENOUGH = 1000


def _table() -> Table:
    return Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))


def _number(count: int | None) -> str:
    return "?" if count is None else f"{count:,}"


def _zeros(values: int, nonzero: int) -> str:
    """The share of zeros in per cent."""
    return f"{100 * (1 - nonzero / values) if values else 0.0:.2f}"


def show_model(console: Console, summary: ModelSummary) -> None:
    """Print the blobs of a file of weights."""
    name = summary.name or "no name"
    console.print(f"{summary.path}: {name}, {summary.bytes:,} bytes", style="bold", soft_wrap=True)
    wide = console.width >= _WIDE and summary.macs is not None
    table = _table()
    table.add_column("blob", no_wrap=True)
    table.add_column("type", overflow="ellipsis")  # the column that gives way when space is short
    table.add_column("shape", no_wrap=True)
    for column in ("values", "nonzero", "zero %", "std", *(["MACs"] if wide else [])):
        table.add_column(column, justify="right", no_wrap=True)
    for blob in summary.blobs:
        table.add_row(
            f"{blob.layer}/{blob.index}",
            blob.type,
            "x".join(map(str, blob.shape)),
            f"{blob.count:,}",
            f"{blob.nonzero:,}",
            _zeros(blob.count, blob.nonzero),
            f"{blob.std:#.2g}" if blob.finite else "NaN/Inf",
            *([_number(blob.macs)] if wide else []),
        )
    console.print(table)
    shared = sum(blob.shared_with is not None for blob in summary.blobs)
    once = f"; {shared} blobs that layers share by param name are counted once" if shared else ""
    console.print(
        f"{summary.nonzero:,} of {summary.parameters:,} parameters are not zero{once}",
        soft_wrap=True,
    )
    if summary.macs is not None:
        console.print(
            f"{summary.macs:,} MACs per image, {summary.macs_nonzero:,} of them with weights that "
            "are not zero",
            soft_wrap=True,
        )
    console.print()


def show_net(console: Console, counts: NetCounts) -> None:
    """Print the layers of a net."""
    heading = f"{counts.path}: {counts.name or 'no name'}, phase {counts.phase}"
    console.print(heading, style="bold", soft_wrap=True)
    table = _table()
    table.add_column("layer", overflow="fold")
    table.add_column("type", overflow="ellipsis")  # the column that gives way when space is short
    table.add_column("tops", overflow="fold")
    for column in ("parameters", "MACs", "activations"):
        table.add_column(column, justify="right", no_wrap=True)
    for layer in counts.layers:
        table.add_row(
            layer.name,
            layer.type,
            ", ".join("?" if top.shape is None else extents(top.shape) for top in layer.tops),
            _number(None if layer.problem else layer.weights + layer.biases + layer.statistics),
            _number(layer.macs),
            _number(layer.activations),
        )
    console.print(table)
    statistics = f" + {counts.statistics:,} BatchNorm statistics" if counts.statistics else ""
    at_least = "at least " if counts.problems else ""
    least_macs = "at least " if None in [layer.macs for layer in counts.layers] else ""
    console.print(
        f"{at_least}{counts.parameters:,} parameters ({counts.weights:,} weights + "
        f"{counts.biases:,} biases{statistics}), {least_macs}{counts.macs:,} MACs and "
        f"{counts.activations:,} activations per image",
        soft_wrap=True,
    )
    _show_problems(console, counts)
    _show_forks(console, counts)
    console.print()


def show_totals(console: Console, nets: Iterable[NetCounts]) -> None:
    """Print one row per net."""
    table = _table()
    table.add_column("net", no_wrap=True)
    columns = ("layers", "weights", "biases", "statistics", "parameters", "MACs", "activations")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    incomplete = []
    for counts in nets:
        sums = (
            *(len(counts.layers), counts.weights, counts.biases, counts.statistics),
            *(counts.parameters, counts.macs, counts.activations),
        )
        table.add_row(counts.name or counts.path, *(f"{count:,}" for count in sums))
        incomplete += [counts] if counts.problems else []
    # A terminal that is too narrow wraps the rows: no column can be spared.
    needed = Measurement.get(console, console.options.update(max_width=_ENOUGH), table).maximum
    console.width = max(console.width, needed)
    console.print(table)
    for counts in incomplete:
        _show_problems(console, counts)


def show_storage(console: Console, path: Path, sizes: StorageSizes) -> None:
    """Print each layer's non-zeros, and what the file takes in other forms."""
    console.print(f"{path}: {sizes.dense:,} bytes", style="bold", soft_wrap=True)
    layers = _table()
    layers.add_column("layer", overflow="fold")
    for column in ("values", "nonzero", "zero %"):
        layers.add_column(column, justify="right", no_wrap=True)
    for layer in sizes.layers:
        shares = _zeros(layer.values, layer.non_zeros)
        layers.add_row(layer.name, f"{layer.values:,}", f"{layer.non_zeros:,}", shares)
    console.print(layers)
    forms = _table()
    forms.add_column("form", no_wrap=True)
    for column in ("bytes", "of dense"):
        forms.add_column(column, justify="right", no_wrap=True)
    for form, count in (
        ("dense (.caffemodel)", sizes.dense),
        ("dense, zipped", sizes.dense_zip),
        ("sparse (.sparse.npz)", sizes.sparse),
        ("sparse, zipped", sizes.sparse_zip),
        ("compressed (.cpz)", sizes.compressed),
    ):
        forms.add_row(form, f"{count:,}", f"{100 * count / sizes.dense:.1f} %")
    console.print(forms)
    console.print()


def _show_problems(console: Console, counts: NetCounts) -> None:
    if counts.problems:
        first, more = counts.problems[0], len(counts.problems) - 1
        others = f" (and {more} more)" if more else ""
        console.print(
            f"{counts.path}: not all is counted: {first}{others}", style="yellow", soft_wrap=True
        )


def _show_forks(console: Console, counts: NetCounts) -> None:
    for status, heading in (
        (ForkStatus.KNOWN, "of forks of Caffe, known"),
        (ForkStatus.CARRIED, "of forks of Caffe, carried without being read"),
        (ForkStatus.UNKNOWN, "not of Caffe, unknown and carried"),
    ):
        uses = [
            f"{use.what} ({_layers(use.layers)})" if use.layers else use.what
            for use in counts.forks
            if use.status is status
        ]
        if uses:
            console.print(f"{heading}: {', '.join(uses)}", soft_wrap=True)


def _layers(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
