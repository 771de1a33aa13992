"""HDF5 files of strangers: opened in a child process, their datasets read only if they are plain.

A plain dataset has its values in the file itself. External and virtual storage and links to other
places are refused, since they read what the user did not name; so are datasets that are larger
than the file can hold. What crashes or hangs HDF5 costs one sentence (`formats.confined`).
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import DTypeLike

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.blobs import MAX_COUNT
from pycaffe_prune.formats.confined import Parsed, Room, parsed_in_child
from pycaffe_prune.formats.files import existing_file
from pycaffe_prune.formats.limits import Budget

__all__ = [
    "Hdf5File",
    "member",
    "members",
    "read_hdf5",
    "read_rows",
    "require_plain",
    "rows_shapes",
]

_MOST_PACKED = 1032  # deflate makes of one byte at most as many
_MOST_MEMBERS = 100_000
_ROWS = "an HDF5 file of data"


class Hdf5File:
    """An open file, in the child."""

    def __init__(self, root: h5py.File, room: Room, size: int) -> None:
        self.root = root
        """The file itself."""
        self._room = room
        self._budget = Budget(size)
        self._known: dict[int, int] = {}

    def keep(self, dataset: h5py.Dataset, place: str, dtype: DTypeLike = np.float32) -> int:
        """Read a dataset and return its number among `Parsed.arrays`.

        One that is linked from two places is read once, but counts twice: it is two in other forms.

        Raises:
            FormatError: It is not plain, or larger than the file may unpack to.
        """
        require_plain(dataset, place)
        self._budget.spend(int(dataset.size) * np.dtype(dtype).itemsize)
        address = h5py.h5o.get_info(dataset.id).addr
        if address not in self._known:
            self._known[address] = len(self._room.arrays)
            self._read(dataset, np.dtype(dtype))
        return self._known[address]

    def _read(self, dataset: h5py.Dataset, dtype: np.dtype[Any]) -> None:
        offset = dataset.id.get_offset()  # None: it is in chunks, or in its header
        if offset is not None and dataset.dtype == dtype and dataset.dtype.kind == "f":
            self._room.array_in_file(dataset.shape, dtype, int(offset))
            return
        array = self._room.array(dataset.shape, dtype)
        if dataset.size and dataset.shape and dataset.dtype == dtype:
            dataset.read_direct(array)
        else:
            with np.errstate(over="ignore", invalid="ignore"):  # too large: inf, as in C++
                array[...] = dataset[()]


def require_plain(dataset: h5py.Dataset, place: str) -> None:
    """Refuse a dataset whose values are not in the file itself.

    Raises:
        FormatError: It has external or virtual storage, or more values than the file can hold.
    """
    if dataset.external or dataset.is_virtual:
        raise FormatError(f"{place} has its values in another file, which is not read")
    held = dataset.id.get_storage_size() * _MOST_PACKED
    if dataset.size is None or dataset.size > MAX_COUNT or dataset.nbytes > held:
        raise FormatError(f"{place} has shape {dataset.shape}, but its values are not there")


def read_hdf5(path: Path, what: str, parse: Callable[[Hdf5File], Any]) -> Parsed:
    """Open a file in a child process and call ``parse`` there.

    Args:
        path: The file.
        what: What it should be, for the error's sentence.
        parse: Keeps arrays and returns what JSON holds.

    Raises:
        FormatError: The file is missing or damaged, or ``parse`` refuses it; the sentence has the
            file's name and ``what``.
    """
    existing_file(path, what)

    def parse_file(room: Room) -> Any:
        with h5py.File(path, "r", locking=False) as root:
            return parse(Hdf5File(root, room, path.stat().st_size))

    try:
        return parsed_in_child(path, parse_file)
    except FormatError as error:
        raise FormatError(f"{path}: {error}; {what} is needed") from error


def members(group: object, place: str) -> Iterator[tuple[str, Any]]:
    """Yield the members of a group; links that lead elsewhere, to other files too, are refused.

    Raises:
        FormatError: ``group`` is none, or has such a link or more members than any net has layers.
    """
    if not isinstance(group, h5py.Group):
        raise FormatError(f"'{place}' is no group")
    if len(group) > _MOST_MEMBERS:
        raise FormatError(f"'{place}' has {len(group)} members; no net has so many layers")
    for name in group:
        yield name, member(group, name, place)


def member(group: h5py.Group, name: str, place: str) -> Any:
    """Return one member of a group, None where there is none.

    Raises:
        FormatError: It is a link to another place.
    """
    link = group.get(name, getlink=True)
    if link is None:
        return None
    if not isinstance(link, h5py.HardLink):
        raise FormatError(f"'{place}/{name}' is a link to another place, which is not followed")
    return group[name]


def rows_shapes(path: Path, names: Sequence[str]) -> list[tuple[int, ...]]:
    """Return the shapes of the datasets ``names`` of a file of an HDF5Data layer.

    Raises:
        FormatError: The file is missing or damaged, or lacks such a dataset of numbers with at
            least one axis.
    """
    shapes = read_hdf5(path, _ROWS, lambda file: [_rows(file, name).shape for name in names]).notes
    return [tuple(shape) for shape in shapes]


def read_rows(path: Path, names: Collection[str]) -> list[Any]:
    """Return the datasets ``names`` as float32 arrays, in their shapes.

    Raises:
        FormatError: As `rows_shapes`.
    """

    def parse(file: Hdf5File) -> list[int]:
        return [file.keep(_rows(file, name), f"dataset '{name}'") for name in names]

    parsed = read_hdf5(path, _ROWS, parse)
    return [parsed.arrays[number] for number in parsed.notes]


def _rows(file: Hdf5File, name: str) -> h5py.Dataset:
    """A dataset by its path; no part of the path may be a link to elsewhere."""
    found: Any = file.root
    place = ""
    for part in filter(None, name.split("/")):
        found = member(found, part, place) if isinstance(found, h5py.Group) else None
        place = f"{place}/{part}"
    if not isinstance(found, h5py.Dataset) or not found.ndim or found.dtype.kind not in "fiu":
        raise FormatError(f"has no dataset '{name}' of numbers with at least one axis")
    require_plain(found, f"dataset '{name}'")
    return found
