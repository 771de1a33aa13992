"""The HDF5Data layer: rows of HDF5 files named in a list."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pycaffe_prune.engines.torch.data.base import Source
from pycaffe_prune.engines.torch.data.draws import Purpose, draws_for
from pycaffe_prune.errors import DataError, FormatError
from pycaffe_prune.formats.axes import Shape, extents
from pycaffe_prune.formats.caffe_pb2 import LayerParameter
from pycaffe_prune.formats.hdf5_files import read_rows, rows_shapes

__all__ = ["Hdf5Source"]


_MOST_HELD = 256 << 20  # bytes of files that are kept in memory from one pass to the next

_Tops = tuple[NDArray[np.float32], ...]


class Hdf5Source(Source):
    """Batches of an HDF5Data layer (`src/caffe/layers/hdf5_data_layer.cpp`).

    The rows of all files follow each other, pass after pass; a batch may span files. With
    ``shuffle`` files, and rows within each, are in another order at each pass. Files are held in
    main memory while all that were read have 256 MiB; of larger ones, one at a time.

    Args:
        param: The layer; its tops name the datasets.
        device: Where batches are wanted.
        seed: Of the order.

    Raises:
        DataError: The list or a file is missing or damaged, lacks a dataset, or datasets differ.
    """

    def __init__(self, param: LayerParameter, device: torch.device, seed: int) -> None:
        told = param.hdf5_data_param
        self._where = f"layer '{param.name}' (HDF5Data)"
        if param.HasField("transform_param"):
            raise DataError(f"{self._where}: has transform_param, which HDF5Data does not know")
        self._names, self._device, self._seed = tuple(param.top), device, seed
        self._size, self._shuffle = told.batch_size, told.shuffle
        self._paths = self._listed(Path(told.source))
        found = [self._shapes_in(path) for path in self._paths]
        self._rows = np.array([shapes[0][0] for shapes in found])
        self._widths = [shape[1:] for shape in found[0]]
        for path, shapes in zip(self._paths, found, strict=True):
            if [shape[1:] for shape in shapes] != self._widths:
                raise DataError(
                    f"{self._where}: the rows of {path} are "
                    f"{', '.join(extents(shape[1:]) for shape in shapes)}, those of "
                    f"{self._paths[0]} are {', '.join(map(extents, self._widths))}; make them alike"
                )
        self._held: dict[int, _Tops] = {}
        self._batch = 0

    def _listed(self, source: Path) -> list[Path]:
        try:
            names = source.read_text(encoding="utf-8", errors="surrogateescape").split()
        except OSError as error:
            raise DataError(
                f"{self._where}: the list {source} cannot be read ({error.strerror})"
            ) from error
        if not names:
            raise DataError(f"{self._where}: the list {source} is empty; name HDF5 files in it")
        return [Path(name) for name in names]

    def _shapes_in(self, path: Path) -> list[Shape]:
        try:
            shapes = rows_shapes(path, self._names)
        except FormatError as error:
            raise DataError(f"{self._where}: {error}; the tops name the datasets") from error
        counts = {shape[0] for shape in shapes}
        if len(counts) > 1 or 0 in counts:
            raise DataError(
                f"{self._where}: the datasets of {path} have "
                f"{', '.join(str(shape[0]) for shape in shapes)} rows; give all the same number, "
                "at least one"
            )
        return shapes

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Shape of each top: its dataset's, with the batch for the first axis."""
        return tuple((self._size, *width) for width in self._widths)

    def next(self) -> tuple[Tensor, ...]:
        """Return the next batch; see `Source.next`."""
        tops = [np.empty(shape, np.float32) for shape in self.shapes]
        start, filled = self._batch * self._size, 0
        self._batch += 1
        while filled < self._size:
            epoch, row = divmod(start + filled, int(self._rows.sum()))
            for number in self._file_order(epoch):
                if row < self._rows[number]:
                    break
                row -= int(self._rows[number])
            rows = self._row_order(epoch, number)[row : row + self._size - filled]
            for top, values in zip(tops, self._load(number), strict=True):
                top[filled : filled + len(rows)] = values[rows]
            filled += len(rows)
        return tuple(torch.from_numpy(top).to(self._device) for top in tops)

    def _file_order(self, epoch: int) -> NDArray[np.int64]:
        count = len(self._paths)
        if not self._shuffle:
            return np.arange(count)
        return draws_for(self._seed, Purpose.ORDER, epoch).permutation(count)

    def _row_order(self, epoch: int, number: int) -> NDArray[np.int64]:
        count = int(self._rows[number])
        if not self._shuffle:
            return np.arange(count)
        return draws_for(self._seed, Purpose.ORDER, epoch, 1 + number).permutation(count)

    def _load(self, number: int) -> _Tops:
        if number not in self._held:
            try:
                tops = tuple(read_rows(self._paths[number], self._names))
            except FormatError as error:
                raise DataError(f"{self._where}: {error}") from error
            held = (*tops, *(top for others in self._held.values() for top in others))
            if sum(top.nbytes for top in held) > _MOST_HELD:
                self._held.clear()
            self._held[number] = tops
        return self._held[number]

    def seek(self, batch: int) -> None:
        """See `Source.seek`."""
        self._batch = batch

    def close(self) -> None:
        """See `Source.close`."""
        self._held.clear()
