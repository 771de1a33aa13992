"""The compressed file as a whole: written, read back to the last bit, and explained."""

import math
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from google.protobuf.message import DecodeError, EncodeError

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.blobs import Blob, mapped_file, require_count
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import BlobKey, Caffemodel, Layer, naming_blob
from pycaffe_prune.formats.compressed.blobs import (
    Hash,
    StoredBlob,
    encode_blob,
    encode_hashed,
    read_blob,
)
from pycaffe_prune.formats.compressed.pieces import Cursor, Part, Piece, joined, number, size_of
from pycaffe_prune.formats.files import atomic_write
from pycaffe_prune.formats.limits import Budget
from pycaffe_prune.formats.outline import LayerOutline, outline_bytes, read_outline

__all__ = [
    "MAGIC",
    "Compressed",
    "Section",
    "compress",
    "compressed_size",
    "open_compressed",
    "read_compressed",
    "write_compressed",
    "write_sections",
]

MAGIC = b"\x93CPZ\r\n\x1a\n"
"""How a file begins: no other form of weights does, and a transfer as text destroys it."""

_NO_HASHES: Mapping[BlobKey, Hash] = MappingProxyType({})
_VERSION = 1
_WHAT = "a compressed model (.cpz)"
_MOST_PACKED = 1032  # deflate makes of one byte at most as many


def compress(
    model: Caffemodel, hashed: Mapping[BlobKey, Hash] = _NO_HASHES
) -> Iterator[list[Piece]]:
    """Yield a model's compressed file: what it begins with, then each blob, in file order.

    Args:
        model: What `read_compressed` is to give back.
        hashed: The blobs whose weights are the values of a hash's buckets.

    Raises:
        FormatError: A hashed blob is not there, or is not what it is told to be.
    """
    held = dict(model.blobs())
    if lacking := [key for key in hashed if key not in held]:
        raise FormatError(f"layer '{lacking[0][0]}' has no blob {lacking[0][1]} to be hashed")
    outline = outline_bytes(model)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(outline) + packer.flush()
    yield [
        Piece(Part.FRAMING, MAGIC + bytes([_VERSION])),
        *_section([number(len(outline)), Piece(Part.DEFINITIONS, packed)]),
    ]
    for key, blob in model.blobs():
        with naming_blob(*key):
            told = hashed.get(key)
            pieces = encode_hashed(blob, told) if told else encode_blob(blob)
        yield _section(pieces)


def _section(pieces: list[Piece]) -> list[Piece]:
    checksum = zlib.crc32(joined(pieces)).to_bytes(4, "little")
    return [number(size_of(pieces)), Piece(Part.FRAMING, checksum), *pieces]


def write_compressed(path: Path, model: Caffemodel) -> None:
    """Write ``model`` in the compressed form, atomically; `read_compressed` gives it back.

    Raises:
        PruneError: The folder cannot be written to or the disk is full.
    """
    write_sections(path, compress(model))


def write_sections(path: Path, sections: Iterable[list[Piece]]) -> None:
    """Write what `compress` yields, atomically.

    Raises:
        PruneError: The folder cannot be written to or the disk is full.
    """
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        for pieces in sections:
            file.writelines(piece.data for piece in pieces)


def compressed_size(model: Caffemodel, hashed: Mapping[BlobKey, Hash] = _NO_HASHES) -> int:
    """Return how many bytes what `compress` yields has; nothing is written."""
    return sum(map(size_of, compress(model, hashed)))


@dataclass(frozen=True)
class Section:
    """A blob in a compressed file."""

    key: BlobKey
    blob: StoredBlob
    sizes: Counter[Part]
    """Its bytes, its length and checksum included, by what they are there for."""


@dataclass(frozen=True)
class Compressed:
    """A compressed file that was walked from its beginning to its end, its blobs still coded."""

    net: NetParameter
    layers: tuple[LayerOutline, ...]
    head: Counter[Part]
    """The bytes that belong to no blob."""
    sections: tuple[Section, ...]
    """One for each blob, in file order."""


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except (FormatError, DecodeError, EncodeError, MemoryError, zlib.error) as error:
        sentence = str(error) if isinstance(error, FormatError) else f"cannot be read ({error})"
        raise FormatError(f"{path}: {sentence}; {_WHAT} is needed") from error


def open_compressed(path: Path) -> Compressed:
    """Walk a compressed file: all is there and has its checksum, and nothing is decoded.

    Raises:
        FormatError: The file is missing, damaged, no compressed model, or of a later version.
    """
    data = mapped_file(path, _WHAT)
    with _naming(path):
        return _walk(data, Budget(len(data)))


def _walk(data: memoryview, budget: Budget) -> Compressed:
    cursor = Cursor(data)
    if bytes(cursor.ahead(len(MAGIC))) != MAGIC:
        raise FormatError("does not begin as one")
    cursor.take(len(MAGIC), Part.FRAMING)
    version = cursor.byte()
    if version != _VERSION:
        raise FormatError(f"is of version {version}, and this caffe-prune reads {_VERSION}")
    net, layers = read_outline(_definitions(_read_section(cursor), budget))
    head = cursor.sizes.copy()
    sections = []
    for layer in layers:
        for index, shape in enumerate(layer.shapes):
            with naming_blob(layer.param.name, index):
                require_count(shape, math.prod(shape))
                before = cursor.sizes.copy()
                content = _read_section(cursor)
                blob = read_blob(content, shape)
                content.require_end()
                budget.spend(blob.memory)
            key = (layer.param.name, index)
            sections.append(Section(key, blob, cursor.sizes - before))
    cursor.require_end()
    return Compressed(net, tuple(layers), head, tuple(sections))


def _read_section(cursor: Cursor) -> Cursor:
    """What is in the next section, whose checksum is right."""
    size = cursor.number()
    checksum = int.from_bytes(cursor.take(4, Part.FRAMING), "little")
    content = cursor.part(size)
    if zlib.crc32(content.ahead(size)) != checksum:
        raise FormatError("is damaged: its checksum is another")
    return content


def _definitions(cursor: Cursor, budget: Budget) -> bytes:
    size = cursor.number()
    packed = cursor.take(cursor.left, Part.DEFINITIONS)
    if size > _MOST_PACKED * len(packed):
        raise FormatError("has definitions of an impossible size")
    budget.spend(size)
    unpacker = zlib.decompressobj(-15)
    outline = unpacker.decompress(packed, size + 1)
    if len(outline) != size or not unpacker.eof or unpacker.unused_data:
        raise FormatError("has definitions that are not of their size")
    return outline


def _decoded(section: Section) -> Blob:
    with naming_blob(*section.key):
        return section.blob.decode()


def read_compressed(path: Path) -> Caffemodel:
    """Read a compressed model: definitions and blobs are those that were written, to the last bit.

    Raises:
        FormatError: As `open_compressed`, or what a blob's section holds contradicts itself.
    """
    found = open_compressed(path)
    with _naming(path):
        left = iter(found.sections)
        layers = tuple(
            Layer(layer.param, tuple(_decoded(next(left)) for _ in layer.shapes))
            for layer in found.layers
        )
    return Caffemodel(layers, found.net)
