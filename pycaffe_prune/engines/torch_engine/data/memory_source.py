"""Layers whose data do not come from files: Input, MemoryData and DummyData."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pycaffe_prune.engines.torch_engine.data.base import Source
from pycaffe_prune.engines.torch_engine.data.draws import Purpose, draws_for
from pycaffe_prune.engines.torch_engine.fillers import fill
from pycaffe_prune.errors import DataError
from pycaffe_prune.formats.caffe_pb2 import FillerParameter, LayerParameter
from pycaffe_prune.net.axes import Shape, extents
from pycaffe_prune.net.shapes import infer_shapes

__all__ = ["DummySource", "InputSource", "MemorySource"]


def _told_shapes(param: LayerParameter) -> tuple[Shape, ...]:
    around = infer_shapes([param])[0]
    if around.problem:
        raise DataError(around.problem)
    return tuple(shape for shape in around.tops if shape is not None)


def _place_of(param: LayerParameter, top: str | int) -> int:
    names = list(param.top)
    if isinstance(top, int) and 0 <= top < len(names):
        return top
    if top not in names:
        raise DataError(f"layer '{param.name}' has no top {top!r}; its tops: {', '.join(names)}")
    return names.index(str(top))


class InputSource(Source):
    """The tops of an Input layer (`src/caffe/layers/input_layer.hpp`): what was last put in them.

    They hold zeros at first. Every batch is the same memory.

    Args:
        param: The layer.
        device: Where the tops are.

    Raises:
        DataError, SurgeryError: The layer does not tell its shapes, or contradicts itself.
    """

    def __init__(self, param: LayerParameter, device: torch.device) -> None:
        self._param, self._shapes = param, _told_shapes(param)
        self._tops = tuple(torch.zeros(shape, device=device) for shape in self._shapes)

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """What the layer tells."""
        return self._shapes

    def set(self, top: str | int, values: Tensor | NDArray[np.float32]) -> None:
        """Put values into a top.

        Args:
            top: Its name, or its number.
            values: Of the top's shape; converted to float32.

        Raises:
            DataError: There is no such top, or it has another shape.
        """
        place = _place_of(self._param, top)
        if tuple(values.shape) != self._shapes[place]:
            raise DataError(
                f"layer '{self._param.name}': top {top!r} is {extents(self._shapes[place])}, the "
                f"values are {extents(tuple(values.shape))}; give as many as the layer says"
            )
        self._tops[place].copy_(torch.as_tensor(values))

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
        DataError, SurgeryError: The layer does not tell its shapes.
    """

    def __init__(self, param: LayerParameter, device: torch.device) -> None:
        self._param, self._device, self._shapes = param, device, _told_shapes(param)
        if any(0 in shape for shape in self._shapes):
            raise DataError(
                f"layer '{param.name}' (MemoryData): batch_size, channels, height and width must "
                "be given and positive"
            )
        self._held: list[Tensor | None] = [None for _ in self._shapes]
        self._batch = 0

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """What the layer tells."""
        return self._shapes

    def set(self, top: str | int, values: Tensor | NDArray[np.float32]) -> None:
        """Give all images, or all labels; batches begin again with the first of them.

        Args:
            top: Its name, or its number.
            values: Of the top's shape but for the first axis, which is a multiple of the batch
                size; converted to float32.

        Raises:
            DataError: There is no such top, or the values do not fit.
        """
        place = _place_of(self._param, top)
        shape, wanted = tuple(values.shape), self._shapes[place]
        if not shape or shape[1:] != wanted[1:] or not shape[0] or shape[0] % wanted[0]:
            raise DataError(
                f"layer '{self._param.name}': top {top!r} is {extents(wanted)}, the values are "
                f"{extents(shape)}; give whole batches"
            )
        self._held[place] = torch.as_tensor(values).to(self._device, torch.float32, copy=True)
        self._batch = 0

    def next(self) -> tuple[Tensor, ...]:
        """Return the next batch; see `Source.next`."""
        held = [top for top in self._held if top is not None]
        counts = {len(top) for top in held}
        if len(held) < len(self._held) or len(counts) > 1:
            raise DataError(
                f"layer '{self._param.name}' (MemoryData) lacks data: set each of its tops "
                f"({', '.join(self._param.top)}) to the same number of images first"
            )
        size = self._shapes[0][0]
        start = self._batch * size % counts.pop()
        self._batch += 1
        return tuple(top[start : start + size] for top in held)

    def seek(self, batch: int) -> None:
        """See `Source.seek`."""
        self._batch = batch

    def close(self) -> None:
        """See `Source.close`."""
        self._held = [None for _ in self._shapes]


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
        if len(fillers) not in (1, len(self._shapes)):
            raise DataError(
                f"layer '{param.name}' (DummyData): has {len(fillers)} data_filler for "
                f"{len(self._shapes)} tops; give none, one, or one for each"
            )
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
