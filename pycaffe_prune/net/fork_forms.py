"""Layers of forks as Caffe's own where one computes the same, and what is understood of them.

What a fork's field means for shapes and channels is told in `net.fork_rules`; a field that is not
understood leaves its layer's shapes unknown, and no unit is deleted through it.
"""

from collections.abc import Mapping
from typing import Any

from google.protobuf.message import Message

from pycaffe_prune.formats.caffe_pb2 import LayerParameter, PoolingParameter
from pycaffe_prune.formats.carried import CarriedField, carried_fields
from pycaffe_prune.formats.forks import STOCK_TYPES, fork_part, is_known

__all__ = ["has_own_scale", "is_named", "is_understood", "open_fields", "stock_form"]

# How a layer computes, with what precision, or what its loss weighs: no shape depends on these.
_WITHOUT_SHAPE = frozenset(
    {
        "backward_math", "backward_type", "batch_norm_param.engine", "convolution_param.engine",
        "convolution_param.conv_algos_override", "cudnn_math_override", "debug",
        "convolution_param.conv_algorithm", "engine", "quantization_param",
        "convolution_param.cudnn_convolution_algo_seeker", "dropout_param.sample_weights_test",
        "dropout_param.scale_train",
        "forward_math", "forward_type", "loss_param.class_weighting",
        "loss_param.weight_by_label_freqs", "lrn_param.engine", "pooling_param.engine",
        "relu_param.engine", "softmax_param.engine",
    }
)  # fmt: skip

# What the rules of a type read, by the type.
_READ: Mapping[str, frozenset[str]] = {
    "BN": frozenset({"bn_param"}),
    "BatchNorm": frozenset(
        f"batch_norm_param.{name}" for name in ("bias_filler", "scale_bias", "scale_filler")
    ),
    "CConvolution": frozenset({"cconvolution_param"}),
    "CInnerProduct": frozenset({"cinner_product_param"}),
    "DetectionOutput": frozenset({"detection_output_param"}),
    "Interp": frozenset({"interp_param"}),
    "Normalize": frozenset({"norm_param"}),
    "PSROIPooling": frozenset({"psroi_pooling_param"}),
    "Permute": frozenset({"permute_param"}),
    "Pooling": frozenset({"pooling_param.ceil_mode"}),
    "PriorBox": frozenset({"prior_box_param"}),
    "ROIPooling": frozenset({"roi_pooling_param"}),
    "ShuffleChannel": frozenset({"shuffle_channel_param"}),
    "SmoothL1Loss": frozenset({"smooth_l1_loss_param"}),
    "Upsample": frozenset({"upsample_param"}),
}

# Ends of a net, whose settings no shape depends on, whatever they are.
_OF_ENDS = {
    ("DetectionEvaluate", "detection_evaluate_param"),
    ("MultiBoxLoss", "multibox_loss_param"),
}


def open_fields(layer: LayerParameter) -> list[CarriedField]:
    """Return what ``layer`` carries that is not understood, so that its shapes are not known."""
    return [field for field in carried_fields(layer) if not is_understood(layer, field)]


def is_understood(layer: LayerParameter, field: CarriedField) -> bool:
    """Tell whether the rules of `net.fork_shapes` take account of ``field`` or need not."""
    if field.full_name in _WITHOUT_SHAPE or (layer.type, field.name) in _OF_ENDS:
        return bool(field.text)
    if field.full_name not in _READ.get(layer.type, ()):
        return False
    return is_named(layer, field)


def is_named(layer: LayerParameter, field: CarriedField) -> bool:
    """Tell whether ``field``, carried anywhere in ``layer``, is in the schema of a known fork."""
    message: Any = layer
    for name in field.place.split(".")[:-1]:
        message = getattr(message, name)
        if not isinstance(message, Message):  # a repeated one: which, the field does not tell
            return False
    return is_known(message, field)


def stock_form(layer: LayerParameter) -> LayerParameter:
    """Return the layer as one of Caffe's own types where that computes the same.

    A Pooling's ``ceil_mode`` is Caffe's ``round_mode``; a depthwise Convolution has as many groups
    as outputs; the layers of Dynamic Network Surgery are Caffe's with masks in more blobs. Any
    other layer is returned itself.
    """
    kind = STOCK_TYPES.get(layer.type)
    if layer.type == "Pooling":
        part = fork_part(layer.pooling_param)
        if not part.HasField("ceil_mode"):
            return layer
    elif kind is None:
        return layer
    new = LayerParameter()
    new.CopyFrom(layer)
    if layer.type == "Pooling":
        new.pooling_param.ClearField("round_mode")  # CEIL
        if not part.ceil_mode:
            new.pooling_param.round_mode = PoolingParameter.FLOOR
    elif kind is not None:
        new.type = kind
    if layer.type == "ConvolutionDepthwise":
        new.convolution_param.group = layer.convolution_param.num_output
    return new


def has_own_scale(layer: LayerParameter) -> bool:
    """Tell whether a BatchNorm holds scale and bias too, as NVIDIA's may (two more blobs)."""
    if layer.type != "BatchNorm":
        return False
    part = fork_part(layer.batch_norm_param)
    fillers = part.HasField("scale_filler") or part.HasField("bias_filler")
    return bool(part.scale_bias or fillers)
