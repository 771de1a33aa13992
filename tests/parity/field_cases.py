"""Pairs of settings of a layer that differ in one field, by the field: the outputs differ too."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from google.protobuf import text_format
from numpy.typing import NDArray

from pycaffe_prune.formats.caffe_pb2 import TEST, TRAIN, LayerParameter

Array = NDArray[np.float32]

ROWS, IMAGE = (3, 4), (2, 4, 6, 7)
LABELS = np.array([1, 0, 3], np.float32)
CLASSES = np.array([1, 0], np.float32)
SEQUENCE, MARKS = (3, 1, 4), np.array([[1], [1], [0]], np.float32)
"""Three steps of one stream, and where they go on."""


@dataclass(frozen=True)
class Twins:
    """Two settings of a layer, and what it reads."""

    kind: str
    bottoms: Sequence[tuple[int, ...] | Array]
    """Shapes to be filled with numbers, or the numbers."""
    settings: tuple[str, str]
    tops: int = 1
    phase: int = TEST
    filled: bool = False
    """Whether the fillers' values stay; others take their place otherwise."""

    def layers(self) -> list[LayerParameter]:
        return [self._layer(text) for text in self.settings]

    def _layer(self, text: str) -> LayerParameter:
        layer = LayerParameter(
            name="x",
            type=self.kind,
            bottom=[f"b{number}" for number in range(len(self.bottoms))],
            top=[f"t{number}" for number in range(self.tops)],
            propagate_down=[False] * len(self.bottoms),  # nothing is asked of its backward pass
        )
        return text_format.Parse(text, layer)

    def arrays(self) -> list[Array]:
        random = np.random.default_rng(5)
        return [
            random.normal(0.5, 1, each).astype(np.float32) if isinstance(each, tuple) else each
            for each in self.bottoms
        ]


def twins(
    kind: str, bottoms: Sequence[tuple[int, ...] | Array], form: str, one: str, other: str
) -> Twins:
    """Settings of one form, ``%s`` in which stands for what differs."""
    return Twins(kind, bottoms, (form % one, form % other))


def _convolutions(kind: str) -> dict[str, Twins]:
    form = "convolution_param { num_output: 4 %s }"
    square = "convolution_param { num_output: 4 kernel_size: 3 %s }"
    found = {
        "num_output": twins(
            kind,
            [IMAGE],
            "convolution_param { kernel_size: 3 %s }",
            "num_output: 2",
            "num_output: 3",
        ),
        "bias_term": twins(kind, [IMAGE], square, "", "bias_term: false"),
        "group": twins(kind, [IMAGE], square, "", "group: 2"),
        "axis": twins(
            kind, [(1, 2, 2, 6, 7)], form, "axis: 1 kernel_size: 2", "axis: 2 kernel_size: 2"
        ),
        "kernel_size": twins(kind, [IMAGE], form, "kernel_size: 2", "kernel_size: 3"),
        "dilation": twins(kind, [IMAGE], square, "", "dilation: 2"),
    }
    for name in ("stride", "pad"):
        found[name] = twins(kind, [IMAGE], square, f"{name}: 1", f"{name}: 2")
    for side, rest in (("h", "w"), ("w", "h")):
        for name in ("kernel", "stride", "pad"):
            base = (
                f"{name}_{rest}: 2 {name}_{side}: %d {'' if name == 'kernel' else 'kernel_size: 3'}"
            )
            found[f"{name}_{side}"] = twins(kind, [IMAGE], form, base % 1, base % 3)
    return found


def _poolings() -> dict[str, Twins]:
    form, square = "pooling_param { %s }", "pooling_param { kernel_size: 4 %s }"
    found = {
        "kernel_size": twins("Pooling", [IMAGE], form, "kernel_size: 2", "kernel_size: 3"),
        "stride": twins("Pooling", [IMAGE], square, "", "stride: 2"),
        "pad": twins("Pooling", [IMAGE], square, "", "pad: 1"),
        "global_pooling": twins("Pooling", [IMAGE], form, "kernel_size: 2", "global_pooling: true"),
        "pool": twins("Pooling", [IMAGE], square, "", "pool: AVE"),
        "round_mode": twins("Pooling", [IMAGE], square, "stride: 2", "stride: 2 round_mode: FLOOR"),
    }
    for side, rest in (("h", "w"), ("w", "h")):
        for name, values in (("kernel", (3, 2)), ("stride", (1, 2)), ("pad", (0, 1))):
            base = (
                f"{name}_{rest}: 2 {name}_{side}: %d {'' if name == 'kernel' else 'kernel_size: 3'}"
            )
            found[f"{name}_{side}"] = twins(
                "Pooling", [IMAGE], form, *(base % each for each in values)
            )
    return found


def _filler(kind: str, bottoms: Sequence[tuple[int, ...] | Array], form: str, name: str) -> Twins:
    texts = (form % f"{name} {{ value: {value} }}" for value in (0.5, 2))
    return Twins(kind, bottoms, (next(texts), next(texts)), filled=True)


def _fillers() -> dict[str, Twins]:
    weighted = "{ num_output: 2 weight_filler { value: 1 } %s }"
    found = {}
    for kind, name, bottom, more in (
        ("Convolution", "convolution", IMAGE, "kernel_size: 2"),
        ("InnerProduct", "inner_product", ROWS, ""),
        ("Embed", "embed", CLASSES, "input_dim: 3"),
    ):
        message = f"{kind}Parameter"
        plain = f"{name}_param {{ num_output: 2 {more} %s }}"
        found[f"{message}.weight_filler"] = _filler(kind, [bottom], plain, "weight_filler")
        biased = f"{name}_param {weighted.replace('%s', more + ' %s')}"
        found[f"{message}.bias_filler"] = _filler(kind, [bottom], biased, "bias_filler")
    for kind, note in (("LSTM", ""), ("RNN", " (RNN)")):
        for name, more in (("weight_filler", ""), ("bias_filler", "weight_filler { value: 0.1 }")):
            plain = f"recurrent_param {{ num_output: 2 {more} %s }}"
            found[f"RecurrentParameter.{name}{note}"] = _filler(
                kind, [SEQUENCE, MARKS], plain, name
            )
    found["ScaleParameter.filler"] = _filler("Scale", [ROWS], "scale_param { %s }", "filler")
    biased = "scale_param { bias_term: true %s }"
    found["ScaleParameter.bias_filler"] = _filler("Scale", [ROWS], biased, "bias_filler")
    found["BiasParameter.filler"] = _filler("Bias", [ROWS], "bias_param { %s }", "filler")
    found["PReLUParameter.filler"] = _filler("PReLU", [IMAGE], "prelu_param { %s }", "filler")
    return found


def _numbers() -> dict[str, Twins]:
    """Layers that take each value by itself, all fields of which are numbers."""
    positive = np.linspace(0.1, 3, 12, dtype=np.float32).reshape(ROWS)
    found = {}
    for kind, message, names in (
        ("ReLU", "relu", "negative_slope"),
        ("ELU", "elu", "alpha"),
        ("Swish", "swish", "beta"),
        ("Clip", "clip", "min max"),
        ("Threshold", "threshold", "threshold"),
        ("Power", "power", "power scale shift"),
        ("Exp", "exp", "base scale shift"),
        ("Log", "log", "base scale shift"),
    ):
        for name in names.split():
            rest = "min: -0.2 max: 0.9" if kind == "Clip" else ""
            told = [
                f"{message}_param {{ {_but(rest, name)} {name}: {value} }}" for value in (0.3, 0.7)
            ]
            bottom = positive if kind in ("Log", "Power") else ROWS
            found[f"{kind}Parameter.{name}"] = Twins(kind, [bottom], (told[0], told[1]))
    return found


def _but(settings: str, name: str) -> str:
    """Settings without one of them."""
    pairs = settings.split()
    kept = [f"{key} {value}" for key, value in zip(pairs[::2], pairs[1::2], strict=True)]
    return " ".join(pair for pair in kept if not pair.startswith(name))


def _of(message: str, found: Mapping[str, Twins]) -> dict[str, Twins]:
    return {f"{message}.{name}": pair for name, pair in found.items()}


_IGNORED = np.array([1, 0, 1], np.float32)

TWINS: Mapping[str, Twins] = {
    **_of("ConvolutionParameter", _convolutions("Convolution")),
    **_of("ConvolutionParameter (Deconvolution)", _convolutions("Deconvolution")),
    **_of("PoolingParameter", _poolings()),
    "SPPParameter.pyramid_height": twins(
        "SPP", [IMAGE], "spp_param { %s }", "pyramid_height: 1", "pyramid_height: 2"
    ),
    "SPPParameter.pool": twins(
        "SPP", [IMAGE], "spp_param { pyramid_height: 2 %s }", "", "pool: AVE"
    ),
    **_fillers(),
    **_numbers(),
    "InnerProductParameter.num_output": twins(
        "InnerProduct", [ROWS], "inner_product_param { num_output: %s }", "2", "3"
    ),
    "InnerProductParameter.bias_term": twins(
        "InnerProduct", [ROWS], "inner_product_param { num_output: 2 %s }", "", "bias_term: false"
    ),
    "InnerProductParameter.axis": twins(
        "InnerProduct", [(2, 3, 4)], "inner_product_param { num_output: 2 %s }", "", "axis: 2"
    ),
    "InnerProductParameter.transpose": twins(
        "InnerProduct", [ROWS], "inner_product_param { num_output: 2 %s }", "", "transpose: true"
    ),
    "EmbedParameter.num_output": twins(
        "Embed", [CLASSES], "embed_param { input_dim: 3 num_output: %s }", "2", "3"
    ),
    "EmbedParameter.input_dim": twins(
        "Embed", [CLASSES], "embed_param { num_output: 2 input_dim: %s }", "2", "3"
    ),
    "EmbedParameter.bias_term": twins(
        "Embed", [CLASSES], "embed_param { num_output: 2 input_dim: 3 %s }", "", "bias_term: false"
    ),
    "RecurrentParameter.num_output": twins(
        "LSTM", [SEQUENCE, MARKS], "recurrent_param { num_output: %s }", "2", "3"
    ),
    "RecurrentParameter.num_output (RNN)": twins(
        "RNN", [SEQUENCE, MARKS], "recurrent_param { num_output: %s }", "2", "3"
    ),
    "RecurrentParameter.expose_hidden": Twins(
        "RNN",
        [SEQUENCE, MARKS, (1, 1, 2)],  # the third one: what each step sees, or the state
        (
            "recurrent_param { num_output: 2 }",
            'top: "t1" recurrent_param { num_output: 2 expose_hidden: true }',
        ),
    ),
    "BatchNormParameter.eps": twins(
        "BatchNorm", [IMAGE], "batch_norm_param { %s }", "", "eps: 0.5"
    ),
    "BatchNormParameter.moving_average_fraction": Twins(
        "BatchNorm",
        [IMAGE],
        ("", "batch_norm_param { moving_average_fraction: 0.5 }"),
        phase=TRAIN,
    ),
    "BatchNormParameter.use_global_stats": twins(
        "BatchNorm", [IMAGE], "batch_norm_param { %s }", "", "use_global_stats: false"
    ),
    "ScaleParameter.axis": twins("Scale", [(3, 3)], "scale_param { %s }", "axis: 0", "axis: 1"),
    "ScaleParameter.num_axes": twins("Scale", [IMAGE], "scale_param { %s }", "", "num_axes: 2"),
    "ScaleParameter.bias_term": twins("Scale", [ROWS], "scale_param { %s }", "", "bias_term: true"),
    "BiasParameter.axis": twins("Bias", [(3, 3)], "bias_param { %s }", "axis: 0", "axis: 1"),
    "BiasParameter.num_axes": twins("Bias", [IMAGE], "bias_param { %s }", "", "num_axes: 2"),
    "PReLUParameter.channel_shared": twins(
        "PReLU", [IMAGE], "prelu_param { %s }", "", "channel_shared: true"
    ),
    "LRNParameter.local_size": twins("LRN", [IMAGE], "lrn_param { %s }", "", "local_size: 3"),
    "LRNParameter.norm_region": twins(
        "LRN", [IMAGE], "lrn_param { %s }", "", "norm_region: WITHIN_CHANNEL"
    ),
    "LRNParameter.alpha": twins("LRN", [IMAGE], "lrn_param { %s }", "", "alpha: 0.5"),
    "LRNParameter.beta": twins("LRN", [IMAGE], "lrn_param { %s }", "", "beta: 0.5"),
    "LRNParameter.k": twins("LRN", [IMAGE], "lrn_param { %s }", "", "k: 2"),
    "MVNParameter.normalize_variance": twins(
        "MVN", [IMAGE], "mvn_param { %s }", "", "normalize_variance: false"
    ),
    "MVNParameter.eps": twins("MVN", [IMAGE], "mvn_param { %s }", "", "eps: 0.5"),
    "MVNParameter.across_channels": twins(
        "MVN", [IMAGE], "mvn_param { %s }", "", "across_channels: true"
    ),
    "ConcatParameter.axis": twins("Concat", [ROWS, ROWS], "concat_param { %s }", "", "axis: 0"),
    "ConcatParameter.concat_dim": twins(
        "Concat", [ROWS, ROWS], "concat_param { %s }", "", "concat_dim: 0"
    ),
    "SliceParameter.axis": Twins("Slice", [(4, 4)], ("", "slice_param { axis: 0 }"), tops=2),
    "SliceParameter.slice_dim": Twins(
        "Slice", [(4, 4)], ("", "slice_param { slice_dim: 0 }"), tops=2
    ),
    "SliceParameter.slice_point": Twins(
        "Slice", [ROWS], ("", "slice_param { slice_point: 1 }"), tops=2
    ),
    "CropParameter.axis": twins(
        "Crop", [(3, 4, 5), (2, 2, 2)], "crop_param { %s }", "axis: 1", "axis: 2"
    ),
    "CropParameter.offset": twins(
        "Crop", [(3, 4, 5), (3, 4, 2)], "crop_param { axis: 2 %s }", "", "offset: 1"
    ),
    "EltwiseParameter.operation": twins(
        "Eltwise", [ROWS, ROWS], "eltwise_param { %s }", "", "operation: MAX"
    ),
    "EltwiseParameter.coeff": twins(
        "Eltwise", [ROWS, ROWS], "eltwise_param { %s }", "", "coeff: [1, -1]"
    ),
    "FlattenParameter.axis": twins("Flatten", [IMAGE], "flatten_param { %s }", "", "axis: 2"),
    "FlattenParameter.end_axis": twins(
        "Flatten", [IMAGE], "flatten_param { %s }", "", "end_axis: 2"
    ),
    "ReshapeParameter.shape": twins(
        "Reshape", [ROWS], "reshape_param { shape { %s } }", "dim: 12", "dim: [2, 6]"
    ),
    "ReshapeParameter.axis": twins(
        "Reshape", [(2, 3, 4)], "reshape_param { shape { dim: -1 } %s }", "axis: 1", "axis: 2"
    ),
    "ReshapeParameter.num_axes": twins(
        "Reshape", [(2, 3, 4)], "reshape_param { shape { dim: -1 } %s }", "", "num_axes: 2"
    ),
    "ReductionParameter.axis": twins("Reduction", [ROWS], "reduction_param { %s }", "", "axis: 1"),
    "ReductionParameter.operation": twins(
        "Reduction", [ROWS], "reduction_param { %s }", "", "operation: MEAN"
    ),
    "ReductionParameter.coeff": twins(
        "Reduction", [ROWS], "reduction_param { %s }", "", "coeff: 2"
    ),
    "TileParameter.axis": twins("Tile", [ROWS], "tile_param { tiles: 2 %s }", "", "axis: 0"),
    "TileParameter.tiles": twins("Tile", [ROWS], "tile_param { tiles: %s }", "1", "2"),
    "SoftmaxParameter.axis": twins("Softmax", [(3, 3)], "softmax_param { %s }", "", "axis: 0"),
    "SoftmaxParameter.axis (SoftmaxWithLoss)": twins(
        "SoftmaxWithLoss",
        [(2, 2, 2), np.zeros((2, 2), np.float32)],
        "softmax_param { %s }",
        "",
        "axis: 2",
    ),
    "ArgMaxParameter.out_max_val": twins(
        "ArgMax", [ROWS], "argmax_param { %s }", "", "out_max_val: true"
    ),
    "ArgMaxParameter.top_k": twins("ArgMax", [ROWS], "argmax_param { %s }", "", "top_k: 2"),
    "ArgMaxParameter.axis": twins("ArgMax", [ROWS], "argmax_param { %s }", "", "axis: 0"),
    "AccuracyParameter.top_k": twins(
        "Accuracy", [ROWS, LABELS], "accuracy_param { %s }", "", "top_k: 4"
    ),
    "AccuracyParameter.ignore_label": twins(
        "Accuracy",
        [np.eye(3, 4, dtype=np.float32), np.array([0, 2, 2], np.float32)],
        "accuracy_param { %s }",
        "",
        "ignore_label: 0",
    ),
    "AccuracyParameter.axis": twins(
        "Accuracy",
        [np.arange(8, dtype=np.float32).reshape(2, 2, 2) % 3, np.zeros((2, 2), np.float32)],
        "accuracy_param { %s }",
        "",
        "axis: 2",
    ),
    "ContrastiveLossParameter.margin": twins(
        "ContrastiveLoss",
        [ROWS, ROWS, np.zeros(3, np.float32)],
        "contrastive_loss_param { %s }",
        "margin: 9",
        "margin: 8",
    ),
    "ContrastiveLossParameter.legacy_version": twins(
        "ContrastiveLoss",
        [ROWS, ROWS, np.zeros(3, np.float32)],
        "contrastive_loss_param { margin: 9 %s }",
        "",
        "legacy_version: true",
    ),
    "HingeLossParameter.norm": twins(
        "HingeLoss", [ROWS, LABELS], "hinge_loss_param { %s }", "", "norm: L2"
    ),
    "InfogainLossParameter.source": twins(
        "InfogainLoss", [ROWS, LABELS], 'infogain_loss_param { source: "%s" }', "ONE", "OTHER"
    ),
    "InfogainLossParameter.axis": twins(
        "InfogainLoss",
        [(2, 2, 2), np.zeros((2, 2), np.float32), np.eye(2, dtype=np.float32).reshape(1, 1, 2, 2)],
        "infogain_loss_param { %s }",
        "",
        "axis: 2",
    ),
    "LossParameter.ignore_label": twins(
        "SoftmaxWithLoss", [ROWS, _IGNORED], "loss_param { %s }", "", "ignore_label: 0"
    ),
    "LossParameter.normalize": twins(
        "SoftmaxWithLoss",
        [(2, 3, 2), np.array([[0, 1], [1, 2]], np.float32)],
        "loss_param { %s }",
        "normalize: true",
        "normalize: false",
    ),
    "LossParameter.normalization": twins(
        "SoftmaxWithLoss",
        [ROWS, _IGNORED],
        "loss_param { ignore_label: 0 %s }",
        "",
        "normalization: FULL",
    ),
    "InputParameter.shape": twins("Input", [], "input_param { shape { dim: %s } }", "2", "3"),
    "ParameterParameter.shape": twins(
        "Parameter", [], "parameter_param { shape { dim: %s } }", "2", "3"
    ),
    "DummyDataParameter.shape": twins(
        "DummyData", [], "dummy_data_param { shape { dim: %s } }", "2", "3"
    ),
    "DummyDataParameter.data_filler": twins(
        "DummyData", [], "dummy_data_param { shape { dim: 2 } data_filler { value: %s } }", "2", "3"
    ),
    **{
        f"DummyDataParameter.{name}": twins(
            "DummyData",
            [],
            "dummy_data_param { num: 1 channels: 1 height: 1 width: 1 }".replace(
                f"{name}: 1", f"{name}: %s"
            ),
            "2",
            "3",
        )
        for name in ("num", "channels", "height", "width")
    },
    "DropoutParameter.dropout_ratio": Twins(
        "Dropout",
        [np.ones((4, 99), np.float32)],
        ("", "dropout_param { dropout_ratio: 0.25 }"),
        phase=TRAIN,
    ),
}
"""By message and field; in brackets the type of layer, where a second one has the message."""
