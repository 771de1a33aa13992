"""What a net logs of its layers where ``debug_info`` asks for it (`src/caffe/net.cpp`).

Sizes of values and gradients: their mean without signs.
"""

import math
from collections.abc import Sequence

from torch import Tensor

from pycaffe_prune.pycaffe.blobs import Blob
from pycaffe_prune.pycaffe.glog import error, log, number
from pycaffe_prune.pycaffe.steps import Step

__all__ = ["log_backward", "log_forward", "log_totals"]


def log_forward(step: Step) -> None:
    """Log the tops and the blobs of a layer after its forward pass."""
    layer = step.param.name
    for name, top in zip(step.param.top, step.tops, strict=True):
        log(f"    [Forward] Layer {layer}, top blob {name} data: {_size(top._read())}")
    for index, blob in enumerate(step.blobs):
        name = _name_of(step, index)
        log(f"    [Forward] Layer {layer}, param blob {name} data: {_size(blob._read())}")


def log_backward(step: Step) -> None:
    """Log the gradients that a layer has computed in its backward pass."""
    layer = step.param.name
    bottoms = zip(step.param.bottom, step.bottoms, step.propagate, strict=True)
    for name, bottom, wanted in bottoms:
        if wanted:
            log(f"    [Backward] Layer {layer}, bottom blob {name} diff: {_size(_diff(bottom))}")
    for index, (blob, wanted) in enumerate(zip(step.blobs, step.learns, strict=True)):
        if wanted:
            log(f"    [Backward] Layer {layer}, param blob {index} diff: {_size(_diff(blob))}")


def log_totals(blobs: Sequence[Blob]) -> None:
    """Log the norms of all parameters and of their gradients, as an error: so does Caffe.

    Args:
        blobs: The parameters, each once.
    """
    sides = [blob._read() for blob in blobs], [_diff(blob) for blob in blobs]
    sums = [sum(float(each.abs().sum()) for each in side) for side in sides]
    norms = [math.sqrt(sum(float(each.square().sum()) for each in side)) for side in sides]
    error(
        f"    [Backward] All net params (data, diff): L1 norm = {_both(sums)}; "
        f"L2 norm = {_both(norms)}"
    )


def _both(values: Sequence[float]) -> str:
    return f"({', '.join(map(number, values))})"


def _name_of(step: Step, index: int) -> str:
    """What a layer's blob is called: the name by which it is shared, or its number."""
    told = step.param.param
    return told[index].name if index < len(told) and told[index].name else str(index)


def _diff(blob: Blob) -> Tensor:
    return blob._diff.read(blob._shape)


def _size(values: Tensor) -> str:
    return number(float(values.abs().sum() / values.numel()))
