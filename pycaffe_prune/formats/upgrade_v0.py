"""Nets of 2013 (``layers { layer { … } }``) brought to the V1 form.

The source is `src/caffe/util/upgrade_proto.cpp`: UpgradeV0PaddingLayers, UpgradeV0LayerParameter.
"""

from collections.abc import Mapping
from typing import NamedTuple

from google.protobuf.message import Message

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.caffe_pb2 import NetParameter, V1LayerParameter
from pycaffe_prune.formats.carried import copy_unknown

__all__ = ["PADDING", "is_v0", "upgrade_v0_net"]

PADDING = "padding"
"""The type of V0 layers that pad; their work is done by the Convolution or Pooling after them."""


class _V0Type(NamedTuple):
    type: V1LayerParameter.LayerType
    place: str = ""
    """The parameter message that holds the fields below."""
    fields: Mapping[str, str] = {}
    """V0 name of each field and its name in that message."""


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


_FILLERS = _same("num_output", "weight_filler", "bias_filler") | {"biasterm": "bias_term"}
_WINDOW = _same("pad", "stride") | {"kernelsize": "kernel_size"}
_SOURCE = _same("source") | {"batchsize": "batch_size"}
_IMAGES = _same("rand_skip", "new_height", "new_width") | {"shuffle_images": "shuffle"}
_DETECTION = {
    "det_fg_threshold": "fg_threshold",
    "det_bg_threshold": "bg_threshold",
    "det_fg_fraction": "fg_fraction",
    "det_context_pad": "context_pad",
    "det_crop_mode": "crop_mode",
}
_V1 = V1LayerParameter
_TYPES = {
    "accuracy": _V0Type(_V1.ACCURACY),
    "bnll": _V0Type(_V1.BNLL),
    "concat": _V0Type(_V1.CONCAT, "concat_param", _same("concat_dim")),
    "conv": _V0Type(_V1.CONVOLUTION, "convolution_param", _FILLERS | _WINDOW | _same("group")),
    "data": _V0Type(_V1.DATA, "data_param", _SOURCE | _same("rand_skip")),
    "dropout": _V0Type(_V1.DROPOUT, "dropout_param", _same("dropout_ratio")),
    "euclidean_loss": _V0Type(_V1.EUCLIDEAN_LOSS),
    "flatten": _V0Type(_V1.FLATTEN),
    "hdf5_data": _V0Type(_V1.HDF5_DATA, "hdf5_data_param", _SOURCE),
    "hdf5_output": _V0Type(_V1.HDF5_OUTPUT),
    "im2col": _V0Type(_V1.IM2COL),
    "images": _V0Type(_V1.IMAGE_DATA, "image_data_param", _SOURCE | _IMAGES),
    "infogain_loss": _V0Type(_V1.INFOGAIN_LOSS, "infogain_loss_param", _same("source")),
    "innerproduct": _V0Type(_V1.INNER_PRODUCT, "inner_product_param", _FILLERS),
    "lrn": _V0Type(_V1.LRN, "lrn_param", _same("local_size", "alpha", "beta", "k")),
    "multinomial_logistic_loss": _V0Type(_V1.MULTINOMIAL_LOGISTIC_LOSS),
    "pool": _V0Type(_V1.POOLING, "pooling_param", _WINDOW | _same("pool")),
    "relu": _V0Type(_V1.RELU),
    "sigmoid": _V0Type(_V1.SIGMOID),
    "softmax": _V0Type(_V1.SOFTMAX),
    "softmax_loss": _V0Type(_V1.SOFTMAX_LOSS),
    "split": _V0Type(_V1.SPLIT),
    "tanh": _V0Type(_V1.TANH),
    "window_data": _V0Type(_V1.WINDOW_DATA, "window_data_param", _SOURCE | _DETECTION),
}
# Any type may have these: Caffe does not ask.
_TRANSFORM = _same("scale", "mirror") | {"meanfile": "mean_file", "cropsize": "crop_size"}


def is_v0(net: NetParameter) -> bool:
    """Tell whether ``net`` has layers of the V0 form.

    Raises:
        FormatError: It has V1 layers too, of which Caffe would drop name, type and parameters.
    """
    v1_layers = [layer for layer in net.layers if not layer.HasField("layer")]
    if v1_layers and len(v1_layers) < len(net.layers):
        raise FormatError(
            f"layer '{v1_layers[0].name}' has the V1 form among layers of the V0 form, which Caffe "
            "does not read; write all of them in one form"
        )
    return bool(net.layers) and not v1_layers


def upgrade_v0_net(net: NetParameter) -> NetParameter:
    """Return the V1 form of a net of V0 layers; its padding layers become the next layer's ``pad``.

    Fields that a layer's type does not know are dropped, as Caffe drops them (with a warning).

    Raises:
        FormatError: A type is unknown, a bottom blob comes from nowhere, or a padding layer leads
            to anything but a convolution or a pooling.
    """
    new = NetParameter(input=net.input, input_dim=net.input_dim)
    copy_unknown(net, new)
    if net.HasField("name"):
        new.name = net.name
    if net.HasField("force_backward"):
        new.force_backward = net.force_backward
    new.layers.extend(_upgrade_layer(layer) for layer in _without_padding(net))
    return new


def _without_padding(net: NetParameter) -> list[V1LayerParameter]:
    kept = []
    last_source: dict[str, V1LayerParameter | None] = dict.fromkeys(net.input)
    for old in net.layers:
        layer = V1LayerParameter()
        layer.CopyFrom(old)
        for index, blob in enumerate(old.bottom):
            if blob not in last_source:
                raise FormatError(
                    f"layer '{old.layer.name}': no layer or input before it makes its bottom "
                    f"blob '{blob}'"
                )
            source = last_source[blob]
            if source is not None and source.layer.type == PADDING:
                _require_foldable(source, old)
                layer.layer.pad = source.layer.pad
                layer.bottom[index] = source.bottom[0]
        if old.layer.type != PADDING:
            kept.append(layer)
        last_source.update(dict.fromkeys(old.top, old))
    return kept


def _require_foldable(padding: V1LayerParameter, layer: V1LayerParameter) -> None:
    single = [padding.bottom, padding.top, layer.bottom]
    if layer.layer.type not in ("conv", "pool") or any(len(blobs) != 1 for blobs in single):
        raise FormatError(
            f"the padding layer '{padding.layer.name}' cannot become the pad of layer "
            f"'{layer.layer.name}' of type '{layer.layer.type}': it must have one bottom and one "
            "top, and lead to a conv or pool layer that takes nothing else"
        )


def _upgrade_layer(old: V1LayerParameter) -> V1LayerParameter:
    """The V1 form of one layer (UpgradeV0LayerParameter)."""
    v0 = old.layer
    if v0.type not in _TYPES:
        known = ", ".join(_TYPES)
        raise FormatError(
            f"layer '{v0.name}' has the type '{v0.type}', which Caffe does not know among its V0 "
            f"types ({known})"
        )
    known_type = _TYPES[v0.type]
    new = V1LayerParameter(bottom=old.bottom, top=old.top, type=known_type.type)
    copy_unknown(old, new)
    copy_unknown(v0, new)
    if v0.HasField("name"):
        new.name = v0.name
    new.blobs.extend(v0.blobs)
    new.blobs_lr.extend(v0.blobs_lr)
    new.weight_decay.extend(v0.weight_decay)
    if known_type.place:
        _move(v0, known_type.fields, new, known_type.place)
    _move(v0, _TRANSFORM, new, "transform_param")
    if v0.type == "hdf5_output" and v0.HasField("hdf5_output_param"):
        new.hdf5_output_param.CopyFrom(v0.hdf5_output_param)
    return new


def _move(v0: Message, fields: Mapping[str, str], new: V1LayerParameter, place: str) -> None:
    for old_name, new_name in fields.items():
        if not v0.HasField(old_name):
            continue
        value = getattr(v0, old_name)
        parameters = getattr(new, place)
        if isinstance(value, Message):
            getattr(parameters, new_name).CopyFrom(value)
        elif hasattr(getattr(parameters, new_name), "append"):  # a window's sizes are lists today
            getattr(parameters, new_name).append(value)
        else:
            setattr(parameters, new_name, value)
