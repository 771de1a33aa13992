"""Shapes of SPP: pools of a pyramid, whose tops are flattened side by side."""

import math
from collections.abc import Sequence

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.axes import Shape, extents
from pycaffe_prune.formats.caffe_pb2 import LayerParameter, PoolingParameter, SPPParameter
from pycaffe_prune.net.shape_windows import pooling

__all__ = ["draws_values", "levels", "pyramid"]


def draws_values(param: LayerParameter) -> bool:
    """Tell whether a layer pools values that are drawn by chance."""
    if param.type == "SPP":
        return bool(param.spp_param.pool == SPPParameter.STOCHASTIC)
    return param.type == "Pooling" and param.pooling_param.pool == PoolingParameter.STOCHASTIC


def levels(param: LayerParameter, bottom: Shape) -> list[tuple[LayerParameter, Shape]]:
    """Return the Pooling layers that an SPP layer is made of, each with the shape of its top.

    Level l cuts height and width into 2^l windows each (`SPPLayer::GetPoolingParam` of
    `src/caffe/layers/spp_layer.cpp`).

    Args:
        param: The SPP layer.
        bottom: N x C x H x W.

    Raises:
        SurgeryError: The bottom has other axes, or a level does not fit it.
    """
    settings = param.spp_param
    if len(bottom) != 4:
        raise SurgeryError(f"pools 4 axes (N x C x H x W); its bottom has shape {extents(bottom)}")
    if settings.pyramid_height < 1:
        raise SurgeryError("has no pyramid_height; give it one above 0")
    return [_level(param, bottom, number) for number in range(settings.pyramid_height)]


def _level(param: LayerParameter, bottom: Shape, number: int) -> tuple[LayerParameter, Shape]:
    level, bins = LayerParameter(name=param.name, type="Pooling"), 1 << min(number, 31)
    height, width = (math.ceil(extent / bins) for extent in bottom[2:])
    pads = [
        (kernel * bins - extent + 1) // 2
        for kernel, extent in zip((height, width), bottom[2:], strict=True)
    ]
    told = level.pooling_param
    told.pool = getattr(PoolingParameter, SPPParameter.PoolMethod.Name(param.spp_param.pool))
    if pads[0] >= height or pads[1] >= width:
        raise SurgeryError(
            f"its level {number} of {param.spp_param.pyramid_height} cuts {bins}x{bins} windows "
            f"out of its bottom {extents(bottom)}, where some would hold padding alone; make "
            "pyramid_height smaller"
        )
    if told.pool == PoolingParameter.STOCHASTIC and any(pads):
        raise SurgeryError(
            f"has pool: STOCHASTIC, which takes no padding, but its level {number} of {bins}x"
            f"{bins} windows needs some on its bottom {extents(bottom)}"
        )
    told.kernel_h, told.kernel_w = told.stride_h, told.stride_w = height, width
    told.pad_h, told.pad_w = pads
    return level, pooling(level, bottom)


def pyramid(param: LayerParameter, bottoms: Sequence[Shape]) -> list[Shape]:
    """Return the top: with one level that of its pool, else images x values of all levels.

    Raises:
        SurgeryError: As `levels`.
    """
    (bottom,) = bottoms
    pooled = [shape for _, shape in levels(param, bottom)]
    if len(pooled) == 1:
        return pooled
    return [(bottom[0], sum(math.prod(shape[1:]) for shape in pooled))]
