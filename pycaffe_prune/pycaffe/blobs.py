"""Blobs, and the lists that pycaffe hands out."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pycaffe_prune.formats.axes import Shape, extents
from pycaffe_prune.formats.blobs import MAX_COUNT
from pycaffe_prune.pycaffe.errors import CheckError
from pycaffe_prune.pycaffe.memory import new_memory

__all__ = ["Blob", "BlobVec", "BoolVec", "DtypeVec", "IntVec", "RawBlobVec", "StringVec"]

_MOST_AXES = 32  # kMaxBlobAxes of include/caffe/blob.hpp
_LEGACY_AXES = 4
_CPU = torch.device("cpu")


class IntVec(list[int]):
    """A list of whole numbers: a shape, or the numbers of blobs."""


class StringVec(list[str]):
    """A list of names."""


class DtypeVec(list[float]):
    """A list of numbers."""


class BoolVec(list[bool]):
    """A list of truth values."""


class Blob:
    """Values and their gradients (`src/caffe/blob.cpp`).

    Args:
        shape: Its shape; values and gradients are zero.
        device: Where the net computes that it belongs to.
    """

    def __init__(self, shape: Shape = (), device: torch.device = _CPU) -> None:
        self._shape = shape
        self._data, self._diff = new_memory(device), new_memory(device)

    # What scripts see

    @property
    def data(self) -> NDArray[np.float32]:
        """The values: a view that shows what passes compute, and that they read."""
        return self._data.array(self._shape)

    @property
    def diff(self) -> NDArray[np.float32]:
        """The gradients: a view that shows what passes compute, and that they read."""
        return self._diff.array(self._shape)

    @property
    def shape(self) -> IntVec:
        """The shape, a copy."""
        return IntVec(self._shape)

    @property
    def num(self) -> int:
        """The extent of axis 0, 1 if there is none."""
        return self._legacy(0)

    @property
    def channels(self) -> int:
        """The extent of axis 1, 1 if there is none."""
        return self._legacy(1)

    @property
    def height(self) -> int:
        """The extent of axis 2, 1 if there is none."""
        return self._legacy(2)

    @property
    def width(self) -> int:
        """The extent of axis 3, 1 if there is none."""
        return self._legacy(3)

    @property
    def count(self) -> int:
        """How many values there are."""
        return int(np.prod(self._shape, dtype=np.int64))

    def _legacy(self, axis: int) -> int:
        """`Blob::LegacyShape`."""
        if len(self._shape) > _LEGACY_AXES:
            raise CheckError(
                f"num, channels, height and width are for blobs of at most {_LEGACY_AXES} axes; "
                f"this one has shape {extents(self._shape)}: use shape"
            )
        return self._shape[axis] if axis < len(self._shape) else 1

    def reshape(self, *shape: int, **keywords: object) -> None:
        """Change the shape; values stay in their order, as far as there is room for them.

        Raises:
            CheckError: No blob can have this shape.
            RuntimeError: It is given by keywords.
        """
        if keywords:
            raise RuntimeError("Blob.reshape takes no kwargs")
        self._resize(possible_shape(shape))

    # What nets use

    def _resize(self, shape: Shape) -> None:
        if shape != self._shape:
            self._shape = shape
            count = self.count
            self._data.reserve(count)
            self._diff.reserve(count)

    def _read(self) -> Tensor:
        return self._data.read(self._shape)

    def _bind(self, values: Tensor) -> None:
        """Take the result of a layer, with its shape."""
        if values.shape != self._shape:
            self._resize(tuple(values.shape))
        self._data.write(values)

    def _read_diff(self) -> Tensor | None:
        """The gradients; None if they were never written, and so are zero."""
        return None if self._diff.is_unset else self._diff.read(self._shape)


def possible_shape(extents_: tuple[int, ...]) -> Shape:
    """Return a shape that a blob can have (`Blob::Reshape`).

    Raises:
        CheckError: It has too many axes, an extent below 0, or too many values.
        TypeError: An extent is no whole number.
    """
    shape = tuple(extent.__index__() for extent in extents_)
    if len(shape) > _MOST_AXES:
        raise CheckError(f"a blob has at most {_MOST_AXES} axes, not {len(shape)}")
    if any(extent < 0 for extent in shape):
        raise CheckError(f"a blob cannot have shape {extents(shape)}")
    count = 1
    for extent in filter(None, shape):
        count *= extent
        if count > MAX_COUNT:
            raise CheckError(f"a blob of shape {extents(shape)} is too large for Caffe")
    return shape


class RawBlobVec(list[Blob]):
    """The bottoms or tops of a layer."""


class BlobVec(list[Blob]):
    """The blobs of a layer."""

    device = _CPU

    def add_blob(self, *shape: int, **keywords: object) -> None:
        """Append a blob of zeros.

        Raises:
            CheckError: No blob can have this shape.
            RuntimeError: It is given by keywords.
        """
        if keywords:
            raise RuntimeError("BlobVec.add_blob takes no kwargs")
        self.append(Blob(possible_shape(shape), self.device))
