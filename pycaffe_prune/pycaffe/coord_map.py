"""Where the pixels of one blob lie in another, and the Crop layer that lines both up.

A map of coordinates is (axis, scale, shift): the pixel at ``i`` of the one blob is at
``scale · i + shift`` of the other, from that axis on; the axis is None where a layer leaves every
pixel in its place. As BVLC's ``python/caffe/coord_map.py``, for layers of a NetSpec.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.errors import PruneError
from pycaffe_prune.pycaffe.net_spec import Function, Top
from pycaffe_prune.pycaffe.net_spec import layers as L  # noqa: N812 (NetSpec's own habit)

__all__ = [
    "PASS_THROUGH_LAYERS",
    "AxisMismatchException",
    "CropError",
    "UndefinedMapException",
    "UnrelatedTopsError",
    "compose",
    "conv_params",
    "coord_map",
    "coord_map_from_to",
    "crop",
    "crop_params",
    "inverse",
]

_Number = float | NDArray[Any]
CoordMap = tuple[int | None, _Number, _Number]

PASS_THROUGH_LAYERS = [
    "AbsVal",
    "BNLL",
    "BatchNorm",
    "Bias",
    "Dropout",
    "ELU",
    "Eltwise",
    "Exp",
    "LRN",
    "Log",
    "MVN",
    "PReLU",
    "Power",
    "ReLU",
    "Scale",
    "Sigmoid",
    "Split",
    "TanH",
    "Threshold",
]
"""The types of layers that leave every pixel in its place."""

_LEGACY = ("kernel_h", "kernel_w", "pad_h", "pad_w", "stride_h", "stride_w")


class UndefinedMapException(PruneError):  # noqa: N818 (pycaffe's name)
    """A layer of this type has no map of coordinates."""


class AxisMismatchException(PruneError):  # noqa: N818 (pycaffe's name)
    """Two layers map different axes."""


class CropError(PruneError, AssertionError):
    """One blob cannot be cropped to another, or a layer's fields do not tell where its pixels are.

    pycaffe asserts here.
    """


class UnrelatedTopsError(PruneError, RuntimeError):
    """Two blobs have no common origin through layers that map coordinates."""


def conv_params(fn: Function) -> tuple[int, NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return a layer's axis of channels, strides, extents of its kernel and pads.

    Raises:
        CropError: The layer has fields of the kind ``kernel_h``, or no kernel_size.
    """
    params = fn.params.get("convolution_param", fn.params)
    legacy = [name for name in _LEGACY if name in params or name in fn.params]
    if legacy:
        raise CropError(f"{fn.type_name}: no coordinates from {', '.join(legacy)}: use the lists")
    if "kernel_size" not in params:
        raise CropError(f"{fn.type_name}: no coordinates without kernel_size")
    kernel, stride, pad, dilation = (
        np.array(params.get(name, usual), ndmin=1)
        for name, usual in (("kernel_size", 1), ("stride", 1), ("pad", 0), ("dilation", 1))
    )
    return params.get("axis", 1), stride, (kernel - 1) * dilation + 1, pad


def crop_params(fn: Function) -> tuple[int, NDArray[Any]]:
    """Return a Crop layer's axis and offsets."""
    params = fn.params.get("crop_param", fn.params)
    return params.get("axis", 2), np.array(params.get("offset", 0), ndmin=1)


def coord_map(fn: Function) -> CoordMap:
    """Return where a layer puts the pixels of its bottom.

    Raises:
        UndefinedMapException: It puts them nowhere in particular.
    """
    if fn.type_name in PASS_THROUGH_LAYERS:
        return None, 1, 0
    if fn.type_name == "Crop":
        axis, offset = crop_params(fn)
        return axis - 1, 1, -offset
    if fn.type_name == "Deconvolution":
        axis, stride, extent, pad = conv_params(fn)
        return axis, stride, (extent - 1) / 2 - pad
    if fn.type_name in ("Convolution", "Pooling", "Im2col"):
        axis, stride, extent, pad = conv_params(fn)
        return axis, 1 / stride, (pad - (extent - 1) / 2) / stride
    raise UndefinedMapException(f"a layer of type {fn.type_name} has no map of coordinates")


def compose(base_map: CoordMap, next_map: CoordMap) -> CoordMap:
    """Return the map that ``next_map`` and then ``base_map`` make.

    Raises:
        AxisMismatchException: They begin at different axes.
    """
    base_axis, base_scale, base_shift = base_map
    next_axis, next_scale, next_shift = next_map
    if None not in (base_axis, next_axis) and base_axis != next_axis:
        raise AxisMismatchException(f"one layer maps axis {base_axis}, another {next_axis}")
    axis = next_axis if base_axis is None else base_axis
    return axis, base_scale * next_scale, base_scale * next_shift + base_shift


def inverse(coord_map: CoordMap) -> CoordMap:
    """Return the map back."""
    axis, scale, shift = coord_map
    return axis, 1 / scale, -shift / scale


def coord_map_from_to(top_from: Top, top_to: Top) -> CoordMap:
    """Return where the pixels of one blob lie in another, by their nearest common origin.

    Raises:
        UnrelatedTopsError: They have none.
        AxisMismatchException: Layers on the way map different axes.
    """
    from_maps = _maps_to_origins(top_from)
    for origin, to_map in _maps_to_origins(top_to).items():
        if origin in from_maps:
            return compose(to_map, inverse(from_maps[origin]))
    raise UnrelatedTopsError(
        f"no map of coordinates between tops of {top_from.fn.type_name} and "
        f"{top_to.fn.type_name}: no layers that map coordinates connect them"
    )


def _maps_to_origins(top: Top) -> dict[Top, CoordMap]:
    """Return the maps from every blob that a blob is made of to it, nearest first."""
    maps: dict[Top, CoordMap] = {top: (None, 1, 0)}
    waiting = deque([top])
    while waiting:
        current = waiting.popleft()
        bottoms = _mapped_bottoms(current.fn)
        try:
            step = coord_map(current.fn) if bottoms else None
        except UndefinedMapException:
            continue
        for bottom in bottoms:
            if step is not None and bottom not in maps:
                maps[bottom] = compose(maps[current], step)
                waiting.append(bottom)
    return maps


def _mapped_bottoms(fn: Function) -> Sequence[Top]:
    # A Crop's second bottom only tells how large the first shall be.
    return fn.inputs[:1] if fn.type_name == "Crop" else fn.inputs


def crop(top_from: Top, top_to: Top) -> Top:
    """Return a Crop layer that cuts one blob to the other, at the place where it lies in it.

    Raises:
        CropError: The blobs have pixels of different sizes, or the one does not reach over the
            other by whole pixels.
        UnrelatedTopsError: As `coord_map_from_to`.
        AxisMismatchException: As `coord_map_from_to`.
    """
    axis, scale, shift = coord_map_from_to(top_from, top_to)
    offset = -np.atleast_1d(shift)
    if (np.asarray(scale) != 1).any():
        raise CropError(f"scale mismatch on crop (a = {scale}): both need pixels of one size")
    if (offset < 0).any():
        raise CropError(f"cannot crop negative offset (b = {shift}): the first is too small")
    if (np.round(offset) != offset).any():
        raise CropError(f"cannot crop noninteger offset (b = {shift})")
    first = 2 if axis is None else axis + 1
    top: Top = L.Crop(
        top_from, top_to, crop_param={"axis": first, "offset": [int(pixel) for pixel in offset]}
    )
    return top
