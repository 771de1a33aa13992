"""What Caffe aborts on when it sets a layer up, although the shapes around it could be told.

One function per layer type, after the `CHECK`s of `LayerSetUp` and `Reshape` in its file of
`src/caffe/layers`; those of any layer are in `Net::Init` of `src/caffe/net.cpp` and in
`include/caffe/layer.hpp`. What shapes depend on is refused by the rules of `net.shape_rules`.
"""

import math
from collections.abc import Callable, Mapping, Sequence

from google.protobuf.message import Message

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.axes import Shape, canonical_axis, extents
from pycaffe_prune.formats.caffe_pb2 import LayerParameter, PoolingParameter

__all__ = ["refuse_repeated_tops", "refuse_unbuildable"]

_Check = Callable[[LayerParameter, Sequence[Shape]], None]

_TOPLESS = frozenset({"HDF5Output", "Silence"})
_ONE_TOP_EACH = frozenset({"Convolution", "Deconvolution", "LSTM", "LSTMUnit", "RNN"})
"""All tops that the shapes' rule tells have to be there."""
_TWO_TOPS = frozenset({"ImageData", "MemoryData", "WindowData"})
_NOT_IN_PLACE = frozenset({"AbsVal", "Flatten", "Reshape", "Split"})


def refuse_unbuildable(
    layer: LayerParameter, bottoms: Sequence[Shape], tops: int, params: int
) -> None:
    """Refuse a layer that Caffe would not set up.

    Args:
        layer: Of one of Caffe's own types, in the V2 form.
        bottoms: The shapes of its bottoms.
        tops: How many tops the type makes of these at the most.
        params: How many blobs it has.

    Raises:
        SurgeryError: Caffe would abort; the sentence does not name the layer.
    """
    _check_counts(layer, tops, params)
    if layer.type in _NOT_IN_PLACE and layer.bottom[0] in layer.top:
        raise SurgeryError(f"writes over its bottom '{layer.bottom[0]}', which its type does not")
    if layer.type in _CHECKS:
        _CHECKS[layer.type](layer, bottoms)


def refuse_repeated_tops(layers: Sequence[LayerParameter]) -> None:
    """Refuse layers of which two make a blob of one name, other than in place (`Net::AppendTop`).

    Args:
        layers: Those of one state, in their order.

    Raises:
        SurgeryError: Caffe would abort; the sentence names both layers.
    """
    makers: dict[str, LayerParameter] = {}
    for layer in layers:
        for number, top in enumerate(layer.top):
            in_place = number < len(layer.bottom) and layer.bottom[number] == top
            if top in makers and not in_place:
                raise SurgeryError(
                    f"layer '{layer.name}' ({layer.type}): makes the blob '{top}', which layer "
                    f"'{makers[top].name}' makes already; give one of them another top, or rules "
                    "that leave one of them out"
                )
            makers[top] = layer


def _check_counts(layer: LayerParameter, tops: int, params: int) -> None:
    if len(layer.param) > params:
        raise SurgeryError(f"has {len(layer.param)} param for {_counted(params, 'blob')}")
    if len(layer.blobs) not in (0, params):
        raise SurgeryError(
            f"holds values of {_counted(len(layer.blobs), 'blob')}; it has "
            f"{_counted(params, 'blob')}"
        )
    if len(layer.propagate_down) not in (0, len(layer.bottom)):
        count = _counted(len(layer.bottom), "bottom")
        raise SurgeryError(f"has {len(layer.propagate_down)} propagate_down for {count}")
    made = len(layer.top)
    if layer.type.endswith("Loss"):
        made = max(made, 1)  # Caffe makes the one that is not named
    if len(layer.loss_weight) not in (0, made):
        raise SurgeryError(f"has {len(layer.loss_weight)} loss_weight for {_counted(made, 'top')}")
    least = _least_tops(layer.type, tops)
    if made < least:
        raise SurgeryError(f"has {_counted(made, 'top')}; its type takes {least}")


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _least_tops(kind: str, most: int) -> int:
    if kind in _ONE_TOP_EACH:
        return most
    return 0 if kind in _TOPLESS else 2 if kind in _TWO_TOPS else 1


# Windows


def _convolution(layer: LayerParameter, _: Sequence[Shape]) -> None:
    settings = layer.convolution_param
    for name, pair in (("kernel_size", "kernel"), ("stride", "stride"), ("pad", "pad")):
        if len(getattr(settings, name)) and _any_of_pair(settings, pair):
            raise SurgeryError(f"has both {name} and {pair}_h or {pair}_w; give one form")


def _any_of_pair(settings: Message, name: str) -> bool:
    return settings.HasField(f"{name}_h") or settings.HasField(f"{name}_w")


def _pooling(layer: LayerParameter, _: Sequence[Shape]) -> None:
    settings = layer.pooling_param
    if settings.global_pooling and (
        settings.HasField("kernel_size") or _any_of_pair(settings, "kernel")
    ):
        raise SurgeryError("has global_pooling and a kernel, which it takes no other of; leave one")
    for name, pair in (("kernel_size", "kernel"), ("stride", "stride"), ("pad", "pad")):
        if not _any_of_pair(settings, pair):
            continue
        if settings.HasField(name):
            raise SurgeryError(f"has both {name} and {pair}_h or {pair}_w; give one form")
        if not (settings.HasField(f"{pair}_h") and settings.HasField(f"{pair}_w")):
            raise SurgeryError(f"needs {pair}_h and {pair}_w together")
    _check_pool(layer, settings)


def _check_pool(layer: LayerParameter, settings: PoolingParameter) -> None:
    strides = (settings.stride, settings.stride_h or 1, settings.stride_w or 1)
    pads = (settings.pad, settings.pad_h, settings.pad_w)
    if settings.global_pooling and (any(pads) or strides != (1, 1, 1)):
        raise SurgeryError("has global_pooling, which takes no pad and no stride but 1")
    if settings.pool == PoolingParameter.STOCHASTIC and any(pads):
        raise SurgeryError("has pool: STOCHASTIC, which takes no pad")
    if settings.pool != PoolingParameter.MAX and len(layer.top) > 1:
        raise SurgeryError("has a second top, which pool: MAX alone makes")


# Weights


def _batch_norm(layer: LayerParameter, _: Sequence[Shape]) -> None:
    # With three Caffe sets them to 0 itself, on reading the file.
    if any(spec.lr_mult for spec in layer.param):
        raise SurgeryError(
            f"has {len(layer.param)} param with a lr_mult other than 0, but its blobs are "
            "statistics; write lr_mult: 0 or leave param out"
        )


def _embed(layer: LayerParameter, _: Sequence[Shape]) -> None:
    for name in ("num_output", "input_dim"):
        if not getattr(layer.embed_param, name):
            raise SurgeryError(f"has no {name}; give it one above 0")


# Shapes


def _one_form(settings: Message, old: str) -> None:
    if settings.HasField("axis") and settings.HasField(old):
        raise SurgeryError(f"has both axis and {old}, its old form; give one of them")


def _concat(layer: LayerParameter, _: Sequence[Shape]) -> None:
    _one_form(layer.concat_param, "concat_dim")


def _slice(layer: LayerParameter, _: Sequence[Shape]) -> None:
    _one_form(layer.slice_param, "slice_dim")


def _flatten(layer: LayerParameter, bottoms: Sequence[Shape]) -> None:
    settings = layer.flatten_param
    start, end = (canonical_axis(bottoms[0], at) for at in (settings.axis, settings.end_axis))
    if start > end + 1:
        raise SurgeryError(
            f"its end_axis {settings.end_axis} comes before its axis {settings.axis}"
        )


def _tile(layer: LayerParameter, _: Sequence[Shape]) -> None:
    if layer.tile_param.tiles < 1:
        raise SurgeryError("has no tiles; give it a number above 0")


def _batch_reindex(_: LayerParameter, bottoms: Sequence[Shape]) -> None:
    if len(bottoms[1]) != 1:
        raise SurgeryError(f"its indices have shape {extents(bottoms[1])}; they need 1 axis")


def _arg_max(layer: LayerParameter, bottoms: Sequence[Shape]) -> None:
    settings, (bottom,) = layer.argmax_param, bottoms
    values = math.prod(bottom[1:])
    if settings.HasField("axis"):
        values = bottom[canonical_axis(bottom, settings.axis)]
    if not 1 <= settings.top_k <= values:
        raise SurgeryError(f"its top_k {settings.top_k} is not within 1 and its {values} values")


# Functions


def _exp(layer: LayerParameter, _: Sequence[Shape]) -> None:
    _check_base(layer.exp_param.base)


def _log(layer: LayerParameter, _: Sequence[Shape]) -> None:
    _check_base(layer.log_param.base)
    if layer.log_param.base == 1:
        raise SurgeryError("its base is 1, to which there is no logarithm")


def _check_base(base: float) -> None:
    if base != -1 and not 0 < base < math.inf:
        raise SurgeryError(f"its base is {base:g}; give one above 0, or -1 for e")


# Ends


def _accuracy(layer: LayerParameter, bottoms: Sequence[Shape]) -> None:
    scores, labels = map(math.prod, bottoms)
    classes = scores // max(labels, 1)
    if layer.accuracy_param.top_k > classes:
        raise SurgeryError(f"its top_k {layer.accuracy_param.top_k} is above its {classes} classes")


def _euclidean_loss(_: LayerParameter, bottoms: Sequence[Shape]) -> None:
    _same_counts([math.prod(bottom[1:]) for bottom in bottoms], bottoms)


def _sigmoid_loss(_: LayerParameter, bottoms: Sequence[Shape]) -> None:
    _same_counts([math.prod(bottom) for bottom in bottoms], bottoms)


def _same_counts(counts: Sequence[int], bottoms: Sequence[Shape]) -> None:
    if counts[0] != counts[1]:
        shapes = " and ".join(map(extents, bottoms))
        raise SurgeryError(f"its bottoms have shapes {shapes}; they need equally many values")


def _contrastive_loss(_: LayerParameter, bottoms: Sequence[Shape]) -> None:
    pairs, labels = bottoms[:2], bottoms[2]
    _same_counts([math.prod(bottom[1:2]) for bottom in pairs], pairs)
    for bottom in pairs:
        if math.prod(bottom[2:]) != 1:
            raise SurgeryError(f"its bottom has shape {extents(bottom)}; only rows can be compared")
    _one_label_each(labels)


def _multinomial_loss(_: LayerParameter, bottoms: Sequence[Shape]) -> None:
    _one_label_each(bottoms[1])


def _one_label_each(labels: Shape) -> None:
    if math.prod(labels[1:]) != 1:
        raise SurgeryError(f"its labels have shape {extents(labels)}; one for each image is needed")


def _infogain_loss(layer: LayerParameter, bottoms: Sequence[Shape]) -> None:
    scores, labels = bottoms[:2]
    if layer.loss_param.HasField("normalize"):
        raise SurgeryError(
            "has normalize, an old form that its type does not take; use normalization"
        )
    classes = scores[canonical_axis(scores, layer.infogain_loss_param.axis)]
    if math.prod(labels) != math.prod(scores) // max(classes, 1) or labels[:1] != scores[:1]:
        raise SurgeryError(
            f"its labels have shape {extents(labels)}, not that of its scores, {extents(scores)}"
        )
    if len(bottoms) == 2 and not layer.infogain_loss_param.HasField("source"):
        raise SurgeryError("has no source of its matrix; give it one, or a third bottom")
    if len(bottoms) == 3 and math.prod(bottoms[2]) != classes**2:
        raise SurgeryError(
            f"its matrix has shape {extents(bottoms[2])}; {classes}x{classes} values are needed"
        )


# Data


def _dummy_data(layer: LayerParameter, _: Sequence[Shape]) -> None:
    settings = layer.dummy_data_param
    fillers = len(settings.data_filler)
    if fillers not in (0, 1, len(layer.top)):
        raise SurgeryError(f"has {fillers} data_filler for {_counted(len(layer.top), 'top')}")
    if settings.num and settings.shape:
        raise SurgeryError("has both shape and num, its old form; give one of them")
    if not settings.num and len(settings.shape) not in (1, len(layer.top)):
        count = _counted(len(layer.top), "top")
        raise SurgeryError(f"has {len(settings.shape)} shape for {count}; give one, or one each")


def _memory_data(layer: LayerParameter, _: Sequence[Shape]) -> None:
    for name in ("batch_size", "channels", "height", "width"):
        if not getattr(layer.memory_data_param, name):
            raise SurgeryError(f"has no {name}; give it one above 0")


def _image_data(layer: LayerParameter, _: Sequence[Shape]) -> None:
    settings = layer.image_data_param
    if bool(settings.new_height) != bool(settings.new_width):
        raise SurgeryError("needs new_height and new_width together, or none of them")


def _hdf5_data(layer: LayerParameter, _: Sequence[Shape]) -> None:
    if layer.HasField("transform_param"):
        raise SurgeryError("has a transform_param, but its type changes no data; take it out")


_CHECKS: Mapping[str, _Check] = {
    "Accuracy": _accuracy,
    "ArgMax": _arg_max,
    "BatchNorm": _batch_norm,
    "BatchReindex": _batch_reindex,
    "Concat": _concat,
    "ContrastiveLoss": _contrastive_loss,
    "Convolution": _convolution,
    "Deconvolution": _convolution,
    "DummyData": _dummy_data,
    "Embed": _embed,
    "EuclideanLoss": _euclidean_loss,
    "Exp": _exp,
    "Flatten": _flatten,
    "HDF5Data": _hdf5_data,
    "Im2col": _convolution,
    "ImageData": _image_data,
    "InfogainLoss": _infogain_loss,
    "Log": _log,
    "MemoryData": _memory_data,
    "MultinomialLogisticLoss": _multinomial_loss,
    "Pooling": _pooling,
    "SigmoidCrossEntropyLoss": _sigmoid_loss,
    "Slice": _slice,
    "Tile": _tile,
}
