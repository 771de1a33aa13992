"""The memory of blobs: what layers read and write, and the NumPy views of it.

On a CPU a view is the memory itself. As long as nobody has asked for one, what a layer has computed
simply becomes the memory; from the first view on, results are copied into what the view shows. On a
GPU there is one copy on each side and a note of which is newest (`SyncedMemory` of
`src/caffe/syncedmem.cpp`): each view counts as a write on the host.
"""

import itertools
import math
from enum import Enum, auto

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pycaffe_prune.formats.axes import Shape

__all__ = ["DeviceMemory", "Memory", "new_memory", "storage_of"]


_FIRST_VERSIONS = itertools.count(step=1 << 40)


class Memory:
    """Float32 values on a CPU, read in whatever shape a blob has.

    Args:
        flat: Memory that is there already, one axis; by default it is made when it is needed.
    """

    device = torch.device("cpu")

    def __init__(self, flat: Tensor | None = None) -> None:
        self._flat = flat
        """What views show; None as long as there is none."""
        self._value: Tensor | None = None
        """The values, as they were last read or written; a part of `_flat`, if there is one."""
        self._array: NDArray[np.float32] | None = None
        """The last view."""
        self._array_shape: Shape = ()
        """Its shape, the object that it was asked for with: telling that apart is quicker."""
        self._capacity = 0 if flat is None else flat.numel()
        self.version = next(_FIRST_VERSIONS)
        """Grows with each write, and with each view that may be written into; no two memories have
        the same, since a blob may be given another one."""
        self.views = 0
        """How many views were given."""

    @property
    def is_held(self) -> bool:
        """Whether something outside may read and write what layers read and write."""
        return self._flat is not None

    @property
    def is_unset(self) -> bool:
        """Whether nothing was ever written, so that all is zero."""
        return self._flat is None and self._value is None

    def reserve(self, count: int) -> None:
        """Make room; more than there ever was is new memory, of zeros (`Blob::Reshape`)."""
        if count > self._capacity:
            self._capacity = count
            self._flat = self._value = self._array = None

    def read(self, shape: Shape) -> Tensor:
        """Return the values where layers compute, in a shape."""
        value = self._value
        if value is not None and value.shape == shape:
            return value
        return self._shaped(shape)

    def _shaped(self, shape: Shape) -> Tensor:
        count = math.prod(shape)
        self.reserve(count)
        if self._flat is None and self._value is not None and self._value.numel() != count:
            self._hold()  # a part, or more, of what is there
        if self._flat is not None:
            value = self._flat[:count].view(shape)
        elif self._value is not None:
            value = self._value.reshape(shape)
        else:
            value = torch.zeros(shape, device=self.device)
        self._value = value
        return value

    def _hold(self) -> None:
        """Let the values lie in `_flat` from now on."""
        if self._flat is None:
            self._flat = torch.zeros(self._capacity, device=self.device)
            if self._value is not None:
                self._flat[: self._value.numel()].view(self._value.shape).copy_(self._value)
            self._value = None

    def write(self, values: Tensor) -> None:
        """Take the result of a layer, of any shape that there is room for.

        It is kept as it is or copied: whoever wrote it must not change it.
        """
        self.version += 1
        if self._flat is None:
            self._capacity = max(self._capacity, values.numel())
            self._value = values
            return
        target = self.read(values.shape)
        if target is not values:
            target.copy_(values)

    def clear(self) -> None:
        """Make all values zero."""
        self.version += 1
        if self._flat is None:
            self._value = None
        else:
            self._flat.zero_()

    def array(self, shape: Shape) -> NDArray[np.float32]:
        """Return a view that is read from and written into."""
        self.version += 1
        self.views += 1
        array = self._array
        if array is None or shape is not self._array_shape:
            array, self._array_shape = self._viewed(shape), shape
            self._array = array
        return array[...]  # not the same object: its shape may be changed

    def _viewed(self, shape: Shape) -> NDArray[np.float32]:
        self.reserve(math.prod(shape))
        self._hold()
        view: NDArray[np.float32] = self.read(shape).numpy()
        return view

    def touch(self) -> None:
        """Say that layers have changed what `read` gave, in place."""


class _Side(Enum):
    """Which copy is the newest."""

    HOST = auto()
    DEVICE = auto()
    BOTH = auto()


class DeviceMemory(Memory):
    """Float32 values on a GPU, and a copy of them on the host as soon as there is a view.

    Args:
        device: The GPU.
        flat: Memory that is there already, on ``device``.
    """

    def __init__(self, device: torch.device, flat: Tensor | None = None) -> None:
        super().__init__(flat)
        self.device = device
        self._host: Tensor | None = None
        self._newest = _Side.DEVICE

    @property
    def is_held(self) -> bool:
        """See `Memory.is_held`; views are on the host."""
        return False

    @property
    def is_unset(self) -> bool:
        """See `Memory.is_unset`."""
        return self._host is None and super().is_unset

    def reserve(self, count: int) -> None:
        """See `Memory.reserve`."""
        if count > self._capacity:
            self._host, self._newest = None, _Side.DEVICE
        super().reserve(count)

    def read(self, shape: Shape) -> Tensor:
        """See `Memory.read`; what was written on the host comes over first."""
        if self._newest is _Side.HOST and self._host is not None:
            self._newest = _Side.BOTH
            if self._flat is None:
                self._value = self._host.to(self.device, copy=True)
            else:
                self._flat.copy_(self._host)
        return super().read(shape)

    def write(self, values: Tensor) -> None:
        """See `Memory.write`."""
        self._newest = _Side.DEVICE
        super().write(values)

    def clear(self) -> None:
        """See `Memory.clear`."""
        self._newest = _Side.DEVICE
        super().clear()

    def touch(self) -> None:
        """See `Memory.touch`."""
        self._newest = _Side.DEVICE

    def array(self, shape: Shape) -> NDArray[np.float32]:
        """See `Memory.array`; the view lies on the host, and counts as the newest."""
        self.version += 1
        self.views += 1
        count = math.prod(shape)
        self.reserve(count)
        if self._host is None:
            self._host = torch.zeros(self._capacity)
        part = self._host[:count]
        if self._newest is _Side.DEVICE:
            part.copy_(self.read(shape).reshape(-1))
        self._newest = _Side.HOST
        view: NDArray[np.float32] = part.view(shape).numpy()
        return view


def new_memory(device: torch.device, flat: Tensor | None = None) -> Memory:
    """Return memory where a net computes.

    Args:
        device: Where that is.
        flat: Memory that is there already, one axis, on ``device``.
    """
    return Memory(flat) if device.type == "cpu" else DeviceMemory(device, flat)


def storage_of(tensor: Tensor) -> int:
    """Return where the memory begins that a tensor is a view of: equal for views of the same."""
    return tensor.untyped_storage().data_ptr()
