"""Shapes around the layer types that common forks of Caffe add, as each fork's layer reshapes.

The sources: SSD (weiliu89/caffe, branch ssd), Fast R-CNN (rbgirshick/caffe-fast-rcnn), SegNet
(alexgkendall/caffe-segnet), PSPNet (hszhao/PSPNet), NVIDIA (NVIDIA/caffe), Dynamic Network Surgery
(yiwenguo/Dynamic-Network-Surgery).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from google.protobuf.message import Message

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.axes import Shape, extents
from pycaffe_prune.formats.caffe_pb2 import LayerParameter
from pycaffe_prune.formats.forks import STOCK_TYPES, fork_part
from pycaffe_prune.net.fork_forms import has_own_scale, stock_form
from pycaffe_prune.net.shape_rules import RULES, Inferred, Rule

__all__ = ["is_fork_type", "shape_rule"]


def _four_axes(bottom: Shape) -> Shape:
    if len(bottom) != 4:
        raise SurgeryError(f"needs 4 axes; its bottom has shape {extents(bottom)}")
    return bottom


def _same(_: LayerParameter, bottoms: Sequence[Shape]) -> Inferred:
    return Inferred(bottoms[:1])


def _scalar(_: LayerParameter, __: Sequence[Shape]) -> Inferred:
    return Inferred([()])


def _told_by_data(param: LayerParameter, _: Sequence[Shape]) -> Inferred:
    return Inferred([None] * len(param.top))


def _permute(param: LayerParameter, bottoms: Sequence[Shape]) -> Inferred:
    (bottom,) = bottoms
    order = list(fork_part(param).permute_param.order)
    if len(set(order)) < len(order) or any(axis >= len(bottom) for axis in order):
        raise SurgeryError(f"its order {order} does not fit the bottom's shape {extents(bottom)}")
    order += [axis for axis in range(len(bottom)) if axis not in order]
    return Inferred([tuple(bottom[axis] for axis in order)])


def _normalize(param: LayerParameter, bottoms: Sequence[Shape]) -> Inferred:
    (bottom,) = bottoms
    if len(bottom) < 2:
        raise SurgeryError(f"needs at least 2 axes; its bottom has shape {extents(bottom)}")
    shared = fork_part(param).norm_param.channel_shared
    return Inferred(bottoms, ((),) if shared else ((bottom[1],),))


def _batch_norm(param: LayerParameter, bottoms: Sequence[Shape]) -> Inferred:
    stock = RULES["BatchNorm"].infer(param, bottoms)
    return Inferred(stock.tops, (*stock.params, *stock.params[:1] * 2))


def _bn(param: LayerParameter, bottoms: Sequence[Shape]) -> Inferred:
    channels = _four_axes(bottoms[0])[1]
    settings = fork_part(param).bn_param
    return Inferred(bottoms, ((1, channels, 1, 1),) * (4 if _is_pspnets(settings) else 2))


def _is_pspnets(settings: Message) -> bool:
    """Whether the settings of a BN are PSPNet's, which keeps statistics, or SegNet's."""
    names = {field.name for field, _ in settings.ListFields()}
    return bool(names & {"slope_filler", "bias_filler", "momentum", "eps", "frozen", "engine"})


def _upsample(param: LayerParameter, bottoms: Sequence[Shape]) -> Inferred:
    settings = fork_part(param).upsample_param
    batch, channels, height, width = _four_axes(bottoms[0])
    if len(bottoms) > 1 and bottoms[1] != bottoms[0]:
        raise SurgeryError(
            f"its bottoms have shapes {extents(bottoms[0])} and {extents(bottoms[1])}; they must "
            "be equal"
        )
    if settings.HasField("upsample_h") and settings.HasField("upsample_w"):
        return Inferred([(batch, channels, settings.upsample_h, settings.upsample_w)])
    rows, columns = settings.scale_h or settings.scale, settings.scale_w or settings.scale
    size = (height * rows - settings.pad_out_h, width * columns - settings.pad_out_w)
    return Inferred([(batch, channels, *size)])


def _interp(param: LayerParameter, bottoms: Sequence[Shape]) -> Inferred:
    settings = fork_part(param).interp_param
    batch, channels, *size = _four_axes(bottoms[0])
    size = [extent + settings.pad_beg + settings.pad_end for extent in size]
    shrinks, zooms = settings.HasField("shrink_factor"), settings.HasField("zoom_factor")
    if shrinks != zooms or not settings.HasField("height") or not settings.HasField("width"):
        if not shrinks and not zooms:
            raise SurgeryError("has neither height and width nor zoom_factor nor shrink_factor")
        if settings.shrink_factor < 1 or settings.zoom_factor < 1:
            raise SurgeryError("its zoom_factor and shrink_factor must be at least 1")
        size = [(extent - 1) // settings.shrink_factor + 1 for extent in size]
        size = [extent + (extent - 1) * (settings.zoom_factor - 1) for extent in size]
    else:
        size = [settings.height, settings.width]
    return Inferred([(batch, channels, *size)])


def _roi_pooling(param: LayerParameter, bottoms: Sequence[Shape]) -> Inferred:
    maps, regions = bottoms
    settings = fork_part(param).roi_pooling_param
    return Inferred([(regions[0], _four_axes(maps)[1], settings.pooled_h, settings.pooled_w)])


def _psroi_pooling(param: LayerParameter, bottoms: Sequence[Shape]) -> Inferred:
    settings = fork_part(param).psroi_pooling_param
    return Inferred([(bottoms[1][0], settings.output_dim, *(settings.group_size,) * 2)])


def _prior_box(param: LayerParameter, bottoms: Sequence[Shape]) -> Inferred:
    settings = fork_part(param).prior_box_param
    ratios = [1.0]
    for ratio in settings.aspect_ratio:
        if all(abs(ratio - known) >= 1e-6 for known in ratios):
            ratios += [ratio, 1 / ratio] if settings.flip and ratio else [ratio]
    boxes = len(ratios) * len(settings.min_size) + len(settings.max_size)
    places = math.prod(_four_axes(bottoms[0])[2:])
    return Inferred([(1, 2, places * boxes * 4)])


_TELLING = {"BN": "bn_param", "Upsample": "upsample_param"}
_RULES: Mapping[str, Rule] = {
    "BN": Rule(_bn),
    "DetectionEvaluate": Rule(_told_by_data, 2, 2),
    "DetectionOutput": Rule(_told_by_data, 3, 5),
    "Interp": Rule(_interp),
    "MultiBoxLoss": Rule(_scalar, 4, 4),
    "Normalize": Rule(_normalize),
    "PSROIPooling": Rule(_psroi_pooling, 2, 2),
    "Permute": Rule(_permute),
    "PriorBox": Rule(_prior_box, 2, 2),
    "ROIPooling": Rule(_roi_pooling, 2, 2),
    "ReLU6": Rule(_same),
    "ShuffleChannel": Rule(_same),
    "SmoothL1Loss": Rule(_scalar, 2, 4),
    "Upsample": Rule(_upsample, 1, 2),
}


def shape_rule(layer: LayerParameter) -> Rule | None:
    """Return the rule of the layer's type, Caffe's own or a fork's; None where none is known."""
    if has_own_scale(layer):
        return Rule(_batch_norm)
    # SegNet's and PSPNet's BN have other parameters, and forks' Upsample other defaults.
    told = _TELLING.get(layer.type)
    if told and not getattr(fork_part(layer), told).ListFields():
        return None
    if layer.type in _RULES:
        return _RULES[layer.type]
    stock = stock_form(layer)
    if stock is layer:
        return RULES.get(layer.type)
    rule = RULES[stock.type]
    return replace(rule, infer=lambda param, bottoms: rule.infer(stock_form(param), bottoms))


def is_fork_type(layer_type: str) -> bool:
    """Tell whether a layer type is one that forks add and that a rule is known for."""
    return layer_type in _RULES or layer_type in STOCK_TYPES
