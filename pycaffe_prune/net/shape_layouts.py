"""Shapes of layers that lay values out anew: side by side, apart, flattened, cut, repeated."""

import math
from collections.abc import Sequence
from itertools import pairwise

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.axes import Shape, canonical_axis, extents
from pycaffe_prune.formats.caffe_pb2 import LayerParameter

__all__ = [
    "arg_max",
    "batch_reindex",
    "concat",
    "crop",
    "filter_",
    "flatten",
    "reduction",
    "reshape",
    "slice_",
    "tile",
]


def concat(param: LayerParameter, bottoms: Sequence[Shape]) -> list[Shape]:
    """Add the extents along one axis (`concat_layer.cpp`).

    Raises:
        SurgeryError: The bottoms differ elsewhere too.
    """
    settings, first = param.concat_param, bottoms[0]
    old = settings.HasField("concat_dim")
    axis = canonical_axis(first, settings.concat_dim if old else settings.axis)
    for bottom in bottoms[1:]:
        if (*bottom[:axis], *bottom[axis + 1 :]) != (*first[:axis], *first[axis + 1 :]) or len(
            bottom
        ) != len(first):
            raise SurgeryError(
                f"its bottoms have shapes {extents(first)} and {extents(bottom)}; they may differ "
                f"in axis {axis} only"
            )
    total = sum(bottom[axis] for bottom in bottoms)
    return [(*first[:axis], total, *first[axis + 1 :])]


def slice_(param: LayerParameter, bottoms: Sequence[Shape]) -> list[Shape]:
    """Cut one axis into the tops (`slice_layer.cpp`).

    Raises:
        SurgeryError: The tops do not divide it.
    """
    settings, (bottom,) = param.slice_param, bottoms
    old = settings.HasField("slice_dim")
    axis = canonical_axis(bottom, settings.slice_dim if old else settings.axis)
    size, tops = bottom[axis], len(param.top)
    if settings.slice_point:
        bounds = [0, *settings.slice_point, size]
        counts = [end - start for start, end in pairwise(bounds)]
        if len(counts) != tops or min(counts) < 1:
            raise SurgeryError(
                f"its slice_point {list(settings.slice_point)} do not cut axis {axis} of "
                f"{extents(bottom)} into {tops} tops"
            )
    elif not tops or size % tops:
        raise SurgeryError(f"{tops} tops do not divide axis {axis} of {extents(bottom)} equally")
    else:
        counts = [size // tops] * tops
    return [(*bottom[:axis], count, *bottom[axis + 1 :]) for count in counts]


def flatten(param: LayerParameter, bottoms: Sequence[Shape]) -> list[Shape]:
    """Make one axis of several (`flatten_layer.cpp`).

    Raises:
        SurgeryError: The bottom has no such axes.
    """
    settings, (bottom,) = param.flatten_param, bottoms
    start = canonical_axis(bottom, settings.axis)
    end = canonical_axis(bottom, settings.end_axis) + 1
    return [(*bottom[:start], math.prod(bottom[start:end]), *bottom[end:])]


def reshape(param: LayerParameter, bottoms: Sequence[Shape]) -> list[Shape]:
    """Bring the values to another shape (`reshape_layer.cpp`).

    Raises:
        SurgeryError: It does not hold as many values, or its axes do not fit.
    """
    settings, (bottom,) = param.reshape_param, bottoms
    start = settings.axis if settings.axis >= 0 else len(bottom) + settings.axis + 1
    end = len(bottom) if settings.num_axes == -1 else start + settings.num_axes
    wanted = list(settings.shape.dim)
    copied = [start + place for place, extent in enumerate(wanted) if extent == 0]
    if not 0 <= start <= end <= len(bottom) or any(place >= len(bottom) for place in copied):
        raise SurgeryError(
            f"its axis {settings.axis} and num_axes {settings.num_axes} do not fit the bottom's "
            f"shape {extents(bottom)}"
        )
    for place in copied:
        wanted[place - start] = bottom[place]
    top = [*bottom[:start], *wanted, *bottom[end:]]
    count, told = math.prod(bottom), math.prod(extent for extent in top if extent != -1)
    if -1 in wanted and told and count % told == 0:
        top[top.index(-1)] = count // told
    if math.prod(top) != count or wanted.count(-1) > 1:
        raise SurgeryError(
            f"the bottom's shape {extents(bottom)} cannot be brought to {extents(top)}: the number "
            "of values must stay the same"
        )
    return [tuple(top)]


def crop(param: LayerParameter, bottoms: Sequence[Shape]) -> list[Shape]:
    """Cut the second bottom's size out of the first (`crop_layer.cpp`).

    Raises:
        SurgeryError: It does not fit in.
    """
    settings, (bottom, like) = param.crop_param, bottoms
    axis = canonical_axis(bottom, settings.axis)
    cut = len(bottom) - axis
    offsets = list(settings.offset) or [0]
    if len(offsets) == 1:
        offsets *= cut
    if (
        len(like) < len(bottom)
        or len(offsets) != cut
        or any(
            offset + inner > outer
            for offset, inner, outer in zip(offsets, like[axis:], bottom[axis:], strict=False)
        )
    ):
        raise SurgeryError(
            f"shape {extents(like)} with offset {offsets} from axis {axis} on cannot be cut out of "
            f"{extents(bottom)}"
        )
    return [(*bottom[:axis], *like[axis : len(bottom)])]


def filter_(param: LayerParameter, bottoms: Sequence[Shape]) -> list[Shape]:
    """Let images pass by the last bottom; the shapes are those with all of them, as set up.

    Raises:
        SurgeryError: There is not one number for each image (`filter_layer.cpp`).
    """
    selector = bottoms[-1]
    if math.prod(selector[1:]) != 1:
        raise SurgeryError(
            f"its selector, the last bottom, has shape {extents(selector)}; it needs one number "
            "for each image"
        )
    for bottom in bottoms[:-1]:
        if bottom[:1] != selector[:1]:
            raise SurgeryError(
                f"its bottom has shape {extents(bottom)}, its selector, the last one, "
                f"{extents(selector)}; their first axes must be equal"
            )
    if len(param.top) != len(bottoms) - 1:
        raise SurgeryError(
            f"has {len(param.top)} tops for {len(bottoms)} bottoms; it makes one of each but the "
            "last, its selector"
        )
    return list(bottoms[:-1])


def arg_max(param: LayerParameter, bottoms: Sequence[Shape]) -> list[Shape]:
    """Keep the places of the largest values (`argmax_layer.cpp`).

    Raises:
        SurgeryError: The bottom has no such axis.
    """
    settings, (bottom,) = param.argmax_param, bottoms
    if settings.HasField("axis"):
        axis = canonical_axis(bottom, settings.axis)
        return [(*bottom[:axis], settings.top_k, *bottom[axis + 1 :])]
    pair = 2 if settings.out_max_val else 1
    return [(bottom[0], pair, settings.top_k, *(1,) * (len(bottom) - 3))]


def reduction(param: LayerParameter, bottoms: Sequence[Shape]) -> list[Shape]:
    """Sum up all axes from one on (`reduction_layer.cpp`).

    Raises:
        SurgeryError: The bottom has no such axis.
    """
    (bottom,) = bottoms
    return [bottom[: canonical_axis(bottom, param.reduction_param.axis)]]


def tile(param: LayerParameter, bottoms: Sequence[Shape]) -> list[Shape]:
    """Repeat the values along one axis (`tile_layer.cpp`).

    Raises:
        SurgeryError: The bottom has no such axis.
    """
    settings, (bottom,) = param.tile_param, bottoms
    axis = canonical_axis(bottom, settings.axis)
    return [(*bottom[:axis], bottom[axis] * settings.tiles, *bottom[axis + 1 :])]


def batch_reindex(_: LayerParameter, bottoms: Sequence[Shape]) -> list[Shape]:
    """Pick images by their numbers (`batch_reindex_layer.cpp`)."""
    bottom, picked = bottoms
    return [(*picked[:1], *bottom[1:])]
