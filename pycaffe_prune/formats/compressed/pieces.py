"""What a compressed file is made of: pieces of bytes, each with what it is there for.

What is written is a list of pieces, and what is read is walked by a cursor that says the same of
each piece it takes. So every byte of a file is counted, once, under one heading.
"""

from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats import wire

__all__ = ["Cursor", "Part", "Piece", "joined", "number", "size_of", "sizes_of"]


class Part(StrEnum):
    """What bytes are there for."""

    FRAMING = "framing"
    """The file's beginning, lengths, checksums, counts, and which encoding was taken."""
    DEFINITIONS = "definitions"
    """The net: all of the caffemodel but the values of its blobs."""
    POSITIONS = "positions"
    """Where the values are that are not zero."""
    CODEBOOKS = "codebooks"
    """The few values that a blob has."""
    CODES = "codes"
    """Which of them each value is."""
    FLOATS = "floats"
    """Values themselves: of blobs without a codebook, biases mostly."""
    TABLES = "tables"
    """How often each symbol of the entropy coder occurs."""


class Piece(NamedTuple):
    """Bytes and what they are there for."""

    part: Part
    data: bytes


def number(value: int) -> Piece:
    """Return a whole number, as a varint."""
    return Piece(Part.FRAMING, wire.encode_varint(value))


def size_of(pieces: Iterable[Piece]) -> int:
    """Return how many bytes they have together."""
    return sum(len(piece.data) for piece in pieces)


def sizes_of(pieces: Iterable[Piece]) -> Counter[Part]:
    """Return how many bytes they have, by what they are there for."""
    sizes: Counter[Part] = Counter()
    for part, data in pieces:
        sizes[part] += len(data)
    return sizes


def joined(pieces: Iterable[Piece]) -> bytes:
    """Return their bytes, one after the other."""
    return b"".join(piece.data for piece in pieces)


class Cursor:
    """Walks bytes from their beginning to their end.

    Raises:
        FormatError: By every method: what is asked for reaches past the end. The sentence lacks the
            place, which the caller adds.
    """

    def __init__(self, data: memoryview, sizes: Counter[Part] | None = None) -> None:
        self._data = data
        self._at = 0
        self.sizes: Counter[Part] = Counter() if sizes is None else sizes
        """The bytes that were taken so far, by what they are there for."""

    @property
    def left(self) -> int:
        """How many bytes have not been taken."""
        return len(self._data) - self._at

    def ahead(self, most: int) -> memoryview:
        """Look at the next bytes, at most so many, without taking them."""
        return self._data[self._at : self._at + most]

    def take(self, count: int, part: Part) -> memoryview:
        """Take the next ``count`` bytes."""
        taken = self._next(count)
        self.sizes[part] += count
        return taken

    def part(self, count: int) -> "Cursor":
        """Pass over the next ``count`` bytes; return a cursor of them, which counts with this."""
        return Cursor(self._next(count), self.sizes)

    def _next(self, count: int) -> memoryview:
        if count > self.left:
            raise FormatError(f"ends {count - self.left:,} bytes too early")
        taken = self._data[self._at : self._at + count]
        self._at += count
        return taken

    def byte(self) -> int:
        """Take one byte, as a number."""
        return self.take(1, Part.FRAMING)[0]

    def number(self) -> int:
        """Take a varint."""
        value, end = wire.read_varint(self._data, self._at, len(self._data))
        self.take(end - self._at, Part.FRAMING)
        return value

    def require_end(self) -> None:
        """Refuse what is left."""
        if self.left:
            raise FormatError(f"has {self.left:,} bytes after its end")
