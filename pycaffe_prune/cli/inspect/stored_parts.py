"""Where each byte of a compressed file goes, as ``caffe-prune inspect`` tells it."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from pycaffe_prune.formats.compressed.blobs import Encoding, StoredBlob
from pycaffe_prune.formats.compressed.file import MAGIC, Compressed, open_compressed
from pycaffe_prune.formats.compressed.pieces import Part
from pycaffe_prune.formats.compressed.values import Coding

__all__ = ["StoredParts", "is_compressed", "show_parts", "stored_parts"]

_WHERE = {
    Encoding.ALL: "all",
    Encoding.NON_ZERO: "non-zero",
    Encoding.NON_ZERO_COLUMNS: "non-zero, by columns",
}
_DEFINITIONS = "(definitions)"
_ENOUGH = 1000


class StoredParts(TypedDict):
    """What is told of one blob, or of what the file begins with."""

    blob: str
    stored: str
    values: int
    bytes: int
    parts: dict[str, int]


def is_compressed(path: Path) -> bool:
    """Return whether a file begins as a compressed model."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def stored_parts(path: Path) -> list[StoredParts]:
    """Return a row for each blob and one for the definitions; their bytes are the whole file.

    Raises:
        FormatError: As `open_compressed`.
    """
    return list(_rows(open_compressed(path)))


def _rows(found: Compressed) -> Iterator[StoredParts]:
    yield _row(_DEFINITIONS, "deflate", 0, found.head)
    for section in found.sections:
        name, index = section.key
        values = section.blob.size
        yield _row(f"{name}/{index}", _stored(section.blob), values, section.sizes)


def _row(blob: str, stored: str, values: int, sizes: Counter[Part]) -> StoredParts:
    parts = {str(part): sizes[part] for part in Part}
    return StoredParts(
        blob=blob, stored=stored, values=values, bytes=sum(parts.values()), parts=parts
    )


def _stored(blob: StoredBlob) -> str:
    values = {
        Coding.PLAIN: "float32",
        Coding.PLANES: "bytes of float32, coded",
        Coding.CODEBOOK: f"codebook of {blob.values.book.size}",
    }
    if blob.encoding is Encoding.HASHED:
        where = f"{blob.values.count:,} buckets, hashed with the seed {blob.seed}"
    else:
        where = _WHERE[blob.encoding]
    return f"{where}; {values[blob.coding]}"


def show_parts(console: Console, path: Path, rows: list[StoredParts]) -> None:
    """Print a row for each blob and one for all."""
    whole = sum(row["bytes"] for row in rows)
    console.print(f"{path}: {whole:,} bytes", style="bold", soft_wrap=True)
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("blob", overflow="fold")
    table.add_column("stored", overflow="fold")
    for column in ("values", "bits", *Part, "bytes", "share %"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in (*rows, _all(rows)):
        if row["blob"] == "all":
            table.add_section()
        table.add_row(
            row["blob"],
            row["stored"],
            f"{row['values']:,}",
            f"{8 * row['bytes'] / row['values']:.2f}" if row["values"] else "",
            *(f"{row['parts'][part]:,}" for part in Part),
            f"{row['bytes']:,}",
            f"{100 * row['bytes'] / whole:.1f}",
        )
    # A terminal that is too narrow wraps the rows: no column can be spared.
    needed = Measurement.get(console, console.options.update(max_width=_ENOUGH), table).maximum
    console.width = max(console.width, needed)
    console.print(table)
    console.print()


def _all(rows: list[StoredParts]) -> StoredParts:
    return StoredParts(
        blob="all",
        stored="",
        values=sum(row["values"] for row in rows),
        bytes=sum(row["bytes"] for row in rows),
        parts={str(part): sum(row["parts"][part] for row in rows) for part in Part},
    )
