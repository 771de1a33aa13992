"""The settings and inputs that each type of layer without weights is tried with."""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from hypothesis import strategies as st

from tests.engines.torch.layer_case import (
    Case,
    Draw,
    draw_axis,
    draw_labels,
    draw_number,
    draw_shape,
    draw_values,
)

# Activations


@st.composite
def _plain(draw: Draw, kind: str) -> Case:
    in_place = kind in ("ReLU", "Sigmoid", "TanH") and draw(st.booleans())
    return Case(kind, [draw_values(draw, *draw_shape(draw)) * 3], in_place=in_place)


@st.composite
def _relu(draw: Draw) -> Case:
    slope = draw_number(draw, 0, 0, 0.125, 1.5, -0.5)
    in_place = slope >= 0 and draw(st.booleans())
    settings = f"relu_param {{ negative_slope: {slope} }}" if slope else ""
    return Case("ReLU", [draw_values(draw, *draw_shape(draw))], settings, in_place=in_place)


@st.composite
def _elu(draw: Draw) -> Case:
    alpha = draw_number(draw, 1, 0, 0.5, 2)
    return Case("ELU", [draw_values(draw, *draw_shape(draw))], f"elu_param {{ alpha: {alpha} }}")


@st.composite
def _swish(draw: Draw) -> Case:
    beta = draw_number(draw, 1, 0, 0.5, -2)
    return Case("Swish", [draw_values(draw, *draw_shape(draw))], f"swish_param {{ beta: {beta} }}")


@st.composite
def _threshold(draw: Draw) -> Case:
    threshold = draw_number(draw, 0, 0.5, -1)
    settings = f"threshold_param {{ threshold: {threshold} }}"
    return Case("Threshold", [draw_values(draw, *draw_shape(draw))], settings, gradients=(False,))


@st.composite
def _clip(draw: Draw) -> Case:
    low = draw_number(draw, -1, -0.5, 0)
    high = low + draw_number(draw, 0, 0.5, 1)
    settings = f"clip_param {{ min: {low} max: {high} }}"
    return Case("Clip", [draw_values(draw, *draw_shape(draw))], settings)


@st.composite
def _power(draw: Draw) -> Case:
    power = draw_number(draw, 0, 0.5, 1, 1, 2, 2.5, 3, -1)
    scale, shift = draw_number(draw, 0, 0.5, 1, 2), draw_number(draw, 0, 0.5, 1)
    values = draw_values(draw, *draw_shape(draw))
    if power not in (1, 2):  # at a base of 0 Caffe's gradient is NaN
        values = abs(values) + np.float32(0.25)
        shift = shift or (0 if power >= 0 else 0.5)
    settings = f"power_param {{ power: {power} scale: {scale} shift: {shift} }}"
    return Case("Power", [values], settings)


@st.composite
def _exp_or_log(draw: Draw, kind: str) -> Case:
    base, scale = draw_number(draw, -1, 0.5, 2, 10), draw_number(draw, 1, 0.5, 2)
    shift = draw_number(draw, 0, 0.5, 1)
    values = draw_values(draw, *draw_shape(draw))
    if kind == "Log":
        values = abs(values) + np.float32(0.25)
    settings = f"{kind.lower()}_param {{ base: {base} scale: {scale} shift: {shift} }}"
    return Case(kind, [values], settings)


# Shaping


@st.composite
def _concat(draw: Draw) -> Case:
    shape = draw_shape(draw)
    axis = draw_axis(draw, shape)
    bottoms = []
    for _ in range(draw(st.integers(1, 3))):
        extents = list(shape)
        extents[axis] = draw(st.integers(1, 3))
        bottoms.append(draw_values(draw, *extents))
    return Case("Concat", bottoms, f"concat_param {{ axis: {axis} }}")


@st.composite
def _slice(draw: Draw) -> Case:
    shape, counts = (
        list(draw_shape(draw)),
        draw(st.lists(st.integers(1, 3), min_size=2, max_size=3)),
    )
    axis = draw_axis(draw, tuple(shape))
    if draw(st.booleans()):
        counts = [counts[0]] * len(counts)
        points = ""
    else:
        points = " ".join(f"slice_point: {point}" for point in np.cumsum(counts)[:-1])
    shape[axis] = sum(counts)
    settings = f"slice_param {{ axis: {axis} {points} }}"
    return Case("Slice", [draw_values(draw, *shape)], settings, tops=len(counts))


@st.composite
def _split(draw: Draw) -> Case:
    return Case("Split", [draw_values(draw, *draw_shape(draw))], tops=draw(st.integers(1, 3)))


@st.composite
def _flatten(draw: Draw) -> Case:
    shape = draw_shape(draw)
    axes = sorted(draw(st.integers(0, len(shape) - 1)) for _ in range(2))
    settings = f"flatten_param {{ axis: {axes[0]} end_axis: {axes[1]} }}"
    return Case("Flatten", [draw_values(draw, *shape)], settings)


@st.composite
def _reshape(draw: Draw) -> Case:
    dims = draw(st.sampled_from(["dim: 0 dim: -1", "dim: -1", "dim: 0 dim: 2 dim: -1"]))
    settings = f"reshape_param {{ shape {{ {dims} }} }}"
    return Case("Reshape", [draw_values(draw, *draw_shape(draw, 2, 3), 2)], settings)


@st.composite
def _eltwise(draw: Draw) -> Case:
    shape, count = draw_shape(draw), draw(st.integers(2, 4))
    operation = draw(st.sampled_from(["SUM", "PROD", "MAX"]))
    coeffs = ""
    if operation == "SUM" and draw(st.booleans()):
        coeffs = " ".join(f"coeff: {draw_number(draw, 1, -1, 0.5, 0)}" for _ in range(count))
    settings = f"eltwise_param {{ operation: {operation} {coeffs} }}"
    return Case("Eltwise", [draw_values(draw, *shape) for _ in range(count)], settings)


@st.composite
def _silence(draw: Draw) -> Case:
    return Case("Silence", [draw_values(draw, 2), draw_values(draw, 3)], tops=0)


@st.composite
def _tile(draw: Draw) -> Case:
    shape = draw_shape(draw)
    settings = f"tile_param {{ axis: {draw_axis(draw, shape)} tiles: {draw(st.integers(1, 3))} }}"
    return Case("Tile", [draw_values(draw, *shape)], settings)


@st.composite
def _crop(draw: Draw) -> Case:
    bottom, axis = draw_shape(draw, 2), draw(st.integers(0, 1))
    like = tuple(draw(st.integers(1, extent)) for extent in bottom)
    room = [outer - inner for outer, inner in zip(bottom, like, strict=True)][axis:]
    if draw(st.booleans()):
        offsets = [draw(st.integers(0, most)) for most in room]
    else:
        offsets = [draw(st.integers(0, min(room)))]
    told = " ".join(f"offset: {offset}" for offset in offsets)
    bottoms = [draw_values(draw, *bottom), draw_values(draw, *like)]
    settings = f"crop_param {{ axis: {axis} {told} }}"
    return Case("Crop", bottoms, settings, gradients=(True, False))


@st.composite
def _reduction(draw: Draw) -> Case:
    shape = draw_shape(draw)
    operation = draw(st.sampled_from(["SUM", "ASUM", "SUMSQ", "MEAN"]))
    settings = (
        f"reduction_param {{ operation: {operation} axis: {draw_axis(draw, shape)} "
        f"coeff: {draw_number(draw, 1, -0.5, 2)} }}"
    )
    return Case("Reduction", [draw_values(draw, *shape)], settings)


@st.composite
def _arg_max(draw: Draw) -> Case:
    shape = draw_shape(draw, 2)
    axis = draw(st.none() | st.just(draw_axis(draw, shape)))
    most = int(np.prod(shape[1:])) if axis is None else shape[axis]
    settings = (
        f"argmax_param {{ top_k: {draw(st.integers(1, most))} "
        f"out_max_val: {str(draw(st.booleans())).lower()} "
        f"{'' if axis is None else f'axis: {axis}'} }}"
    )
    return Case("ArgMax", [draw_values(draw, *shape)], settings, gradients=(False,))


@st.composite
def _batch_reindex(draw: Draw) -> Case:
    shape = draw_shape(draw)
    picked = draw_labels(draw, shape[0], draw(st.integers(1, 5)))
    return Case("BatchReindex", [draw_values(draw, *shape), picked], gradients=(True, False))


@st.composite
def _filter(draw: Draw) -> Case:
    images, count = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    selector = draw_labels(draw, 3, images) - 1
    selector[draw(st.integers(0, images - 1))] = 1  # Caffe divides by how many pass
    selector.shape = (images, *(1,) * draw(st.integers(0, 2)))
    blobs = [draw_values(draw, images, *draw_shape(draw, 0, 3)) for _ in range(count)]
    gradients = (*(True,) * count, False)
    return Case("Filter", [*blobs, selector], tops=count, gradients=gradients)


@st.composite
def _parameter(draw: Draw) -> Case:
    values = draw_values(draw, *draw_shape(draw))
    dims = " ".join(f"dim: {extent}" for extent in values.shape)
    return Case("Parameter", [], f"parameter_param {{ shape {{ {dims} }} }}", params=[values])


@st.composite
def _dropout(draw: Draw) -> Case:
    ratio = draw_number(draw, 0.5, 0.25)
    settings = f"dropout_param {{ dropout_ratio: {ratio} }}"
    return Case(
        "Dropout", [draw_values(draw, *draw_shape(draw))], settings, in_place=draw(st.booleans())
    )


# Ends of a net


@st.composite
def _accuracy(draw: Draw) -> Case:
    shape = draw_shape(draw, 2)
    axis = draw(st.integers(1, len(shape) - 1))
    classes = shape[axis]
    labels = draw_labels(draw, classes, *shape[:axis], *shape[axis + 1 :])
    scores = draw_values(draw, *shape)
    if draw(st.booleans()):
        scores[scores > 1] = np.nan
    settings = (
        f"accuracy_param {{ axis: {axis} top_k: {draw(st.integers(1, classes))} "
        f"{draw(st.sampled_from(['', 'ignore_label: 0']))} }}"
    )
    tops = draw(st.integers(1, 2))
    return Case("Accuracy", [scores, labels], settings, tops, gradients=(False, False))


@st.composite
def _softmax(draw: Draw) -> Case:
    shape = draw_shape(draw)
    settings = f"softmax_param {{ axis: {draw_axis(draw, shape)} }}"
    return Case("Softmax", [draw_values(draw, *shape) * draw_number(draw, 1, 40)], settings)


def _loss_settings(draw: Draw, ignored: int, *, old: bool) -> str:
    modes = ["", *(f"normalization: {mode}" for mode in ("FULL", "VALID", "BATCH_SIZE", "NONE"))]
    if old:
        modes += ["normalize: true", "normalize: false"]
    label = draw(st.sampled_from(["", f"ignore_label: {ignored}"]))
    weight = draw(st.sampled_from(["", "loss_weight: 0.5"]))
    return f"loss_param {{ {label} {draw(st.sampled_from(modes))} }} {weight}"


@st.composite
def _softmax_loss(draw: Draw) -> Case:
    shape = draw_shape(draw, 2)
    axis = draw(st.integers(1, len(shape) - 1))
    labels = draw_labels(draw, shape[axis], *shape[:axis], *shape[axis + 1 :])
    settings = _loss_settings(draw, 1, old=True) + f" softmax_param {{ axis: {axis} }}"
    scores = draw_values(draw, *shape) * draw_number(draw, 1, 80)
    return Case("SoftmaxWithLoss", [scores, labels], settings, gradients=(True, False))


@st.composite
def _infogain(draw: Draw) -> Case:
    shape = draw_shape(draw, 2)
    axis = draw(st.integers(1, len(shape) - 1))
    labels = draw_labels(draw, shape[axis], *shape[:axis], *shape[axis + 1 :])
    settings = _loss_settings(draw, 1, old=False) + f" infogain_loss_param {{ axis: {axis} }}"
    scores = draw_values(draw, *shape) * draw_number(draw, 1, 40)
    bottoms = [scores, labels, draw_values(draw, 1, 1, shape[axis], shape[axis])]
    tops = draw(st.integers(1, 2))
    if tops == 2:  # with two tops Caffe wants the weights of both
        settings += " loss_weight: 0" if "loss_weight" in settings else " loss_weight: [1, 0]"
    return Case("InfogainLoss", bottoms, settings, tops, gradients=(True, False, False))


@st.composite
def _sigmoid_loss(draw: Draw) -> Case:
    shape = draw_shape(draw)
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    targets = random.choice(np.array([0, 0.25, 1, 2], np.float32), shape)
    settings = _loss_settings(draw, draw(st.integers(0, 2)), old=True)
    scores = draw_values(draw, *shape) * draw_number(draw, 1, 10)
    return Case("SigmoidCrossEntropyLoss", [scores, targets], settings, gradients=(True, False))


@st.composite
def _euclidean(draw: Draw) -> Case:
    shape = draw_shape(draw)
    bottoms = [draw_values(draw, *shape), draw_values(draw, *shape)]
    return Case("EuclideanLoss", bottoms, draw(st.sampled_from(["", "loss_weight: 0.5"])))


@st.composite
def _hinge(draw: Draw) -> Case:
    shape = draw_shape(draw, 2)
    labels = draw_labels(draw, int(np.prod(shape[1:])), shape[0])
    settings = draw(st.sampled_from(["", "hinge_loss_param { norm: L2 }"]))
    return Case("HingeLoss", [draw_values(draw, *shape), labels], settings, gradients=(True, False))


@st.composite
def _multinomial(draw: Draw) -> Case:
    images, classes = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    probabilities = abs(draw_values(draw, images, classes)) + np.float32(0.01)
    probabilities /= probabilities.sum(1, keepdims=True)
    bottoms = [probabilities, draw_labels(draw, classes, images)]
    return Case("MultinomialLogisticLoss", bottoms, gradients=(True, False))


@st.composite
def _contrastive(draw: Draw) -> Case:
    pairs, channels = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    settings = (
        f"contrastive_loss_param {{ margin: {draw_number(draw, 1, 3)} "
        f"legacy_version: {str(draw(st.booleans())).lower()} }}"
    )
    rows = [draw_values(draw, pairs, channels) for _ in range(2)]
    bottoms = [*rows, draw_labels(draw, 2, pairs)]
    return Case("ContrastiveLoss", bottoms, settings, gradients=(True, True, False))


CASES: Mapping[str, Callable[[], st.SearchStrategy[Case]]] = {
    **{kind: partial(_plain, kind) for kind in ("AbsVal", "BNLL", "Sigmoid", "TanH")},
    **{kind: partial(_exp_or_log, kind) for kind in ("Exp", "Log")},
    "Accuracy": _accuracy,
    "ArgMax": _arg_max,
    "BatchReindex": _batch_reindex,
    "Clip": _clip,
    "Concat": _concat,
    "ContrastiveLoss": _contrastive,
    "Crop": _crop,
    "Dropout": _dropout,
    "ELU": _elu,
    "Eltwise": _eltwise,
    "EuclideanLoss": _euclidean,
    "Filter": _filter,
    "Flatten": _flatten,
    "HingeLoss": _hinge,
    "InfogainLoss": _infogain,
    "MultinomialLogisticLoss": _multinomial,
    "Parameter": _parameter,
    "Power": _power,
    "ReLU": _relu,
    "Reduction": _reduction,
    "Reshape": _reshape,
    "SigmoidCrossEntropyLoss": _sigmoid_loss,
    "Silence": _silence,
    "Slice": _slice,
    "Softmax": _softmax,
    "SoftmaxWithLoss": _softmax_loss,
    "Split": _split,
    "Swish": _swish,
    "Threshold": _threshold,
    "Tile": _tile,
}
"""Per type, the settings and inputs that it is tried with."""
