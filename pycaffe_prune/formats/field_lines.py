"""On which line of a prototxt a field stands that stock Caffe does not know."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from google.protobuf.message import Message

from pycaffe_prune.formats.prototxt_walk import cut_unknown
from pycaffe_prune.formats.text_bytes import text_of

__all__ = ["lines_of_unknown", "with_line"]


def lines_of_unknown(source: Path, message: Message) -> Mapping[str, list[int]]:
    """Return the lines of such fields, counted from 1, by their text (`CarriedField.text`).

    Args:
        source: A prototxt; any other file, or one that is not there, has none.
        message: One of the file's kind.
    """
    found: dict[str, list[int]] = defaultdict(list)
    if source.is_file():
        for piece in cut_unknown(text_of(source.read_bytes()), message.DESCRIPTOR)[1]:
            found[piece.text].append(piece.line)
    return found


def with_line(source: Path, message: Message, text: str) -> str:
    """Return ``source`` with the line of the first field of this text, where it is known."""
    lines = lines_of_unknown(source, message).get(text)
    return f"{source}:{lines[0]}" if lines else str(source)
