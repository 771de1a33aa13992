"""The coder of compressed files beside others, and a CaffeNet-sized file against its targets.

The symbols are those that compressed files hold: the codes and positions of the largest blobs of
real models and of a CaffeNet with random weights, pruned to 10 %, whose convolutions share 256
values and whose InnerProduct layers 32. Each coder says bytes, tables included, beside the entropy,
and its processor time. Huffman codes are canonical; only their bytes are told, since a stream of
them is decoded symbol by symbol, which Python does a hundred times slower than the others here.

Then the whole CaffeNet-sized file: written, read back, and compared to the entropy of codes and
positions of its weights. Run with: .venv/bin/python bench/coding.py [--models FILE...]
The packages constriction and zstandard are raced where they are installed.
"""

import argparse
import heapq
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from google.protobuf import text_format
from model_io import caffenet
from numpy.typing import NDArray

from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer, write_caffemodel
from pycaffe_prune.formats.compressed.file import (
    open_compressed,
    read_compressed,
    write_compressed,
)
from pycaffe_prune.formats.compressed.pieces import Cursor, Part, joined
from pycaffe_prune.formats.compressed.symbols import Symbols, encode_symbols, read_symbols
from pycaffe_prune.formats.weights import read_weights
from pycaffe_prune.net.shapes import infer_shapes
from pycaffe_prune.pruning.shared_weights import share, with_shared

KEPT = 0.1
BITS = {"Convolution": 8, "InnerProduct": 5}
WRITE_TARGET, READ_TARGET = 10.0, 3.0
ENTROPY_TARGET = 1.02
LARGEST = 3  # blobs of a model whose symbols are raced

Ints = NDArray[np.uint16]


@dataclass(frozen=True)
class Coder:
    """A way to code symbols."""

    name: str
    encode: Callable[[Ints], object]
    size: Callable[[object], int]
    decode: Callable[[object], Ints] | None = None


def entropy(counts: NDArray[np.int64]) -> float:
    """Return the bytes that symbols of such counts take at least, coded one by one."""
    counts = counts[counts > 0]
    return float((counts * (np.log2(counts.sum()) - np.log2(counts))).sum()) / 8


def ours() -> Coder:
    """Return the coder of the compressed file."""

    def decode(data: object) -> Ints:
        assert isinstance(data, bytes)  # noqa: S101 -- for mypy
        cursor = Cursor(memoryview(data))
        return read_symbols(cursor, 1 << 40, Part.CODES).decode()  # type: ignore[return-value]

    return Coder("ours", lambda symbols: joined(encode_symbols(symbols, Part.CODES)), len, decode)  # type: ignore[arg-type]


def huffman_bytes(symbols: object) -> int:
    """Return what a canonical Huffman code takes, with a byte for the length of each code."""
    counts = np.bincount(symbols)  # type: ignore[call-overload]
    heap = [(int(count), [symbol]) for symbol, count in enumerate(counts) if count]
    lengths = np.zeros(counts.size, np.int64)
    heapq.heapify(heap)
    while len(heap) > 1:
        (one, left), (other, right) = heapq.heappop(heap), heapq.heappop(heap)
        lengths[left + right] += 1
        heapq.heappush(heap, (one + other, left + right))
    return int((counts * np.maximum(lengths, 1)).sum()) // 8 + counts.size


def with_zlib(level: int) -> Coder:
    """Return deflate, on symbols of one byte where they fit."""

    def decode(data: object) -> Ints:
        kind, packed = data  # type: ignore[misc]
        return np.frombuffer(zlib.decompress(packed), kind)

    def encode(symbols: Ints) -> object:
        narrow = narrowed(symbols)
        return narrow.dtype, zlib.compress(narrow.tobytes(), level)

    return Coder(f"deflate {level}", encode, lambda data: len(data[1]), decode)  # type: ignore[index]


def narrowed(symbols: Ints) -> NDArray[np.unsignedinteger]:
    """Return symbols of one byte, where they fit."""
    return symbols.astype(np.uint8) if symbols.max() < 256 else symbols


def with_zstd(level: int) -> Coder:
    """Return zstd, on symbols of one byte where they fit."""
    import zstandard

    def encode(symbols: Ints) -> object:
        narrow = narrowed(symbols)
        return narrow.dtype, zstandard.ZstdCompressor(level).compress(narrow.tobytes())

    def decode(data: object) -> Ints:
        kind, packed = data  # type: ignore[misc]
        return np.frombuffer(zstandard.ZstdDecompressor().decompress(packed), kind)

    return Coder(f"zstd {level}", encode, lambda data: len(data[1]), decode)  # type: ignore[index]


def with_constriction() -> Coder:
    """Return constriction's ANS, with float32 shares as its table."""
    import constriction

    def model(shares: NDArray[np.float32]) -> object:
        return constriction.stream.model.Categorical(shares, perfect=False)

    def encode(symbols: Ints) -> object:
        shares = (np.bincount(symbols) / symbols.size).astype(np.float32)
        coder = constriction.stream.stack.AnsCoder()
        coder.encode_reverse(symbols.astype(np.int32), model(shares))
        return symbols.size, shares, coder.get_compressed()

    def decode(data: object) -> Ints:
        count, shares, words = data  # type: ignore[misc]
        coder = constriction.stream.stack.AnsCoder(words)
        return coder.decode(model(shares), count)  # type: ignore[no-any-return]

    return Coder("constriction", encode, lambda data: data[1].nbytes + data[2].nbytes, decode)  # type: ignore[index]


def coders() -> Iterator[Coder]:
    """Yield those that can be had here."""
    yield ours()
    yield Coder("huffman", lambda symbols: symbols, huffman_bytes)
    if find_spec("constriction"):
        yield with_constriction()
    yield with_zlib(9)
    if find_spec("zstandard"):
        yield with_zstd(3)
        yield with_zstd(19)


def streams(path: Path) -> Iterator[tuple[str, Ints]]:
    """Yield the symbols of the largest blobs of a compressed file, with what they are."""
    sections = sorted(open_compressed(path).sections, key=lambda one: -one.blob.size)
    for section in sections[:LARGEST]:
        name, index = section.key
        parts = {"positions": section.blob.tokens, "codes": None}
        if section.blob.values.coded:
            parts["codes"] = section.blob.values.coded[-1]  # type: ignore[assignment]
        for what, part in parts.items():
            if isinstance(part, Symbols) and part.precision:
                yield f"{name}/{index} {what}", part.decode().astype(np.uint16)


def race(path: Path) -> None:
    """Print what each coder makes of the symbols of a compressed file."""
    for name, symbols in streams(path):
        least = entropy(np.bincount(symbols))
        print(f"{name}: {symbols.size:,} symbols, entropy {least:,.0f} bytes")
        for coder in coders():
            begin = time.process_time()
            data = coder.encode(symbols)
            encoded = time.process_time() - begin
            size = coder.size(data)
            line = f"  {coder.name:13}{size:12,} bytes {size / least:7.4f}"
            if coder.decode is not None:
                begin = time.process_time()
                found = coder.decode(data)
                decoded = time.process_time() - begin
                assert (np.asarray(found) == symbols).all()  # noqa: S101
                line += f"   {encoded:6.2f} s   {decoded:6.2f} s"
            print(line)


def caffenet_model() -> Caffemodel:
    """Return CaffeNet with random weights, pruned to a tenth, which share few values."""
    net = text_format.Parse(caffenet(), NetParameter())
    draws = np.random.default_rng(7)
    layers = []
    for layer, shapes in zip(net.layer, infer_shapes(net.layer, {}), strict=True):
        blobs = tuple(
            draws.standard_normal(shape, np.float32) * np.float32(0.01) for shape in shapes.params
        )
        if blobs:
            weights = blobs[0]
            weights[np.abs(weights) < np.quantile(np.abs(weights), 1 - KEPT)] = 0
            blobs = (with_shared(weights, share(weights, BITS[layer.type])), *blobs[1:])
        layers.append(Layer(layer, blobs))
    return Caffemodel(tuple(layers), NetParameter(name="CaffeNet"))


def least_bytes(model: Caffemodel) -> float:
    """Return the entropy of the codes and of the gaps of all weights, each layer by itself."""
    total = 0.0
    for layer in model.layers:
        for blob in layer.blobs[:1]:
            places = np.flatnonzero(blob)
            total += entropy(np.unique(blob.reshape(-1)[places], return_counts=True)[1])
            total += entropy(np.bincount(np.diff(places, prepend=-1)))
    return total


def whole_file(path: Path, model: Caffemodel) -> bool:
    """Write and read the CaffeNet-sized file; print all, and tell whether targets are met."""
    begin, cpu = time.perf_counter(), time.process_time()
    write_compressed(path, model)
    written, write_cpu = time.perf_counter() - begin, time.process_time() - cpu
    begin, cpu = time.perf_counter(), time.process_time()
    found = read_compressed(path)
    read, read_cpu = time.perf_counter() - begin, time.process_time() - cpu
    same = all(
        one.tobytes() == other.tobytes()
        for (_, one), (_, other) in zip(found.blobs(), model.blobs(), strict=True)
    )
    size, least = path.stat().st_size, least_bytes(model)
    weights = sum(
        section.sizes.total() for section in open_compressed(path).sections if not section.key[1]
    )
    dense = 4 * sum(blob.size for _, blob in model.blobs())
    print(f"\nCaffeNet, {dense:,} bytes of float32: {size:,} bytes, {dense / size:.1f} times fewer")
    print(f"written in {written:.2f} s, {write_cpu:.2f} s of them CPU (target: {WRITE_TARGET:g} s)")
    print(f"read in {read:.2f} s, {read_cpu:.2f} s of them CPU (target: {READ_TARGET:g} s)")
    print(f"weights {weights:,} bytes, entropy of codes and gaps {least:,.0f}: ", end="")
    print(f"{weights / least:.4f}; the whole file {size / least:.4f} (target: {ENTROPY_TARGET:g})")
    print(f"the same to the last bit: {same}")
    fast = write_cpu <= WRITE_TARGET and read_cpu <= READ_TARGET
    return same and fast and size / least <= ENTROPY_TARGET


def main() -> None:
    """Race the coders, then write and read the large file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, nargs="*", default=[], help="files of weights")
    parser.add_argument("--keep", type=Path, help="write the dense CaffeNet here too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.cpz"
        for weights in options.models:
            write_compressed(path, read_weights(weights))
            print(f"{weights.name}: {path.stat().st_size:,} bytes")
            race(path)
        model = caffenet_model()
        if options.keep:
            write_caffemodel(options.keep, model)
        met = whole_file(path, model)
        race(path)
    sys.exit(not met)


if __name__ == "__main__":
    main()
