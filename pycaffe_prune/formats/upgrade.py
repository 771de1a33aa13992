"""Old nets brought to today's form, as `src/caffe/util/upgrade_proto.cpp` does."""

import re
from collections.abc import Iterable

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.caffe_pb2 import (
    BlobShape,
    LayerParameter,
    NetParameter,
    SolverParameter,
    V1LayerParameter,
)
from pycaffe_prune.formats.carried import copy_unknown, own_fields
from pycaffe_prune.formats.upgrade_v0 import is_v0, upgrade_v0_net

__all__ = ["V1_TYPES", "upgrade_net", "upgrade_solver"]

# Where V1 data layers keep what today is the transform_param of any data layer.
_OLD_TRANSFORM = {
    V1LayerParameter.DATA: "data_param",
    V1LayerParameter.IMAGE_DATA: "image_data_param",
    V1LayerParameter.WINDOW_DATA: "window_data_param",
}

_SOLVER_TYPES = {
    "SGD": "SGD",
    "NESTEROV": "Nesterov",
    "ADAGRAD": "AdaGrad",
    "RMSPROP": "RMSProp",
    "ADADELTA": "AdaDelta",
    "ADAM": "Adam",
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

_FORK_TYPE = re.compile(r"type\s*:\s*(\w+)$")

# Names of forks' V1 types as the forks' own V2 layers are called; others keep their word.
_FORK_TYPES = {
    "BN": "BN",
    "L1_LOSS": "L1Loss",
    "NORMALIZE": "Normalize",
    "PERMUTE": "Permute",
    "PRELU": "PReLU",
    "ROI_POOLING": "ROIPooling",
    "SMOOTH_L1_LOSS": "SmoothL1Loss",
    "UPSAMPLE": "Upsample",
}


def _v1_type(value: int) -> str:
    """Today's type string of a V1 layer type (UpgradeV1LayerType)."""
    name = V1LayerParameter.LayerType.Name(value)
    return _IRREGULAR.get(name, "".join(word.capitalize() for word in name.split("_")))


V1_TYPES = frozenset(map(_v1_type, V1LayerParameter.LayerType.values()))
"""Today's names of the types of V1 layers."""


def _type_of(old: V1LayerParameter) -> str:
    if old.HasField("type"):
        return _v1_type(old.type)
    for carried in own_fields(old):
        if carried.name == "type" and (found := _FORK_TYPE.match(carried.text)):
            return _FORK_TYPES.get(found[1], found[1])
    raise FormatError(
        f"layer '{old.name}' has no type that Caffe knows among its V1 types; give it one of "
        'V1LayerParameter.LayerType in caffe.proto, or write it as layer { type: "…" }'
    )


def _upgrade_v1_layer(old: V1LayerParameter) -> LayerParameter:
    """The V2 form of a V1 layer (UpgradeV1LayerParameter, and the data layers' transforms)."""
    new = LayerParameter(type=_type_of(old))
    try:
        copy_unknown(old, new, but=("type",))
    except FormatError as error:
        raise FormatError(f"layer '{old.name}': {error}") from error
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
        if field.name in ("type", "param") or target is None:
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


def upgrade_net(net: NetParameter) -> NetParameter:
    """Return ``net`` in today's form: all that Caffe's UpgradeNetAsNeeded does, and in its order.

    V0 layers become V1 layers and these V2 layers, ``input`` fields an Input layer in front of
    all others (or nothing, when no dimensions stand beside them, as in old caffemodels), and the
    three statistics of a BatchNorm layer get ``lr_mult: 0`` and ``decay_mult: 0``. A net without
    old parts is returned as it is.

    Raises:
        FormatError: The net mixes forms, which Caffe refuses too; a type is unknown or missing; V0
            padding layers cannot be folded in; or inputs lack dimensions.
    """
    if net.layers and net.layer:
        raise FormatError("holds both 'layer' and 'layers'; Caffe reads only one of the two forms")
    if is_v0(net):
        net = upgrade_v0_net(net)
    if net.layers:
        net = _with_layers(net, [_upgrade_v1_layer(old) for old in net.layers])
    if net.input:
        net = _inputs_as_layer(net)
    if any(map(_has_three_specs, net.layer)):
        net = _with_layers(net, map(_with_fixed_statistics, net.layer))
    return net


def upgrade_solver(solver: SolverParameter) -> SolverParameter:
    """Return ``solver`` with ``type`` in place of the old ``solver_type`` (UpgradeSolverType).

    Raises:
        FormatError: It has both, which Caffe refuses too.
    """
    if not solver.HasField("solver_type"):
        return solver
    if solver.HasField("type"):
        raise FormatError(
            "holds both 'solver_type', the old form, and 'type'; Caffe takes one of them"
        )
    new = SolverParameter()
    new.CopyFrom(solver)
    new.type = _SOLVER_TYPES[SolverParameter.SolverType.Name(solver.solver_type)]
    new.ClearField("solver_type")
    return new


def _with_layers(net: NetParameter, layers: Iterable[LayerParameter]) -> NetParameter:
    new = NetParameter()
    new.CopyFrom(net)
    del new.layers[:]
    del new.layer[:]
    new.layer.extend(layers)
    return new


def _inputs_as_layer(net: NetParameter) -> NetParameter:
    """UpgradeNetInput: names and dimensions of the inputs become one Input layer."""
    new = _with_layers(net, [])
    for name in ("input", "input_dim", "input_shape"):
        new.ClearField(name)
    if net.input_dim or net.input_shape:
        dims = range(0, len(net.input_dim) - 3, 4)
        shapes = list(net.input_shape) or [BlobShape(dim=net.input_dim[i : i + 4]) for i in dims]
        if len(shapes) < len(net.input):
            raise FormatError(
                f"has {len(net.input)} inputs but dimensions of {len(shapes)}; each input needs an "
                "input_shape, or else four times input_dim"
            )
        layer = new.layer.add(name="input", type="Input", top=net.input)
        layer.input_param.shape.extend(shapes[: len(net.input)])
    new.layer.extend(net.layer)
    return new


def _has_three_specs(layer: LayerParameter) -> bool:
    return layer.type == "BatchNorm" and len(layer.param) == 3


def _with_fixed_statistics(layer: LayerParameter) -> LayerParameter:
    """UpgradeNetBatchNorm: mean, variance and their factor are no weights to be trained."""
    new = LayerParameter()
    new.CopyFrom(layer)
    for spec in new.param if _has_three_specs(new) else ():
        spec.lr_mult = spec.decay_mult = 0
    return new
