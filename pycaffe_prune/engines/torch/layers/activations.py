"""Layers that map each value by itself: the neuron layers of Caffe.

Each has one bottom and one top of one shape, float32.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from pycaffe_prune.engines.torch.layers.base import Layer, LayerSetup, Saved

__all__ = [
    "BNLL",
    "ELU",
    "LAYERS",
    "AbsVal",
    "Clip",
    "Exp",
    "Log",
    "Power",
    "ReLU",
    "Sigmoid",
    "Swish",
    "TanH",
    "Threshold",
]

# The operators behind autograd's own backward passes: one call each.
_threshold_backward: Callable[[Tensor, Tensor, float], Tensor] = (
    torch.ops.aten.threshold_backward.default
)
_sigmoid_backward: Callable[[Tensor, Tensor], Tensor] = torch.ops.aten.sigmoid_backward.default
_tanh_backward: Callable[[Tensor, Tensor], Tensor] = torch.ops.aten.tanh_backward.default


class _FromTop(Layer):
    """An activation whose gradient its top tells, so that it may overwrite its bottom."""

    keeps_top = True

    @abstractmethod
    def overwrite(self, bottom: Tensor) -> Tensor:
        """Compute the top in the memory of the bottom."""

    @abstractmethod
    def gradient(self, top: Tensor, top_diff: Tensor) -> Tensor:
        """Return the gradient of the bottom."""

    def forward_saving(
        self, bottoms: Sequence[Tensor], params: Sequence[Tensor]
    ) -> tuple[tuple[Tensor, ...], Saved]:
        """Compute the top, in place where the net allows it, and keep it."""
        if self.in_place:
            tops: tuple[Tensor, ...] = (self.overwrite(bottoms[0]),)
        else:
            tops = self.forward(bottoms, params)
        return tops, tops

    def backward(
        self,
        saved: Saved,
        top_diffs: Sequence[Tensor | None],
        propagate: Sequence[bool],
        param_diffs: Sequence[Tensor | None],
    ) -> list[Tensor | None]:
        """Return the gradient of the bottom; see `Layer.backward`."""
        diff = top_diffs[0]
        if diff is None or not propagate[0]:
            return [None]
        return [self.gradient(saved[0], diff)]


class ReLU(_FromTop):
    """max(x, 0) + negative_slope · min(x, 0) (`src/caffe/layers/relu_layer.cpp`).

    The gradient at 0 is that of the negative side. A ``negative_slope`` below 0 declared in place
    has its right gradient here; Caffe takes the sign of the overwritten value.
    """

    def __init__(self, setup: LayerSetup) -> None:
        super().__init__(setup)
        self._slope = self.param.relu_param.negative_slope

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute the top."""
        if self._slope:
            return (functional.leaky_relu(bottoms[0], self._slope),)
        return (torch.relu(bottoms[0]),)

    def overwrite(self, bottom: Tensor) -> Tensor:
        """Compute the top in the memory of the bottom."""
        return torch.relu_(bottom)

    def gradient(self, top: Tensor, top_diff: Tensor) -> Tensor:
        """Return the gradient of the bottom."""
        return _threshold_backward(top_diff, top, 0)

    def forward_saving(
        self, bottoms: Sequence[Tensor], params: Sequence[Tensor]
    ) -> tuple[tuple[Tensor, ...], Saved]:
        """Compute the top, and keep what `backward` needs."""
        if self._slope:
            return Layer.forward_saving(self, bottoms, params)
        return super().forward_saving(bottoms, params)

    def backward(
        self,
        saved: Saved,
        top_diffs: Sequence[Tensor | None],
        propagate: Sequence[bool],
        param_diffs: Sequence[Tensor | None],
    ) -> list[Tensor | None]:
        """Return the gradient of the bottom; see `Layer.backward`."""
        if self._slope:
            return Layer.backward(self, saved, top_diffs, propagate, param_diffs)
        return super().backward(saved, top_diffs, propagate, param_diffs)


class Sigmoid(_FromTop):
    """1 / (1 + exp(-x)) (`src/caffe/layers/sigmoid_layer.cpp`)."""

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute the top."""
        return (torch.sigmoid(bottoms[0]),)

    def overwrite(self, bottom: Tensor) -> Tensor:
        """Compute the top in the memory of the bottom."""
        return torch.sigmoid_(bottom)

    def gradient(self, top: Tensor, top_diff: Tensor) -> Tensor:
        """Return the gradient of the bottom."""
        return _sigmoid_backward(top_diff, top)


class TanH(_FromTop):
    """tanh(x) (`src/caffe/layers/tanh_layer.cpp`)."""

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute the top."""
        return (torch.tanh(bottoms[0]),)

    def overwrite(self, bottom: Tensor) -> Tensor:
        """Compute the top in the memory of the bottom."""
        return torch.tanh_(bottom)

    def gradient(self, top: Tensor, top_diff: Tensor) -> Tensor:
        """Return the gradient of the bottom."""
        return _tanh_backward(top_diff, top)


class _Function(Layer):
    """An activation with autograd's gradient."""

    @abstractmethod
    def compute(self, bottom: Tensor) -> Tensor:
        """Compute the top in memory of its own."""

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute the top."""
        return (self.compute(bottoms[0]),)


class ELU(_Function):
    """x above 0, alpha · (exp(x) - 1) below (`src/caffe/layers/elu_layer.cpp`)."""

    def compute(self, bottom: Tensor) -> Tensor:
        """Compute the top."""
        return functional.elu(bottom, self.param.elu_param.alpha)


class Power(_Function):
    """(shift + scale · x)^power (`src/caffe/layers/power_layer.cpp`).

    Where the base is 0 and ``power`` neither 1 nor 2, Caffe's gradient is NaN (0 / 0); here it is
    the derivative.
    """

    def compute(self, bottom: Tensor) -> Tensor:
        """Compute the top."""
        settings = self.param.power_param
        if settings.power * settings.scale == 0:  # as in Caffe, even where the bottom is NaN
            return torch.full_like(bottom, _constant_power(settings.shift, settings.power))
        base = bottom * settings.scale + settings.shift
        return base if settings.power == 1 else base.pow(settings.power)


def _constant_power(base: float, power: float) -> float:
    """C's ``pow`` in float32."""
    return float(torch.tensor(base).pow(power)) if power else 1.0


class AbsVal(_Function):
    """|x|; the gradient at 0 is 0 (`src/caffe/layers/absval_layer.cpp`)."""

    def compute(self, bottom: Tensor) -> Tensor:
        """Compute the top."""
        return bottom.abs()


class Exp(_Function):
    """base^(shift + scale · x); base -1 stands for e (`src/caffe/layers/exp_layer.cpp`)."""

    keeps_top = True

    def __init__(self, setup: LayerSetup) -> None:
        super().__init__(setup)
        settings = self.param.exp_param
        log_base = _log_of_base(settings.base)
        self._inner, self._outer = log_base * settings.scale, math.exp(log_base * settings.shift)

    def compute(self, bottom: Tensor) -> Tensor:
        """Compute the top."""
        return (bottom * self._inner).exp() * self._outer


class Log(_Function):
    """log_base(shift + scale · x); base -1 stands for e (`src/caffe/layers/log_layer.cpp`)."""

    def compute(self, bottom: Tensor) -> Tensor:
        """Compute the top."""
        settings = self.param.log_param
        return (bottom * settings.scale + settings.shift).log() / _log_of_base(settings.base)


def _log_of_base(base: float) -> float:
    return 1.0 if base == -1 else math.log(base)


class BNLL(_Function):
    """log(1 + exp(x)) (`src/caffe/layers/bnll_layer.cpp`)."""

    def compute(self, bottom: Tensor) -> Tensor:
        """Compute the top."""
        return functional.softplus(bottom)


class Threshold(_Function):
    """1 above ``threshold``, else 0; no gradient (`src/caffe/layers/threshold_layer.cpp`)."""

    def compute(self, bottom: Tensor) -> Tensor:
        """Compute the top."""
        return (bottom > self.param.threshold_param.threshold).float()


class Clip(_Function):
    """x held between min and max; both have gradient 1 (`src/caffe/layers/clip_layer.cpp`)."""

    def compute(self, bottom: Tensor) -> Tensor:
        """Compute the top."""
        return bottom.clamp(self.param.clip_param.min, self.param.clip_param.max)


class Swish(_Function):
    """x · sigmoid(beta · x) (`src/caffe/layers/swish_layer.cpp`)."""

    def compute(self, bottom: Tensor) -> Tensor:
        """Compute the top."""
        return bottom * torch.sigmoid(bottom * self.param.swish_param.beta)


LAYERS: Mapping[str, type[Layer]] = {
    "AbsVal": AbsVal,
    "BNLL": BNLL,
    "Clip": Clip,
    "ELU": ELU,
    "Exp": Exp,
    "Log": Log,
    "Power": Power,
    "ReLU": ReLU,
    "Sigmoid": Sigmoid,
    "Swish": Swish,
    "TanH": TanH,
    "Threshold": Threshold,
}
"""Every activation by Caffe's name of its type."""
