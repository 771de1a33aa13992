"""Pooling: maximum, average, and a value drawn by chance."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from pycaffe_prune.engines.torch.layers.base import Layer, LayerSetup, Saved
from pycaffe_prune.engines.torch.layers.random import RandomLayer
from pycaffe_prune.errors import EngineError
from pycaffe_prune.formats.axes import Shape, extents
from pycaffe_prune.formats.caffe_pb2 import TRAIN, PoolingParameter
from pycaffe_prune.net.shape_windows import pooling_window

__all__ = [
    "LAYERS",
    "AveragePooling",
    "MaxPooling",
    "StochasticPooling",
    "WidelyPaddedPooling",
    "pooling",
    "sums_at",
    "values_at",
]

# The operators behind autograd's own backward passes.
_max_backward: Callable[..., Tensor] = torch.ops.aten.max_pool2d_with_indices_backward.default
_average_backward: Callable[..., Tensor] = torch.ops.aten.avg_pool2d_backward.default


class _Pooling(Layer):
    """The windows (`src/caffe/layers/pooling_layer.cpp`); bottoms are N x C x H x W.

    torch's own windows are Caffe's: ``ceil_mode`` cuts a window that begins in the padding, and
    averages divide by the window clipped at the end of the padding. Only padding of more than half
    a kernel, which torch refuses, takes a way of its own (`WidelyPaddedPooling`).
    """

    def __init__(self, setup: LayerSetup) -> None:
        super().__init__(setup)
        settings, size = setup.param.pooling_param, setup.bottoms[0][2:]
        if settings.global_pooling:
            windows: tuple[Shape, Shape, Shape] = (size, (1, 1), (0, 0))
        else:
            windows = pooling_window(settings)
        kernel, stride, pad = windows
        self._kernel, self._stride, self._pad = list(kernel), list(stride), list(pad)
        self._ceil = settings.round_mode == PoolingParameter.CEIL
        for extent, pooled, step, edge in zip(size, setup.tops[0][2:], stride, pad, strict=True):
            if (pooled - 1) * step >= extent + edge:
                raise EngineError(
                    f"layer '{setup.param.name}' (Pooling): its stride {step} puts the last "
                    f"window behind the end of its bottom {extents(setup.bottoms[0])}, where Caffe "
                    "reads and writes memory that is not its own; make the stride smaller, or say "
                    "round_mode: FLOOR"
                )


class MaxPooling(_Pooling):
    """The largest value of each window, the first where several are; padding is never it.

    The second top, if there is one, holds the place of each maximum in its H x W plane. Where Caffe
    passes over a NaN, this gives it on.
    """

    def forward(
        self,
        bottoms: Sequence[Tensor],
        params: Sequence[Tensor],
    ) -> tuple[Tensor, ...]:
        """Compute the tops; see `Layer.forward`."""
        return self._pooled(bottoms[0])[0]

    def _pooled(self, bottom: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        top, places = functional.max_pool2d_with_indices(
            bottom, self._kernel, self._stride, self._pad, ceil_mode=self._ceil
        )
        if len(self.setup.tops) == 1:
            return (top,), places
        return (top, places.to(top.dtype)), places

    def forward_saving(
        self,
        bottoms: Sequence[Tensor],
        params: Sequence[Tensor],
    ) -> tuple[tuple[Tensor, ...], Saved]:
        """Compute the tops; keep the bottom and the places of the maxima."""
        bottom = _arranged(bottoms[0])
        tops, places = self._pooled(bottom)
        return tops, (bottom, places)

    def backward(
        self,
        saved: Saved,
        top_diffs: Sequence[Tensor | None],
        propagate: Sequence[bool],
        param_diffs: Sequence[Tensor | None],
    ) -> list[Tensor | None]:
        """Return the bottom's gradient; see `Layer.backward`."""
        if top_diffs[0] is None or not propagate[0]:
            return [None]
        bottom, places = saved
        return [
            _max_backward(
                _arranged(top_diffs[0]),
                bottom,
                self._kernel,
                self._stride,
                self._pad,
                [1, 1],
                self._ceil,
                places,
            )
        ]


class AveragePooling(_Pooling):
    """The mean of each window; padding counts as zeros, up to the end of the padding."""

    def forward(
        self,
        bottoms: Sequence[Tensor],
        params: Sequence[Tensor],
    ) -> tuple[Tensor, ...]:
        """Compute the top; see `Layer.forward`."""
        return (
            functional.avg_pool2d(
                bottoms[0], self._kernel, self._stride, self._pad, ceil_mode=self._ceil
            ),
        )

    def forward_saving(
        self, bottoms: Sequence[Tensor], params: Sequence[Tensor]
    ) -> tuple[tuple[Tensor, ...], Saved]:
        """Compute the top; keep the bottom, whose shape and layout alone matter."""
        return self.forward(bottoms, params), (bottoms[0],)

    def backward(
        self,
        saved: Saved,
        top_diffs: Sequence[Tensor | None],
        propagate: Sequence[bool],
        param_diffs: Sequence[Tensor | None],
    ) -> list[Tensor | None]:
        """Return the bottom's gradient; see `Layer.backward`."""
        if top_diffs[0] is None or not propagate[0]:
            return [None]
        return [
            _average_backward(
                top_diffs[0], *saved, self._kernel, self._stride, self._pad, self._ceil, True, None
            )
        ]

    def shares(self, device: torch.device) -> Tensor:
        """Return the share of each value in the mean of its window, in the shape of the top."""
        ones = torch.ones(self.setup.bottoms[0], device=device)
        windows = self._kernel, self._stride, self._pad
        values = functional.avg_pool2d(ones, *windows, ceil_mode=self._ceil, divisor_override=1)
        return self.forward((ones,), ())[0] / values.clamp_min(1)


class WidelyPaddedPooling(_Pooling):
    """Pooling whose padding is more than half of its kernel: it is put on first."""

    def __init__(self, setup: LayerSetup) -> None:
        super().__init__(setup)
        height, width = self._pad
        self._edges = [width, width, height, height]

    @abstractmethod
    def _pooled(self, bottom: Tensor) -> tuple[Tensor, ...]:
        """Pool the bottom, with padding put on."""

    def forward(
        self,
        bottoms: Sequence[Tensor],
        params: Sequence[Tensor],
    ) -> tuple[Tensor, ...]:
        """Compute the tops; see `Layer.forward`."""
        height, width = self.setup.tops[0][2:]
        return tuple(top[..., :height, :width] for top in self._pooled(bottoms[0]))


class _WidelyPaddedMax(WidelyPaddedPooling):
    def _pooled(self, bottom: Tensor) -> tuple[Tensor, ...]:
        padded = functional.pad(bottom, self._edges, value=torch.finfo(bottom.dtype).min)
        windows = self._kernel, self._stride
        if len(self.setup.tops) == 1:
            return (functional.max_pool2d(padded, *windows, ceil_mode=self._ceil),)
        top, places = functional.max_pool2d_with_indices(padded, *windows, ceil_mode=self._ceil)
        row, column = places // padded.shape[-1], places % padded.shape[-1]
        row, column = row - self._pad[0], column - self._pad[1]
        return top, (row * bottom.shape[-1] + column).to(top.dtype)


class _WidelyPaddedAverage(WidelyPaddedPooling):
    def _pooled(self, bottom: Tensor) -> tuple[Tensor, ...]:
        padded = functional.pad(bottom, self._edges)
        return (functional.avg_pool2d(padded, self._kernel, self._stride, ceil_mode=self._ceil),)


class StochasticPooling(_Pooling, RandomLayer):
    """A value of each window by chance (Zeiler and Fergus 2013), of which Caffe has a GPU's code.

    As `src/caffe/layers/pooling_layer.cu`. In TRAIN a value is as likely as its share of the
    window's sum, and takes the gradient; in a window of zeros, or where no running sum reaches the
    share drawn of a negative one, the first. In TEST the mean that this expects: the squares' sum
    by the sum, 0 where that is not above 0. The draws are as likely as Caffe's, but other ones.
    """

    def forward(
        self,
        bottoms: Sequence[Tensor],
        params: Sequence[Tensor],
    ) -> tuple[Tensor, ...]:
        """Compute the top of the phase TEST.

        Raises:
            EngineError: The phase is TRAIN, where the layer is not a function of its bottom.
        """
        self.require_test()
        total, squares = (self._window_sums(part) for part in (bottoms[0], bottoms[0].square()))
        is_above = total > 0
        return (torch.where(is_above, squares / total.where(is_above, 1), 0),)

    def _window_sums(self, values: Tensor) -> Tensor:
        windows = self._kernel, self._stride
        return functional.avg_pool2d(values, *windows, ceil_mode=self._ceil, divisor_override=1)

    def drawn_places(self, bottom: Tensor) -> Tensor:
        """Draw a place in its H x W plane for each window; int64, in the shape of the top."""
        size, pooled = bottom.shape[2:], self.setup.tops[0][2:]
        beyond = [
            max(0, (count - 1) * stride + kernel - extent)
            for count, stride, kernel, extent in zip(
                pooled, self._stride, self._kernel, size, strict=True
            )
        ]
        padded = functional.pad(bottom, (0, beyond[1], 0, beyond[0]))
        windows = padded.unfold(2, self._kernel[0], self._stride[0])
        windows = windows.unfold(3, self._kernel[1], self._stride[1])
        windows = windows[:, :, : pooled[0], : pooled[1]].flatten(4)
        sums = windows.cumsum(-1)
        share = torch.empty(sums.shape[:-1], device=bottom.device)
        share.uniform_(generator=self.generator_on(bottom.device))
        # The first of those that reach it; zeros behind the end never do so first.
        chosen = (sums >= (share * sums[..., -1])[..., None]).to(torch.uint8).argmax(-1)
        row, column = chosen // self._kernel[1], chosen % self._kernel[1]
        row += torch.arange(pooled[0], device=bottom.device)[:, None] * self._stride[0]
        column += torch.arange(pooled[1], device=bottom.device) * self._stride[1]
        return row * size[1] + column

    def forward_saving(
        self,
        bottoms: Sequence[Tensor],
        params: Sequence[Tensor],
    ) -> tuple[tuple[Tensor, ...], Saved]:
        """Compute the top, in TRAIN by new draws, whose places are kept."""
        if self.setup.phase != TRAIN:
            return super().forward_saving(bottoms, params)
        places = self.drawn_places(bottoms[0])
        return (values_at(bottoms[0], places),), (places,)

    def backward(
        self,
        saved: Saved,
        top_diffs: Sequence[Tensor | None],
        propagate: Sequence[bool],
        param_diffs: Sequence[Tensor | None],
    ) -> list[Tensor | None]:
        """Return the bottom's gradient; see `Layer.backward`."""
        if self.setup.phase != TRAIN:
            return super().backward(saved, top_diffs, propagate, param_diffs)
        if top_diffs[0] is None or not propagate[0]:
            return [None]
        return [sums_at(top_diffs[0], saved[0], self.setup.bottoms[0])]


def values_at(bottom: Tensor, places: Tensor) -> Tensor:
    """Return the values at places of each H x W plane, in the shape of ``places``."""
    return bottom.flatten(2).gather(2, places.flatten(2)).reshape(places.shape)


def sums_at(values: Tensor, places: Tensor, shape: Shape) -> Tensor:
    """Return zeros of ``shape`` with the values added at their places of each H x W plane."""
    planes = values.new_zeros(shape).flatten(2)
    return planes.scatter_add(2, places.flatten(2), values.flatten(2)).reshape(shape)


def _arranged(tensor: Tensor) -> Tensor:
    """The tensor as the device pools fastest: on a CPU, with channels last in memory."""
    if tensor.device.type != "cpu":
        return tensor
    return tensor.contiguous(memory_format=torch.channels_last)


def pooling(setup: LayerSetup) -> Layer:
    """Make the Pooling layer that the settings ask for.

    Raises:
        EngineError: A window lies behind the bottom's end.
    """
    settings = setup.param.pooling_param
    if settings.pool == PoolingParameter.STOCHASTIC:
        return StochasticPooling(setup)
    wide = False
    if not settings.global_pooling:
        kernel, _, edges = pooling_window(settings)
        wide = any(2 * pad > size for pad, size in zip(edges, kernel, strict=True))
    if settings.pool == PoolingParameter.MAX:
        return _WidelyPaddedMax(setup) if wide else MaxPooling(setup)
    return _WidelyPaddedAverage(setup) if wide else AveragePooling(setup)


LAYERS: Mapping[str, Callable[[LayerSetup], Layer]] = {"Pooling": pooling}
