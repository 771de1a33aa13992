"""Pooling: maximum and average."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from pycaffe_prune.engines.torch.layers.base import Layer, LayerSetup, Saved
from pycaffe_prune.errors import EngineError
from pycaffe_prune.formats.axes import Shape, extents
from pycaffe_prune.formats.caffe_pb2 import PoolingParameter
from pycaffe_prune.net.shape_windows import pooling_window

__all__ = ["LAYERS", "AveragePooling", "MaxPooling", "WidelyPaddedPooling", "pooling"]

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
    def _pooled(self, bottom: Tensor) -> Tensor:
        """Pool the bottom, with padding put on."""

    def forward(
        self,
        bottoms: Sequence[Tensor],
        params: Sequence[Tensor],
    ) -> tuple[Tensor, ...]:
        """Compute the top; see `Layer.forward`."""
        height, width = self.setup.tops[0][2:]
        return (self._pooled(bottoms[0])[..., :height, :width],)


class _WidelyPaddedMax(WidelyPaddedPooling):
    def __init__(self, setup: LayerSetup) -> None:
        super().__init__(setup)
        if len(setup.tops) > 1:
            raise EngineError(
                f"layer '{setup.param.name}' (Pooling): the torch engine makes no second top where "
                "pad is more than half of kernel_size; leave that top out, or use --engine caffe"
            )

    def _pooled(self, bottom: Tensor) -> Tensor:
        padded = functional.pad(bottom, self._edges, value=torch.finfo(bottom.dtype).min)
        return functional.max_pool2d(padded, self._kernel, self._stride, ceil_mode=self._ceil)


class _WidelyPaddedAverage(WidelyPaddedPooling):
    def _pooled(self, bottom: Tensor) -> Tensor:
        padded = functional.pad(bottom, self._edges)
        return functional.avg_pool2d(padded, self._kernel, self._stride, ceil_mode=self._ceil)


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
    wide = False
    if not settings.global_pooling:
        kernel, _, edges = pooling_window(settings)
        wide = any(2 * pad > size for pad, size in zip(edges, kernel, strict=True))
    if settings.pool == PoolingParameter.MAX:
        return _WidelyPaddedMax(setup) if wide else MaxPooling(setup)
    return _WidelyPaddedAverage(setup) if wide else AveragePooling(setup)


LAYERS: Mapping[str, Callable[[LayerSetup], Layer]] = {"Pooling": pooling}
