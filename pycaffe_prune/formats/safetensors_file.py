"""The ``.safetensors`` format: a header (JSON) of each tensor's type, shape and place, then data.

The package safetensors cannot give NumPy what NumPy has no type for (BF16, FP8); here these become
float32, which holds each of their values exactly. A header is checked against the file before
anything is made of it, as the format's description asks: tensors cover the data without gaps and
without overlaps.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.blobs import mapped_file
from pycaffe_prune.formats.limits import Budget

__all__ = ["SafetensorsFile", "read_safetensors_file", "write_safetensors_file"]

_MOST_HEADER = 100_000_000  # the package's own limit
_PLAIN = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
_WIDENED = {"BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1}
_SIZES = {**{name: np.dtype(code).itemsize for name, code in _PLAIN.items()}, **_WIDENED}
_METADATA = "__metadata__"


@dataclass(frozen=True)
class SafetensorsFile:
    """What a file holds."""

    tensors: Mapping[str, NDArray[np.floating[Any]]]
    """By name, in the file's order of names: float64, float32 or float16; BF16 and FP8 (E4M3 and
    E5M2) as float32. Read-only views of the file where it holds these types."""
    metadata: Mapping[str, str]


def read_safetensors_file(path: Path, what: str) -> SafetensorsFile:
    """Read all tensors of a file.

    Args:
        path: The file.
        what: What it should be, for the error's sentence.

    Raises:
        FormatError: The file is missing or damaged, or has a tensor of another type.
    """
    buffer = mapped_file(path, what)
    try:
        header, data = _parts(buffer)
        metadata = _metadata(header)
        places = {name: _place(name, told) for name, told in header.items()}
        _require_whole(places, len(data))
        budget = Budget(len(buffer))
        tensors = {name: _tensor(data, place, budget) for name, place in sorted(places.items())}
    except FormatError as error:
        raise FormatError(f"{path}: {error}; {what} is needed") from error
    return SafetensorsFile(tensors, metadata)


def _parts(buffer: memoryview) -> tuple[dict[str, Any], memoryview]:
    length = int.from_bytes(buffer[:8], "little")
    if len(buffer) < 8 or not 2 <= length <= min(_MOST_HEADER, len(buffer) - 8):
        raise FormatError("has no header of the length that it says")
    try:
        header = json.loads(bytes(buffer[8 : 8 + length]), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"has a header that is no JSON ({error})") from error
    if not isinstance(header, dict):
        raise FormatError("has a header that is no JSON object")
    return header, buffer[8 + length :]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise FormatError("has a header that names one thing twice")
    return found


def _metadata(header: dict[str, Any]) -> dict[str, str]:
    """Take the metadata out of a header."""
    found = header.pop(_METADATA, {})
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise FormatError(f"has '{_METADATA}' that maps no texts to texts")
    return found


@dataclass(frozen=True)
class _Place:
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def _place(name: str, told: object) -> _Place:
    if not isinstance(told, dict) or told.keys() != {"dtype", "shape", "data_offsets"}:
        raise FormatError(f"tensor {name!r} has no type, shape and place")
    dtype, shape, offsets = told["dtype"], told["shape"], told["data_offsets"]
    if not _are_counts(shape) or not _are_counts(offsets) or len(offsets) != 2:
        raise FormatError(f"tensor {name!r} has no shape and place of whole numbers")
    if not isinstance(dtype, str) or dtype not in _SIZES:
        raise FormatError(
            f"tensor {name!r} holds {str(dtype)[:40]}, of which no blob can be made; "
            f"{', '.join(_SIZES)} are read"
        )
    begin, end = offsets
    if end - begin != math.prod(shape) * _SIZES[dtype]:
        raise FormatError(f"tensor {name!r} has shape {tuple(shape)} but {end - begin} bytes")
    return _Place(dtype, tuple(shape), begin, end)


def _are_counts(values: object) -> bool:
    return isinstance(values, list) and all(
        isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63
        for value in values
    )


def _require_whole(places: Mapping[str, _Place], size: int) -> None:
    end = 0
    for place in sorted(places.values(), key=lambda place: (place.begin, place.end)):
        if place.begin != end:
            raise FormatError("has tensors that overlap or leave gaps")
        end = place.end
    if end != size:
        raise FormatError(f"has {size} bytes of data, its header names {end}")


def _tensor(data: memoryview, place: _Place, budget: Budget) -> NDArray[np.floating[Any]]:
    content = data[place.begin : place.end]
    if place.dtype not in _PLAIN:
        budget.spend(math.prod(place.shape) * 4)
    try:
        return _values(content, place.dtype).reshape(place.shape)
    except ValueError as error:  # too many axes
        raise FormatError(f"has a tensor of shape {place.shape}, which NumPy refuses") from error


def _values(content: memoryview, dtype: str) -> NDArray[np.floating[Any]]:
    if dtype in _PLAIN:
        return np.frombuffer(content, _PLAIN[dtype])
    if dtype == "BF16":
        return (np.frombuffer(content, "<u2").astype("<u4") << 16).view("<f4")
    return _FLOATS_OF_8_BITS[dtype][np.frombuffer(content, np.uint8)]


def _e5m2() -> NDArray[np.float32]:
    """Half precision without its lower byte."""
    return (np.arange(256, dtype="<u2") << 8).view("<f2").astype("<f4")


def _e4m3() -> NDArray[np.float32]:
    """Bias 7, no infinities, and NaN where all exponent and mantissa bits are set (OCP, "FN")."""
    codes = np.arange(256)
    exponent, mantissa = codes >> 3 & 15, codes & 7
    normal = np.ldexp(1 + mantissa / 8, exponent - 7)
    values = np.where(exponent == 0, np.ldexp(mantissa / 8, -6), normal)
    values[(codes & 127) == 127] = np.nan
    return np.where(codes & 128, -values, values).astype("<f4")


_FLOATS_OF_8_BITS = {"F8_E5M2": _e5m2(), "F8_E4M3": _e4m3()}


def write_safetensors_file(
    file: BinaryIO, tensors: Mapping[str, NDArray[np.float32]], metadata: Mapping[str, str]
) -> None:
    """Stream float32 tensors to ``file``, in the order of their names as the package does."""
    header: dict[str, Any] = {_METADATA: dict(metadata)}
    end = 0
    for name, tensor in sorted(tensors.items()):
        places = [end, end := end + tensor.size * 4]
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": places}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for _, tensor in sorted(tensors.items()):
        file.write(np.ascontiguousarray(tensor, "<f4").reshape(-1).view(np.uint8).data)
