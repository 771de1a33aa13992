"""What the prune commands share: the table they print and the files they write."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, write_caffemodel
from pycaffe_prune.formats.prototxt import write_prototxt
from pycaffe_prune.pruning.counts import LayerReduction, overall

__all__ = ["show_reductions", "write_model"]


def show_reductions(rows: Sequence[LayerReduction]) -> None:
    """Print the reduction of each layer and of all together, as the paper counts it."""
    table = Table()
    table.add_column("layer")
    for column in ("weights", "kept", "reduction %"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(row.layer, f"{row.weights:,}", f"{row.kept:,}", f"{100 * row.reduction:.2f}")
    table.add_section()
    weights, kept = sum(row.weights for row in rows), sum(row.kept for row in rows)
    table.add_row("all", f"{weights:,}", f"{kept:,}", f"{100 * overall(rows):.2f}")
    Console(markup=False, emoji=False).print(table)  # a layer may be called [anything]


def write_model(out: Path, net: NetParameter, model: Caffemodel) -> None:
    """Write ``net.prototxt`` and ``pruned.caffemodel`` into ``out``, each whole or not at all."""
    write_prototxt(out / "net.prototxt", net)
    write_caffemodel(out / "pruned.caffemodel", model)
