"""Layers whose data do not come from files: Input, MemoryData and DummyData."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pycaffe_prune.engines.torch.data.base import Source
from pycaffe_prune.engines.torch.data.draws import Purpose, draws_for
from pycaffe_prune.engines.torch.fillers import fill
from pycaffe_prune.errors import DataError
from pycaffe_prune.formats.axes import Shape, extents
from pycaffe_prune.formats.caffe_pb2 import FillerParameter, LayerParameter
from pycaffe_prune.net.shapes import infer_shapes

__all__ = ["DummySource", "InputSource", "MemorySource"]


def _told_shapes(param: LayerParameter) -> tuple[Shape, ...]:
    around = infer_shapes([param])[0]
    if around.problem:
        raise DataError(around.problem)
    return tuple(shape for shape in around.tops if shape is not None)


class InputSource(Source):
    """The tops of an Input layer (`src/caffe/layers/input_layer.hpp`): what was written into them.

    They hold zeros at first. Every batch is the same memory.

    Args:
        param: The layer.
        device: Where the tops are.

    Raises:
        DataError, SurgeryError: The layer does not tell its shapes, or contradicts itself.
    """

    def __init__(self, param: LayerParameter, device: torch.device) -> None:
        self._shapes = _told_shapes(param)
        self._tops = tuple(torch.zeros(shape, device=device) for shape in self._shapes)

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """What the layer tells."""
        return self._shapes

    def next(self) -> tuple[Tensor, ...]:
        """Return the tops; see `Source.next`."""
        return self._tops

    def seek(self, batch: int) -> None:
        """See `Source.seek`; every batch is the same."""

    def close(self) -> None:
        """See `Source.close`; nothing is open."""


class MemorySource(Source):
    """The batches of a MemoryData layer (`src/caffe/layers/memory_data_layer.cpp`).

    ``transform_param`` is not applied to arrays that are set, as in Caffe.

    Args:
        param: The layer.
        device: Where batches are wanted.

    Raises:
        SurgeryError: The layer does not tell its shapes.
    """

    def __init__(self, param: LayerParameter, device: torch.device) -> None:
        self._name, self._device, self._shapes = param.name, device, _told_shapes(param)
        self._held: tuple[Tensor, ...] = ()
        self._batch = 0

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """What the layer tells."""
        return self._shapes

    def reset(self, data: NDArray[np.float32], labels: NDArray[np.float32]) -> None:
        """Give all images and labels; batches begin with the first of them, and come again.

        Args:
            data: (images, channels, height, width); images are a multiple of the batch size.
            labels: (images,).

        Raises:
            DataError: They do not fit the layer, or each other.
        """
        size, *image = self._shapes[0]
        if not len(data) or len(data) % size or data.shape[1:] != tuple(image):
            raise DataError(
                f"layer '{self._name}' (MemoryData): its batches are {extents(self._shapes[0])}, "
                f"the data are {extents(data.shape)}; give whole batches of such images"
            )
        if labels.size != len(data):
            raise DataError(
                f"layer '{self._name}' (MemoryData): {len(data)} images came with {labels.size} "
                "labels; give one for each"
            )
        self._held = tuple(
            torch.as_tensor(values).to(self._device, torch.float32, copy=True)
            for values in (data, labels.reshape(-1))
        )
        self._batch = 0

    def hold(self, data: NDArray[np.float32], labels: NDArray[np.float32]) -> None:
        """Do as `reset` for arrays that fit, without a copy: what they hold when a batch is made.

        The labels of a batch are (images, 1, 1, 1) then, as Caffe reshapes them on each pass.

        Args:
            data: As for `reset`.
            labels: As many values as there are images.
        """
        self._held = tuple(map(torch.from_numpy, (data, labels.reshape(-1, 1, 1, 1))))
        self._batch = 0

    def next(self) -> tuple[Tensor, ...]:
        """Return the next batch; see `Source.next`."""
        if not self._held:
            raise DataError(
                f"layer '{self._name}' (MemoryData) has no data; call the net's set_input_arrays "
                "before the first pass"
            )
        size = self._shapes[0][0]
        start = self._batch * size % len(self._held[0])
        self._batch += 1
        return tuple(top[start : start + size].to(self._device) for top in self._held)

    def seek(self, batch: int) -> None:
        """See `Source.seek`."""
        self._batch = batch

    def close(self) -> None:
        """See `Source.close`."""
        self._held = ()


class DummySource(Source):
    """The batches of a DummyData layer (`src/caffe/layers/dummy_data_layer.cpp`).

    Constant tops are filled once; the others anew for each batch.

    Args:
        param: The layer.
        device: Where batches are wanted.
        seed: Of the fillers.

    Raises:
        DataError, FormatError, SurgeryError: The layer contradicts itself.
    """

    def __init__(self, param: LayerParameter, device: torch.device, seed: int) -> None:
        self._device, self._seed, self._batch = device, seed, 0
        self._shapes = _told_shapes(param)
        fillers = list(param.dummy_data_param.data_filler) or [FillerParameter()]
        self._fillers = fillers * (len(self._shapes) if len(fillers) == 1 else 1)
        self._constants = {
            place: self._filled(place, 0)
            for place, filler in enumerate(self._fillers)
            if filler.type == "constant"
        }

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """What the layer tells."""
        return self._shapes

    @property
    def constants(self) -> Mapping[int, Tensor]:
        """The tops that are the same in all batches, by their numbers."""
        return self._constants

    def next(self) -> tuple[Tensor, ...]:
        """Return the next batch; see `Source.next`."""
        batch = self._batch
        self._batch += 1
        return tuple(
            self._constants[place] if place in self._constants else self._filled(place, batch)
            for place in range(len(self._shapes))
        )

    def _filled(self, place: int, batch: int) -> Tensor:
        key = int(draws_for(self._seed, Purpose.FILL, batch, place).integers(2**63))
        top = torch.empty(self._shapes[place])
        fill(top, self._fillers[place], torch.Generator().manual_seed(key))
        return top.to(self._device)

    def seek(self, batch: int) -> None:
        """See `Source.seek`."""
        self._batch = batch

    def close(self) -> None:
        """See `Source.close`; nothing is open."""
