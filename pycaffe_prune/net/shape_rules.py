"""One rule per layer type: the shapes of its tops and parameters from those of its bottoms."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.axes import Shape, canonical_axis, extents
from pycaffe_prune.formats.caffe_pb2 import EltwiseParameter, LayerParameter
from pycaffe_prune.net import (
    shape_layouts,
    shape_pyramid,
    shape_recurrent,
    shape_sources,
    shape_windows,
)

__all__ = ["RULES", "Inferred", "Rule"]


@dataclass(frozen=True)
class Inferred:
    """What a rule says; None = only the data can tell."""

    tops: Sequence[Shape | None]
    params: tuple[Shape, ...] = ()


@dataclass(frozen=True)
class Rule:
    """A layer type: its function, and how many bottoms Caffe allows."""

    infer: Callable[[LayerParameter, Sequence[Shape]], Inferred]
    least: int = 1
    most: int | None = 1


def _source(tops: Callable[[LayerParameter], Sequence[Shape | None]]) -> Rule:
    """The rule of a layer without bottoms."""
    return Rule(lambda param, _: Inferred(tops(param)), 0, 0)


def _layout(
    tops: Callable[[LayerParameter, Sequence[Shape]], list[Shape]],
    least: int = 1,
    most: int | None = 1,
) -> Rule:
    """The rule of a layer without weights that lays its bottoms' values out anew."""
    return Rule(lambda param, bottoms: Inferred(tops(param, bottoms)), least, most)


def _parameter(param: LayerParameter, _: Sequence[Shape]) -> Inferred:
    shape = tuple(param.parameter_param.shape.dim)
    return Inferred([shape], (shape,))


# Layers with weights


def _convolution(param: LayerParameter, bottoms: Sequence[Shape]) -> Inferred:
    return Inferred(*shape_windows.convolution(param, bottoms))


def _deconvolution(param: LayerParameter, bottoms: Sequence[Shape]) -> Inferred:
    return Inferred(*shape_windows.deconvolution(param, bottoms))


def _lstm(param: LayerParameter, bottoms: Sequence[Shape]) -> Inferred:
    return Inferred(*shape_recurrent.lstm(param, bottoms))


def _lstm_unit(_param: LayerParameter, bottoms: Sequence[Shape]) -> Inferred:
    return Inferred(*shape_recurrent.lstm_unit(bottoms))


def _rnn(param: LayerParameter, bottoms: Sequence[Shape]) -> Inferred:
    return Inferred(*shape_recurrent.rnn(param, bottoms))


def _inner_product(param: LayerParameter, bottoms: Sequence[Shape]) -> Inferred:
    settings, (bottom,) = param.inner_product_param, bottoms
    if not settings.num_output:
        raise SurgeryError("has no num_output; give it one above 0")
    axis = canonical_axis(bottom, settings.axis)
    outputs, inputs = settings.num_output, math.prod(bottom[axis:])
    weight = (inputs, outputs) if settings.transpose else (outputs, inputs)
    bias = ((outputs,),) if settings.bias_term else ()
    return Inferred([(*bottom[:axis], outputs)], (weight, *bias))


def _embed(param: LayerParameter, bottoms: Sequence[Shape]) -> Inferred:
    settings, (bottom,) = param.embed_param, bottoms
    bias = ((settings.num_output,),) if settings.bias_term else ()
    weight = (settings.input_dim, settings.num_output)
    return Inferred([(*bottom, settings.num_output)], (weight, *bias))


def _batch_norm(_: LayerParameter, bottoms: Sequence[Shape]) -> Inferred:
    (bottom,) = bottoms
    if len(bottom) < 2:
        raise SurgeryError(f"needs at least 2 axes; its bottom has shape {extents(bottom)}")
    channels = (bottom[1],)
    # mean, variance, and the factor that both are to be divided by
    return Inferred(bottoms, (channels, channels, (1,)))


def _prelu(param: LayerParameter, bottoms: Sequence[Shape]) -> Inferred:
    (bottom,) = bottoms
    if len(bottom) < 2:
        raise SurgeryError(f"needs at least 2 axes; its bottom has shape {extents(bottom)}")
    return Inferred(bottoms, ((),) if param.prelu_param.channel_shared else ((bottom[1],),))


def _covered(bottom: Shape, axis: int, axes: int) -> Shape:
    """The part of ``bottom`` that Scale's and Bias's own parameter covers."""
    first = canonical_axis(bottom, axis)
    if axes < -1 or first + axes > len(bottom):
        raise SurgeryError(
            f"num_axes {axes} from axis {axis} on does not fit the bottom's shape {extents(bottom)}"
        )
    return bottom[first:] if axes == -1 else bottom[first : first + axes]


def _second_bottom(bottoms: Sequence[Shape], axis: int) -> Shape:
    """The shape of the second bottom of Scale or Bias, which must be a part of the first's."""
    bottom, second = bottoms
    first = canonical_axis(bottom, axis) if second else 0
    if bottom[first : first + len(second)] != second:
        raise SurgeryError(
            f"its second bottom has shape {extents(second)}, which is not what its first, "
            f"{extents(bottom)}, has from axis {axis} on"
        )
    return second


def _scale(param: LayerParameter, bottoms: Sequence[Shape]) -> Inferred:
    settings = param.scale_param
    if len(bottoms) == 1:
        covered = _covered(bottoms[0], settings.axis, settings.num_axes)
        return Inferred(bottoms, (covered,) * (2 if settings.bias_term else 1))
    covered = _second_bottom(bottoms, settings.axis)
    return Inferred(bottoms[:1], (covered,) if settings.bias_term else ())


def _bias(param: LayerParameter, bottoms: Sequence[Shape]) -> Inferred:
    settings = param.bias_param
    if len(bottoms) == 1:
        return Inferred(bottoms, (_covered(bottoms[0], settings.axis, settings.num_axes),))
    _second_bottom(bottoms, settings.axis)
    return Inferred(bottoms[:1])


# Layers without weights


def _same(_: LayerParameter, bottoms: Sequence[Shape]) -> Inferred:
    return Inferred(bottoms)


def _pooling(param: LayerParameter, bottoms: Sequence[Shape]) -> Inferred:
    top = shape_windows.pooling(param, bottoms[0])
    return Inferred([top, top])  # the second: where each maximum was


def _lrn(param: LayerParameter, bottoms: Sequence[Shape]) -> Inferred:
    if len(bottoms[0]) != 4:
        raise SurgeryError(f"needs 4 axes; its bottom has shape {extents(bottoms[0])}")
    if param.lrn_param.local_size % 2 == 0:
        raise SurgeryError(f"its local_size {param.lrn_param.local_size} must be odd")
    return Inferred(bottoms)


def _mvn(_: LayerParameter, bottoms: Sequence[Shape]) -> Inferred:
    (bottom,) = bottoms
    if len(bottom) > 4:
        raise SurgeryError(f"takes at most 4 axes; its bottom has shape {extents(bottom)}")
    return Inferred([(*bottom, *(1,) * (4 - len(bottom)))])


def _require_equal(bottoms: Sequence[Shape]) -> None:
    for bottom in bottoms[1:]:
        if bottom != bottoms[0]:
            raise SurgeryError(
                f"its bottoms have shapes {extents(bottoms[0])} and {extents(bottom)}; "
                "they must be equal"
            )


def _eltwise(param: LayerParameter, bottoms: Sequence[Shape]) -> Inferred:
    coefficients = len(param.eltwise_param.coeff)
    if coefficients not in (0, len(bottoms)):
        raise SurgeryError(f"has {coefficients} coeff for {len(bottoms)} bottoms")
    if coefficients and param.eltwise_param.operation == EltwiseParameter.PROD:
        raise SurgeryError("has coeff for the operation PROD, which takes none; leave coeff out")
    _require_equal(bottoms)
    return Inferred(bottoms[:1])


def _split(param: LayerParameter, bottoms: Sequence[Shape]) -> Inferred:
    return Inferred(list(bottoms) * len(param.top))


# Ends of a net


def _require_labels(scores: Shape, labels: Shape, axis: int) -> int:
    """One label for each place of the scores; return the axis of the classes."""
    place = canonical_axis(scores, axis)
    wanted = math.prod(scores) // max(scores[place], 1)
    if math.prod(labels) != wanted:
        raise SurgeryError(
            f"its scores have shape {extents(scores)}, so {wanted} labels are needed; the labels "
            f"have shape {extents(labels)}"
        )
    return place


def _accuracy(param: LayerParameter, bottoms: Sequence[Shape]) -> Inferred:
    axis = _require_labels(bottoms[0], bottoms[1], param.accuracy_param.axis)
    return Inferred([(), (bottoms[0][axis],)])  # the second: accuracy per class


def _softmax_loss(param: LayerParameter, bottoms: Sequence[Shape]) -> Inferred:
    _require_labels(bottoms[0], bottoms[1], param.softmax_param.axis)
    return Inferred([(), bottoms[0]])


def _infogain_loss(_: LayerParameter, bottoms: Sequence[Shape]) -> Inferred:
    return Inferred([(), bottoms[0]])


def _loss(_: LayerParameter, bottoms: Sequence[Shape]) -> Inferred:
    first, second = bottoms[:2]
    if first[:1] != second[:1]:
        raise SurgeryError(
            f"its bottoms have shapes {extents(first)} and {extents(second)}; "
            "their first axes must be equal"
        )
    return Inferred([()])


def _nothing(_: LayerParameter, __: Sequence[Shape]) -> Inferred:
    return Inferred(())


_SAME = [
    "AbsVal",
    "BNLL",
    "Clip",
    "Dropout",
    "ELU",
    "Exp",
    "Log",
    "Power",
    "ReLU",
    "Sigmoid",
    "Softmax",
    "Swish",
    "TanH",
    "Threshold",
]

RULES: Mapping[str, Rule] = {
    **{name: Rule(_same) for name in _SAME},
    "Accuracy": Rule(_accuracy, 2, 2),
    "ArgMax": _layout(shape_layouts.arg_max),
    "BatchNorm": Rule(_batch_norm),
    "BatchReindex": _layout(shape_layouts.batch_reindex, 2, 2),
    "Bias": Rule(_bias, 1, 2),
    "Concat": _layout(shape_layouts.concat, 1, None),
    "ContrastiveLoss": Rule(_loss, 3, 3),
    "Convolution": Rule(_convolution, 1, None),
    "Crop": _layout(shape_layouts.crop, 2, 2),
    "Data": _source(shape_sources.database),
    "Deconvolution": Rule(_deconvolution, 1, None),
    "DummyData": _source(shape_sources.dummy_data),
    "Eltwise": Rule(_eltwise, 2, None),
    "Embed": Rule(_embed),
    "EuclideanLoss": Rule(_loss, 2, 2),
    "Filter": _layout(shape_layouts.filter_, 2, None),
    "Flatten": _layout(shape_layouts.flatten),
    "HDF5Data": _source(shape_sources.hdf5_data),
    "HDF5Output": Rule(_nothing, 2, 2),
    "HingeLoss": Rule(_loss, 2, 2),
    "Im2col": _layout(shape_windows.im2col),
    "ImageData": _source(shape_sources.image_data),
    "InfogainLoss": Rule(_infogain_loss, 2, 3),
    "InnerProduct": Rule(_inner_product),
    "Input": _source(shape_sources.input_),
    "LRN": Rule(_lrn),
    "LSTM": Rule(_lstm, 2, None),
    "LSTMUnit": Rule(_lstm_unit, 3, 3),
    "MVN": Rule(_mvn),
    "MemoryData": _source(shape_sources.memory_data),
    "MultinomialLogisticLoss": Rule(_loss, 2, 2),
    "PReLU": Rule(_prelu),
    "Parameter": Rule(_parameter, 0, 0),
    "Pooling": Rule(_pooling),
    "RNN": Rule(_rnn, 2, None),
    "Reduction": _layout(shape_layouts.reduction),
    "Reshape": _layout(shape_layouts.reshape),
    "SPP": _layout(shape_pyramid.pyramid),
    "Scale": Rule(_scale, 1, 2),
    "SigmoidCrossEntropyLoss": Rule(_loss, 2, 2),
    "Silence": Rule(_nothing, 1, None),
    "Slice": _layout(shape_layouts.slice_),
    "SoftmaxWithLoss": Rule(_softmax_loss, 2, 2),
    "Split": Rule(_split),
    "Tile": _layout(shape_layouts.tile),
    "WindowData": _source(shape_sources.window_data),
}
