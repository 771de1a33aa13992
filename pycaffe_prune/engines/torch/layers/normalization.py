"""Layers that normalize: LRN, BatchNorm and MVN."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from pycaffe_prune.engines.torch.layers.base import Layer, LayerSetup, Saved
from pycaffe_prune.formats.caffe_pb2 import TEST, LRNParameter

__all__ = ["LAYERS", "MVN", "AcrossChannels", "WithinChannel", "batch_norm", "lrn"]


class AcrossChannels(Layer):
    """x·s^-beta, s = k + alpha/local_size · Σ x² over the channels around (`lrn_layer.cpp`).

    Bottom and top are N x C x H x W; the window of ``local_size`` channels is cut at the ends.
    """

    def __init__(self, setup: LayerSetup) -> None:
        super().__init__(setup)
        settings = setup.param.lrn_param
        self._half, self._size = settings.local_size // 2, settings.local_size
        self._alpha, self._beta, self._k = settings.alpha, settings.beta, settings.k

    def _summed_over_window(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        total = x.clone()
        for shift in range(1, min(self._half, channels - 1) + 1):
            rest = channels - shift
            total.narrow(1, shift, rest).add_(x.narrow(1, 0, rest))
            total.narrow(1, 0, rest).add_(x.narrow(1, shift, rest))
        return total

    def _scales(self, bottom: Tensor) -> tuple[Tensor, Tensor]:
        """Return s, and s^-beta."""
        squares = self._summed_over_window(bottom * bottom)
        scale = squares.mul_(self._alpha / self._size).add_(self._k)
        if self._beta == 0.75:  # everyone's; roots are three times as fast as a power
            root = scale.rsqrt()
            return scale, root * root.sqrt()
        return scale, scale.pow(-self._beta)

    def forward(
        self,
        bottoms: Sequence[Tensor],
        params: Sequence[Tensor],
    ) -> tuple[Tensor, ...]:
        """Compute the top; see `Layer.forward`."""
        return (bottoms[0] * self._scales(bottoms[0])[1],)

    def forward_saving(
        self,
        bottoms: Sequence[Tensor],
        params: Sequence[Tensor],
    ) -> tuple[tuple[Tensor, ...], Saved]:
        """Compute the top; keep the bottom and both scales."""
        scale, power = self._scales(bottoms[0])
        return (bottoms[0] * power,), (bottoms[0], scale, power)

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
        bottom, scale, power = saved
        scaled = top_diffs[0] * power
        others = self._summed_over_window((scaled * bottom).div_(scale)).mul_(bottom)
        return [scaled.sub_(others, alpha=2 * self._alpha * self._beta / self._size)]


class WithinChannel(Layer):
    """x·(1 + alpha·m)^-beta, m the mean of x² in a square around (`lrn_layer.cpp`).

    Bottom and top are N x C x H x W; what the square of side ``local_size`` covers outside the
    image counts as zeros, and ``k`` is not used.
    """

    def forward(
        self,
        bottoms: Sequence[Tensor],
        params: Sequence[Tensor],
    ) -> tuple[Tensor, ...]:
        """Compute the top; see `Layer.forward`."""
        settings, (bottom,) = self.param.lrn_param, bottoms
        size = settings.local_size
        mean = functional.avg_pool2d(bottom * bottom, size, stride=1, padding=size // 2)
        return (bottom * (1 + settings.alpha * mean).pow(-settings.beta),)


def lrn(setup: LayerSetup) -> Layer:
    """Make the LRN layer of the region that the settings name."""
    within = setup.param.lrn_param.norm_region == LRNParameter.WITHIN_CHANNEL
    return WithinChannel(setup) if within else AcrossChannels(setup)


def _gradient(top: Tensor, top_diff: Tensor, axes: list[int], divisor: Tensor) -> Tensor:
    """Return the gradient of what was brought to mean 0 and deviation 1 along ``axes``."""
    found = top_diff - top_diff.mean(axes, keepdim=True)
    return found.sub_(top * (top_diff * top).mean(axes, keepdim=True)).div_(divisor)


class _BatchStatistics(Layer):
    """BatchNorm that normalizes by the statistics of its batch, and keeps their averages.

    The parameters are mean and variance, both times a factor, and that factor; `forward` leaves
    them as they are, `forward_saving` moves them. torch's own batch_norm does not do: with channels
    last it adds up in one float, and is wrong from the fourth digit on.
    """

    keeps_top = True
    moves_params = True

    def __init__(self, setup: LayerSetup) -> None:
        super().__init__(setup)
        settings, (bottom,) = setup.param.batch_norm_param, setup.bottoms
        self._fraction, self._eps = settings.moving_average_fraction, settings.eps
        self._axes = [axis for axis in range(len(bottom)) if axis != 1]
        self._count = math.prod(bottom[axis] for axis in self._axes)

    def _moments(self, bottom: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the bottom without its mean, its mean and its variance."""
        mean = bottom.mean(self._axes, keepdim=True)
        centred = bottom - mean
        return centred, mean, centred.square().mean(self._axes, keepdim=True)

    def forward(
        self,
        bottoms: Sequence[Tensor],
        params: Sequence[Tensor],
    ) -> tuple[Tensor, ...]:
        """Compute the top; see `Layer.forward`."""
        centred, _, variance = self._moments(bottoms[0])
        return (centred / (variance + self._eps).sqrt(),)

    def forward_saving(
        self, bottoms: Sequence[Tensor], params: Sequence[Tensor]
    ) -> tuple[tuple[Tensor, ...], Saved]:
        """Compute the top and move the averages; keep the top and the deviation."""
        centred, mean, variance = self._moments(bottoms[0])
        # The averages are of the unbiased variance; that of one value is 0.
        unbiased = variance * (self._count / max(self._count - 1, 1))
        mean_sum, variance_sum, factor = (param.mul_(self._fraction) for param in params)
        mean_sum.add_(mean.flatten())
        variance_sum.add_(unbiased.flatten())
        factor.add_(1)
        deviation = (variance + self._eps).sqrt()
        top = centred.div_(deviation)
        return (top,), (top, deviation)

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
        top, deviation = saved
        return [_gradient(top, top_diffs[0], self._axes, deviation)]


class _GlobalStatistics(Layer):
    """BatchNorm that normalizes by the averages that it has kept."""

    def _moments(self, params: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return mean and deviation, in a shape that spreads over the bottom."""
        mean, variance, factor = (param.detach() for param in params)
        known = factor != 0
        share = torch.where(known, 1 / torch.where(known, factor, 1), 0)
        shape = (-1, *(1,) * (len(self.setup.bottoms[0]) - 2))
        deviation = (variance * share + self.param.batch_norm_param.eps).sqrt()
        return (mean * share).reshape(shape), deviation.reshape(shape)

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute the top; see `Layer.forward`."""
        mean, deviation = self._moments(params)
        return ((bottoms[0] - mean) / deviation,)

    def forward_saving(
        self, bottoms: Sequence[Tensor], params: Sequence[Tensor]
    ) -> tuple[tuple[Tensor, ...], Saved]:
        """Compute the top; keep the deviation."""
        mean, deviation = self._moments(params)
        return ((bottoms[0] - mean).div_(deviation),), (deviation,)

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
        return [top_diffs[0] / saved[0]]


def batch_norm(setup: LayerSetup) -> Layer:
    """Make the BatchNorm layer (`src/caffe/layers/batch_norm_layer.cpp`).

    Its statistics are the kept averages in the phase TEST and the batch's own in TRAIN, unless
    ``use_global_stats`` says which.
    """
    settings = setup.param.batch_norm_param
    kept = setup.phase == TEST
    if settings.HasField("use_global_stats"):
        kept = settings.use_global_stats
    return _GlobalStatistics(setup) if kept else _BatchStatistics(setup)


class MVN(Layer):
    """Mean 0, and deviation 1 unless told not to (`src/caffe/layers/mvn_layer.cpp`).

    Per image and channel, or with ``across_channels`` per image. ``eps`` is added to the deviation,
    not to the variance.
    """

    keeps_top = True

    def __init__(self, setup: LayerSetup) -> None:
        super().__init__(setup)
        self._settings = setup.param.mvn_param
        self._axes = [1, 2, 3] if self._settings.across_channels else [2, 3]

    def _normalized(self, bottom: Tensor) -> tuple[Tensor, Tensor]:
        """Return the top, and what the bottom without its mean was divided by."""
        grid = bottom.reshape(self.setup.tops[0])
        centred = grid - grid.mean(self._axes, keepdim=True)
        if not self._settings.normalize_variance:
            return centred, torch.ones_like(centred[:, :1, :1, :1])
        variance = centred.square().mean(self._axes, keepdim=True)
        divisor = variance.detach().sqrt() + self._settings.eps
        # Caffe's gradient takes the divisor for the root of the variance, whatever eps is.
        following = divisor + (variance - variance.detach()) / (2 * divisor)
        return centred / following, divisor

    def forward(
        self,
        bottoms: Sequence[Tensor],
        params: Sequence[Tensor],
    ) -> tuple[Tensor, ...]:
        """Compute the top, of 4 axes; see `Layer.forward`."""
        return self._normalized(bottoms[0])[:1]

    def forward_saving(
        self,
        bottoms: Sequence[Tensor],
        params: Sequence[Tensor],
    ) -> tuple[tuple[Tensor, ...], Saved]:
        """Compute the top; keep it, and what the bottom was divided by."""
        top, divisor = self._normalized(bottoms[0])
        return (top,), (top, divisor)

    def backward(
        self,
        saved: Saved,
        top_diffs: Sequence[Tensor | None],
        propagate: Sequence[bool],
        param_diffs: Sequence[Tensor | None],
    ) -> list[Tensor | None]:
        """Return the bottom's gradient; see `Layer.backward`."""
        diff = top_diffs[0]
        if diff is None or not propagate[0]:
            return [None]
        top, divisor = saved
        if self._settings.normalize_variance:
            found = _gradient(top, diff, self._axes, divisor)
        else:
            found = diff - diff.mean(self._axes, keepdim=True)
        return [found.reshape(self.setup.bottoms[0])]


LAYERS: Mapping[str, Callable[[LayerSetup], Layer]] = {
    "BatchNorm": batch_norm,
    "LRN": lrn,
    "MVN": MVN,
}
