"""What ``caffe-prune compress`` prints: where a file's bytes go, and what other forms take."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

__all__ = ["LayerBytes", "show_forms", "show_layers"]


@dataclass(frozen=True)
class LayerBytes:
    """What a layer takes in a compressed file."""

    name: str
    values: int
    """Of all its blobs, biases too."""
    kept: int
    """Those that are not zero."""
    size: int
    """Bytes, all counted: codebooks, tables of the entropy coder, positions, framing."""


def _table(first: str, columns: Sequence[str]) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(first, overflow="fold")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def show_layers(console: Console, layers: Sequence[LayerBytes], head: int) -> None:
    """Print a row for each layer; their bytes and the ``head`` are the whole file."""
    whole = head + sum(layer.size for layer in layers)
    table = _table("layer", ("values", "kept", "kept %", "bits", "bytes", "share %"))
    for layer in layers:
        table.add_row(*_row(layer, whole))
    table.add_row("(definitions)", "", "", "", "", f"{head:,}", f"{100 * head / whole:.1f}")
    table.add_section()
    values, kept = sum(layer.values for layer in layers), sum(layer.kept for layer in layers)
    table.add_row(*_row(LayerBytes("all", values, kept, whole), whole))
    console.print(table)


def _row(layer: LayerBytes, whole: int) -> tuple[str, ...]:
    values = max(1, layer.values)
    return (
        layer.name,
        f"{layer.values:,}",
        f"{layer.kept:,}",
        f"{100 * layer.kept / values:.2f}",
        f"{8 * layer.size / values:.2f}",
        f"{layer.size:,}",
        f"{100 * layer.size / whole:.1f}",
    )


def show_forms(console: Console, forms: Mapping[str, int], compressed: int) -> None:
    """Print what other forms of the same weights take, and the compressed one beside them."""
    table = _table("form", ("bytes", "times the compressed one"))
    for form, size in (*forms.items(), ("compressed (.cpz)", compressed)):
        table.add_row(form, f"{size:,}", f"{size / compressed:.2f}")
    console.print(table)
