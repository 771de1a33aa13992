"""Gradients that Caffe's layers compute from their tops, as they are when the backward pass comes.

The engine's own layers may compute the same from their bottoms, which does not show what a script
has written into a top between the passes.
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from pycaffe_prune.formats.caffe_pb2 import LayerParameter

__all__ = ["FromTop", "from_top"]

FromTop = Callable[[LayerParameter, Tensor, Tensor, Tensor], Tensor]
"""Returns the gradient of the bottom; takes bottom, top and the gradient of the top. Where a layer
works in place, its bottom is its top."""


def _elu(param: LayerParameter, bottom: Tensor, top: Tensor, top_diff: Tensor) -> Tensor:
    """`src/caffe/layers/elu_layer.cpp`."""
    return top_diff * torch.where(bottom > 0, 1.0, param.elu_param.alpha + top)


def _exp(param: LayerParameter, _bottom: Tensor, top: Tensor, top_diff: Tensor) -> Tensor:
    """`src/caffe/layers/exp_layer.cpp`."""
    settings = param.exp_param
    log_base = 1.0 if settings.base == -1 else math.log(settings.base)
    return top * top_diff * (log_base * settings.scale)


def _relu(param: LayerParameter, bottom: Tensor, _top: Tensor, top_diff: Tensor) -> Tensor:
    """`src/caffe/layers/relu_layer.cpp`."""
    return top_diff * torch.where(bottom > 0, 1.0, param.relu_param.negative_slope)


_TYPES: Mapping[str, FromTop] = {"ELU": _elu, "Exp": _exp, "ReLU": _relu}


def from_top(param: LayerParameter) -> FromTop | None:
    """Return how a layer's gradient comes from what its blobs hold; None: as the engine has it.

    ReLU reads its bottom, which is its top where it works in place. With a negative slope in place
    Caffe takes the sign of the overwritten value, and the engine the right one.
    """
    in_place = list(param.bottom) == list(param.top)
    if in_place and param.type == "ReLU" and param.relu_param.negative_slope < 0:
        return None
    return _TYPES.get(param.type)
