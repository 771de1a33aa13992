"""Old layer messages brought to today's form, as `src/caffe/util/upgrade_proto.cpp` does."""

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter, NetParameter, V1LayerParameter

__all__ = ["upgrade_v1_layer", "upgrade_v1_net", "v1_type"]

# Where V1 data layers keep what today is the transform_param of any data layer.
_OLD_TRANSFORM = {
    V1LayerParameter.DATA: "data_param",
    V1LayerParameter.IMAGE_DATA: "image_data_param",
    V1LayerParameter.WINDOW_DATA: "window_data_param",
}

# Names that are not the enum's words run together (INNER_PRODUCT becomes InnerProduct by rule).
_IRREGULAR = {
    "NONE": "",
    "ABSVAL": "AbsVal",
    "ARGMAX": "ArgMax",
    "BNLL": "BNLL",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "LRN": "LRN",
    "MVN": "MVN",
    "RELU": "ReLU",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "TANH": "TanH",
}


def v1_type(value: V1LayerParameter.LayerType) -> str:
    """Return today's type string of a V1 layer type."""
    name = V1LayerParameter.LayerType.Name(value)
    return _IRREGULAR.get(name, "".join(word.capitalize() for word in name.split("_")))


def upgrade_v1_layer(old: V1LayerParameter) -> LayerParameter:
    """Return the V2 form of a V1 layer without its blobs (type, param and all parameters).

    Raises:
        FormatError: The layer is an even older V0 layer (``layers { layer { … } }``), or its
            sharing mode has no parameter to belong to.
    """
    if old.HasField("layer"):
        raise FormatError(
            f"layer '{old.layer.name}' has the V0 form of 2013 (layers {{ layer {{ … }} }}); "
            "run Caffe's upgrade_net_proto_text or upgrade_net_proto_binary on it first"
        )
    new = LayerParameter()
    if old.HasField("type"):
        new.type = v1_type(old.type)
    specs = max(len(old.param), len(old.blob_share_mode), len(old.blobs_lr), len(old.weight_decay))
    params = [new.param.add() for _ in range(specs)]
    for spec, name in zip(params, old.param, strict=False):
        spec.name = name
    for spec, mode in zip(params, old.blob_share_mode, strict=False):
        spec.share_mode = mode  # type: ignore[assignment]  # two enums of one meaning and numbering
    for spec, lr_mult in zip(params, old.blobs_lr, strict=False):
        spec.lr_mult = lr_mult
    for spec, decay_mult in zip(params, old.weight_decay, strict=False):
        spec.decay_mult = decay_mult
    known = LayerParameter.DESCRIPTOR.fields_by_name
    for field, value in old.ListFields():
        target = known.get(field.name)
        if field.name in ("type", "param", "blobs") or target is None:
            continue
        if isinstance(getattr(new, field.name), (float, int, str, bool)):
            setattr(new, field.name, value)
        else:
            getattr(new, field.name).MergeFrom(value)
    _move_transform(new, _OLD_TRANSFORM.get(old.type))
    return new


def _move_transform(layer: LayerParameter, old_place: str | None) -> None:
    if old_place is None or not layer.HasField(old_place):
        return
    old = getattr(layer, old_place)
    for name in ("scale", "mean_file", "crop_size", "mirror"):
        if old.HasField(name):
            setattr(layer.transform_param, name, getattr(old, name))
            old.ClearField(name)


def upgrade_v1_net(net: NetParameter) -> NetParameter:
    """Return ``net`` with its V1 layers (field ``layers``) as V2 layers (field ``layer``).

    A net without V1 layers is returned as it is.

    Raises:
        FormatError: The net mixes both forms, which Caffe refuses too.
    """
    if not net.layers:
        return net
    if net.layer:
        raise FormatError("holds both 'layer' and 'layers'; Caffe reads only one of the two forms")
    new = NetParameter()
    new.CopyFrom(net)
    del new.layers[:]
    new.layer.extend(upgrade_v1_layer(old) for old in net.layers)
    return new
