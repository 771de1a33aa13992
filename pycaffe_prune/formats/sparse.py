"""Sparse storage of pruned weights (``.sparse.npz``): non-zero values and the gaps between them.

The layout follows Deep Compression (Han et al., ICLR 2016, section 2): compressed sparse rows with
relative indices, each blob flattened to one row. An entry is a float32 value and a uint8 gap, the
number of zeros between it and the entry before it (or the blob's start), so that entry *e* lies at
position ``gap[0] + … + gap[e] + e``. Where more than 255 zeros come before a value, or before the
blob's end, filler entries bridge them: gap 255 and value +0.0, which is itself the 256th of these
zeros. Fewer than 256 zeros are left after the last entry; they need none.

"Zero" means that all 32 bits are: -0.0, denormals and every NaN are stored as values, so that the
model comes back bit for bit. A blob that five bytes an entry do not make smaller is stored dense.

The container is a ``.npz`` of NumPy, uncompressed. Its member ``definitions`` (uint8) is the
caffemodel, a serialised NetParameter, in which each blob has its shape and no data. Blob *b* of
layer *l*, both counted from 0, is ``l/b/values`` (float32) with ``l/b/gaps`` (uint8), or
``l/b/dense`` (float32) alone.
"""

import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
from google.protobuf.message import DecodeError, EncodeError
from numpy.typing import NDArray

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.blobs import Blob, require_count
from pycaffe_prune.formats.caffemodel import (
    Caffemodel,
    Layer,
    naming_blob,
)
from pycaffe_prune.formats.files import atomic_write, existing_file
from pycaffe_prune.formats.limits import Budget
from pycaffe_prune.formats.npz import arrays_size, read_arrays, write_arrays
from pycaffe_prune.formats.outline import LayerOutline, outline_bytes, read_outline

__all__ = [
    "DEFINITIONS",
    "expected_bytes",
    "from_gaps",
    "read_sparse",
    "sparse_size",
    "to_gaps",
    "write_sparse",
]

DEFINITIONS = "definitions"
"""The member that every sparse model has and that no array of weights can be called."""

_WHAT = "a sparse model (.sparse.npz)"
_GAP_MAX = 255
_STEP_MAX = _GAP_MAX + 1
_ENTRY_BYTES = 5
_BLOCK = 1 << 20  # what is worked on at once: positions take more memory than the weights

Members = dict[str, NDArray[np.generic]]
"""Arrays by their names in the archive."""

_T = TypeVar("_T", bound=np.generic)


def to_gaps(blob: Blob) -> tuple[NDArray[np.float32], NDArray[np.uint8]] | None:
    """Return a blob's values and gaps, both of shape (entries,), or None where dense is smaller."""
    bits = np.ascontiguousarray(blob, "<f4").reshape(-1).view("<u4")
    if np.count_nonzero(bits) * _ENTRY_BYTES >= blob.nbytes:
        return None
    values, gaps = [], []
    pending = 0
    for start in range(0, bits.size, _BLOCK):
        block_values, block_gaps, pending = _block_entries(bits[start : start + _BLOCK], pending)
        values.append(block_values)
        gaps.append(block_gaps)
    if sum(map(len, gaps)) * _ENTRY_BYTES >= blob.nbytes:
        return None
    return np.concatenate(values).view("<f4"), np.concatenate(gaps)


def _block_entries(
    bits: NDArray[np.uint32], pending: int
) -> tuple[NDArray[np.uint32], NDArray[np.uint8], int]:
    """The entries of a part of a blob before which ``pending`` zeros have none; those after it."""
    places = np.flatnonzero(bits)
    zeros = np.diff(places, prepend=-1, append=bits.size) - 1
    zeros[0] += pending
    fillers, rest = np.divmod(zeros, _STEP_MAX)
    ends = np.cumsum(fillers + 1) - 1  # each value's entry; the last is the part's end, no entry
    values = np.zeros(ends[-1], "<u4")
    values[ends[:-1]] = bits[places]
    gaps = np.full(ends[-1], _GAP_MAX, np.uint8)
    gaps[ends[:-1]] = rest[:-1]
    return values, gaps, int(rest[-1])


def from_gaps(values: NDArray[np.float32], gaps: NDArray[np.uint8], shape: tuple[int, ...]) -> Blob:
    """Return the blob of ``shape`` that `to_gaps` made values and gaps of.

    Raises:
        FormatError: They do not fill the shape. The sentence lacks file and layer, which the
            caller adds.
    """
    count = math.prod(shape)
    if values.shape != gaps.shape or gaps.ndim != 1:
        raise FormatError(f"has {values.size} values but {gaps.size} gaps")
    end = int(gaps.sum(dtype=np.int64)) + gaps.size
    if not end <= count <= end + _GAP_MAX:
        extents = "x".join(map(str, shape)) or "()"
        raise FormatError(f"has gaps that lead to value {end}, but shape {extents} holds {count}")
    bits = np.zeros(count, "<u4")
    last = -1
    for start in range(0, gaps.size, _BLOCK):
        steps = gaps[start : start + _BLOCK].astype(np.int64) + 1
        steps[0] += last
        places = np.cumsum(steps)
        bits[places] = values[start : start + _BLOCK].view("<u4")
        last = places[-1]
    return bits.view("<f4").reshape(shape)


def expected_bytes(values: int, kept: int) -> int:
    """Return what a blob takes, in whose ``values`` the ``kept`` ones are spread at random.

    For where their places are not known: fillers are counted as they are expected when every place
    is as likely as any other.
    """
    fillers = float(values // _STEP_MAX)
    if kept:
        bridged = (1 - kept / values) ** _STEP_MAX
        fillers = min(fillers, kept * bridged / (1 - bridged)) if bridged < 1 else fillers
    return min(4 * values, round(_ENTRY_BYTES * (kept + fillers)))


def _members(model: Caffemodel) -> Iterator[tuple[str, NDArray[np.generic]]]:
    yield DEFINITIONS, np.frombuffer(outline_bytes(model), np.uint8)
    for layer_index, layer in enumerate(model.layers):
        for blob_index, blob in enumerate(layer.blobs):
            place = f"{layer_index}/{blob_index}"
            entries = to_gaps(blob)
            if entries is None:
                yield f"{place}/dense", np.asarray(blob, "<f4")
            else:
                yield f"{place}/values", entries[0]
                yield f"{place}/gaps", entries[1]


def write_sparse(path: Path, model: Caffemodel) -> None:
    """Write ``model`` in the sparse form, atomically; `read_sparse` gives it back bit for bit.

    Raises:
        PruneError: The folder cannot be written to or the disk is full.
    """
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        write_arrays(file, _members(model))


def sparse_size(model: Caffemodel, compression: int = zipfile.ZIP_STORED) -> int:
    """Return how many bytes `write_sparse` writes; nothing is written.

    Args:
        model: The weights.
        compression: ``zipfile.ZIP_DEFLATED``: as if its members were deflated.
    """
    return arrays_size(_members(model), compression)


def read_sparse(path: Path) -> Caffemodel:
    """Read a sparse model: definitions and blobs are those that were written, to the last bit.

    Raises:
        FormatError: The file is missing, damaged, or no sparse model; the sentence names the layer
            whose values, gaps and shape do not fit together.
    """
    budget = Budget(existing_file(path, _WHAT).stat().st_size)
    members = read_arrays(path, _WHAT, budget)
    try:
        net, outlines = read_outline(_taken(members, DEFINITIONS, np.uint8).tobytes())
        layers = tuple(
            _layer(members, index, outline, budget) for index, outline in enumerate(outlines)
        )
        _require_none_left(members)
    except (FormatError, DecodeError, EncodeError, MemoryError) as error:
        raise FormatError(f"{path}: {error}; {_WHAT} is needed") from error
    return Caffemodel(layers, net)


def _layer(members: Members, index: int, outline: LayerOutline, budget: Budget) -> Layer:
    blobs = []
    for blob_index, shape in enumerate(outline.shapes):
        with naming_blob(outline.param.name, blob_index):
            blobs.append(_blob(members, f"{index}/{blob_index}", shape, budget))
    return Layer(outline.param, tuple(blobs))


def _blob(members: Members, place: str, shape: tuple[int, ...], budget: Budget) -> Blob:
    require_count(shape, math.prod(shape))
    if f"{place}/dense" not in members:
        budget.spend(4 * math.prod(shape))
        values = _taken(members, f"{place}/values", np.float32)
        return from_gaps(values, _taken(members, f"{place}/gaps", np.uint8), shape)
    dense = _taken(members, f"{place}/dense", np.float32)
    if dense.shape != shape:
        raise FormatError(f"has shape {shape} but its values have {dense.shape}")
    return dense


def _taken(members: Members, name: str, dtype: type[_T]) -> NDArray[_T]:
    """Take a member out of those that are left."""
    array = members.pop(name, None)
    if array is None or array.dtype != dtype:
        raise FormatError(f"has no member '{name}' of {np.dtype(dtype)}")
    return cast(NDArray[_T], array)


def _require_none_left(members: Members) -> None:
    if members:
        raise FormatError(f"has members that no layer names, {min(members)} first")
