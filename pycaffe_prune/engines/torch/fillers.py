"""Caffe's fillers: what blobs hold before anything is learnt."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.axes import extents
from pycaffe_prune.formats.caffe_pb2 import FillerParameter

__all__ = ["fill"]


def fill(blob: Tensor, filler: FillerParameter, generator: torch.Generator) -> None:
    """Fill a blob with values of the distribution that Caffe draws from.

    They are other numbers than Caffe draws from the same seed, whose generator is Boost's
    (`include/caffe/filler.hpp`, `src/caffe/util/math_functions.cpp`).

    Args:
        blob: float32, in its shape, on any device.
        filler: What to fill it with.
        generator: Of the CPU: the same values on every device. Only fillers that draw move it on.

    Raises:
        FormatError: The filler is not known, its numbers make no sense, or it does not fit the
            shape.
    """
    if filler.type not in _FILLERS:
        raise FormatError(
            f"the filler type '{filler.type}' is not known; use one of {', '.join(_FILLERS)}"
        )
    if filler.sparse != -1 and filler.type != "gaussian":
        raise FormatError(
            f"the filler '{filler.type}' has sparse: {filler.sparse}, which only 'gaussian' takes"
        )
    values = torch.empty(blob.shape)
    _FILLERS[filler.type](values, filler, generator)
    blob.copy_(values)


def _constant(values: Tensor, filler: FillerParameter, generator: torch.Generator) -> None:  # noqa: ARG001
    values.fill_(filler.value)


def _uniform(values: Tensor, filler: FillerParameter, generator: torch.Generator) -> None:
    if not filler.min <= filler.max:
        raise FormatError(
            f"the filler 'uniform' has min {filler.min:g} above max {filler.max:g}; swap them"
        )
    values.uniform_(filler.min, filler.max, generator=generator)


def _gaussian(values: Tensor, filler: FillerParameter, generator: torch.Generator) -> None:
    if not filler.std > 0:
        raise FormatError(f"the filler 'gaussian' has std {filler.std:g}; it must be above 0")
    values.normal_(filler.mean, filler.std, generator=generator)
    if filler.sparse < 0:
        return
    outputs = _extents_of(values, filler, 1)[0]
    if filler.sparse > outputs:
        raise FormatError(
            f"the filler 'gaussian' has sparse: {filler.sparse}, more than the {outputs} outputs "
            f"of a blob {extents(values.shape)}"
        )
    # On average so many inputs of each output's; Caffe draws each value's fate by itself.
    values *= torch.empty_like(values).bernoulli_(filler.sparse / outputs, generator=generator)


def _xavier(values: Tensor, filler: FillerParameter, generator: torch.Generator) -> None:
    bound = math.sqrt(3 / _fan(values, filler))
    values.uniform_(-bound, bound, generator=generator)


def _msra(values: Tensor, filler: FillerParameter, generator: torch.Generator) -> None:
    values.normal_(0, math.sqrt(2 / _fan(values, filler)), generator=generator)


def _fan(values: Tensor, filler: FillerParameter) -> float:
    """How many values count together; by axes, so a transposed InnerProduct has them swapped."""
    shape, count = _extents_of(values, filler, 1), values.numel()
    fan_in = count // shape[0]
    fan_out = count // shape[1] if len(shape) > 1 else count
    return {
        FillerParameter.FAN_IN: fan_in,
        FillerParameter.FAN_OUT: fan_out,
        FillerParameter.AVERAGE: (fan_in + fan_out) / 2,
    }[filler.variance_norm]


def _positive_unitball(values: Tensor, filler: FillerParameter, generator: torch.Generator) -> None:
    """Positive values that add up to 1 for each output."""
    outputs = _extents_of(values, filler, 1)[0]
    rows = values.uniform_(generator=generator).view(outputs, -1)
    rows /= rows.sum(dim=1, keepdim=True)


def _bilinear(values: Tensor, filler: FillerParameter, generator: torch.Generator) -> None:  # noqa: ARG001
    """The kernel that interpolates, in every channel: Deconvolution then scales images up."""
    shape = _extents_of(values, filler, 4)
    side = shape[-1]
    if len(shape) != 4 or shape[-2] != side:
        raise FormatError(
            f"the filler 'bilinear' needs a blob of four axes, the last two equal, not "
            f"{extents(values.shape)}"
        )
    factor = math.ceil(side / 2)
    centre = (side - 1) / (2 * factor)
    line = 1 - (torch.arange(side) / factor - centre).abs()
    values.copy_(line[:, None] * line)


def _extents_of(values: Tensor, filler: FillerParameter, axes: int) -> Sequence[int]:
    """The blob's shape, which the filler needs to have so many axes, and to hold values."""
    if values.dim() < axes or not values.numel():
        raise FormatError(
            f"the filler '{filler.type}' needs a blob with values and {axes} or more axes, not "
            f"{extents(values.shape)}"
        )
    return values.shape


_FILLERS: Mapping[str, Callable[[Tensor, FillerParameter, torch.Generator], None]] = {
    "constant": _constant,
    "uniform": _uniform,
    "gaussian": _gaussian,
    "xavier": _xavier,
    "msra": _msra,
    "positive_unitball": _positive_unitball,
    "bilinear": _bilinear,
}
