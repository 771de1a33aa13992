"""Float32 values in a row, to the last bit: as they are, by a codebook, or byte by byte.

A codebook serves where they take few different bit patterns, whatever made it so: shared weights,
k-bit, binary and ternary ones. Else the bytes of the values are coded in four planes, of which
that with the exponents takes a third of its size in trained weights; a plane that does not
shrink stays as it is.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.compressed.pieces import Cursor, Part, Piece, number
from pycaffe_prune.formats.compressed.symbols import (
    MAX_SYMBOLS,
    Symbols,
    coded_bits,
    count_symbols,
    encode_symbols,
    read_symbols,
)

__all__ = ["Coding", "StoredValues", "Values", "encode_values", "measure", "read_values"]

Bits = NDArray[np.uint32]
"""Values as the 32 bits of each."""

_PLANES = 4
_SAMPLE = 1 << 16
_MOST_DISTINCT = 0.75  # of a sample: 65,536 patterns, drawn so often, show 0.63 times as many
_WORTH = 0.98  # a plane is coded where that saves so much


class Coding(IntEnum):
    """How values stand in a file."""

    PLAIN = 0
    CODEBOOK = 1
    PLANES = 2


@dataclass(frozen=True)
class Values:
    """Values that were looked at, for choosing how they are written."""

    bits: Bits
    book: Bits | None
    """The bit patterns that occur, rising; None: they are too many for a codebook."""
    codes: NDArray[np.uint16] | None
    """Which of them each value is."""
    counts: NDArray[np.int64]
    """How often each of them occurs; shape (0,) without a codebook."""
    planes: NDArray[np.int64]
    """How often each byte occurs in each plane, shape (4, 256)."""

    def coding(self, zeros: int = 0) -> tuple[Coding, float]:
        """Return the smallest way to write them, and its bits.

        Args:
            zeros: So many values of which all bits are zero are written among them.
        """
        size = self.bits.size + zeros
        ways = {Coding.PLAIN: 32.0 * size}
        if self.book is not None:
            counts = np.append(self.counts, zeros) if zeros else self.counts
            ways[Coding.CODEBOOK] = 16 + 32.0 * np.count_nonzero(counts) + coded_bits(counts)
        if self.book is None or self.book.size > 256:
            planes = self.planes.copy()
            planes[:, 0] += zeros
            ways[Coding.PLANES] = sum(min(8.0 * size, coded_bits(plane)) for plane in planes)
        best = min(ways, key=lambda way: ways[way])
        return best, ways[best] + 8


def measure(bits: Bits) -> Values:
    """Look at values, shape (n,), given as the 32 bits of each."""
    planes = np.zeros((_PLANES, 256), np.int64)
    found = _distinct(bits)
    if found is None or found[0].size > 256:
        for plane, column in enumerate(bits.view(np.uint8).reshape(-1, _PLANES).T):
            planes[plane] = count_symbols(column, 256)
    if found is None:
        return Values(bits, None, None, np.empty(0, np.int64), planes)
    book, codes = found
    return Values(bits, book, codes, count_symbols(codes, book.size), planes)


def _distinct(bits: Bits) -> tuple[Bits, NDArray[np.uint16]] | None:
    """The patterns and which of them each value is; None: they are too many to be worth it."""
    most = min(MAX_SYMBOLS - 1, bits.size // 2 + 1)
    step = max(1, bits.size // _SAMPLE)
    book = np.unique(bits[::step])
    if step > 1 and book.size > _MOST_DISTINCT * _SAMPLE:
        return None
    while book.size <= most:
        codes = np.searchsorted(book, bits)
        np.minimum(codes, max(0, book.size - 1), out=codes)
        missed = bits[book[codes] != bits]
        if not missed.size:
            return book, codes.astype(np.uint16)
        # Each time all that a larger sample of them holds.
        book = np.union1d(book, missed[:: max(1, missed.size // _SAMPLE)])
    return None


def encode_values(values: Values, coding: Coding) -> list[Piece]:
    """Return values as they stand in a file, without their count.

    Args:
        values: As `measure` gave them.
        coding: What `Values.coding` chose.
    """
    head = Piece(Part.FRAMING, bytes([coding]))
    if coding is Coding.PLAIN:
        return [head, Piece(Part.FLOATS, values.bits.tobytes())]
    if coding is Coding.PLANES:
        planes = values.bits.view(np.uint8).reshape(-1, _PLANES).T
        return [
            head,
            *(
                piece
                for plane, counts in zip(planes, values.planes, strict=True)
                for piece in _encode_plane(plane, counts)
            ),
        ]
    assert values.book is not None and values.codes is not None  # noqa: S101, PT018  (tells mypy)
    return [
        head,
        number(values.book.size),
        Piece(Part.CODEBOOKS, values.book.tobytes()),
        *encode_symbols(values.codes, Part.CODES),
    ]


def _encode_plane(plane: NDArray[np.uint8], counts: NDArray[np.int64]) -> list[Piece]:
    if coded_bits(counts) > 8 * plane.size * _WORTH:
        return [Piece(Part.FRAMING, b"\0"), Piece(Part.FLOATS, plane.tobytes())]
    return [Piece(Part.FRAMING, b"\1"), *encode_symbols(plane, Part.FLOATS)]


@dataclass(frozen=True)
class StoredValues:
    """Values as they stand in a file, still coded."""

    count: int
    coding: Coding
    book: Bits
    """The codebook; of plain values the values themselves."""
    coded: tuple[Symbols | NDArray[np.uint8], ...] = ()
    """The codes, or the four planes."""

    @property
    def memory(self) -> int:
        """The bytes that decoding takes at most, its result included."""
        if self.coding is Coding.PLAIN:
            return 0  # they are views of the file
        coded = (part.memory for part in self.coded if isinstance(part, Symbols))
        return 4 * self.count + sum(coded)

    def decode(self) -> Bits:
        """Return the 32 bits of each value, shape (count,).

        Raises:
            FormatError: They are damaged; the sentence lacks the place.
        """
        if self.coding is Coding.PLAIN:
            return self.book
        decoded = [coded.decode() if isinstance(coded, Symbols) else coded for coded in self.coded]
        if self.coding is Coding.CODEBOOK:
            return self.book[decoded[0]]
        planes = np.empty((self.count, _PLANES), np.uint8)
        for plane, column in enumerate(decoded):
            planes[:, plane] = column
        return planes.view("<u4").reshape(-1)


def read_values(cursor: Cursor, count: int) -> StoredValues:
    """Read what `encode_values` wrote, without decoding it.

    Args:
        cursor: Is moved past it.
        count: How many values there are.

    Raises:
        FormatError: There is no such thing; the sentence lacks the place.
    """
    told = cursor.byte()
    if told not in Coding.__members__.values():
        raise FormatError(f"has values in the coding {told}, which this version does not know")
    coding = Coding(told)
    if coding is Coding.PLAIN:
        return StoredValues(count, coding, _floats(cursor, count, Part.FLOATS))
    if coding is Coding.PLANES:
        planes = tuple(_read_plane(cursor, count) for _ in range(_PLANES))
        return StoredValues(count, coding, np.empty(0, np.uint32), planes)
    size = cursor.number()
    if size > MAX_SYMBOLS:
        raise FormatError(f"has a codebook of {size:,} values; {MAX_SYMBOLS:,} are the most")
    book = _floats(cursor, size, Part.CODEBOOKS)
    codes = read_symbols(cursor, count, Part.CODES)
    if codes.count != count or codes.frequencies.size > size:
        raise FormatError("has codes that are not those of its values and its codebook")
    return StoredValues(count, coding, book, (codes,))


def _floats(cursor: Cursor, count: int, part: Part) -> Bits:
    return np.frombuffer(cursor.take(4 * count, part), "<u4")


def _read_plane(cursor: Cursor, count: int) -> Symbols | NDArray[np.uint8]:
    told = cursor.byte()
    if told == 0:
        return np.frombuffer(cursor.take(count, Part.FLOATS), np.uint8)
    if told != 1:
        raise FormatError(f"has bytes in the coding {told}, which this version does not know")
    plane = read_symbols(cursor, count, Part.FLOATS)
    if plane.count != count or plane.frequencies.size > 256:
        raise FormatError("has bytes that are not those of its values")
    return plane
