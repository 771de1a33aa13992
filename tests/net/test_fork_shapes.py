"""Shapes around forks' layers: OpenCV judges those that it reads, else what the fork computes."""

from pathlib import Path

import numpy as np
import pytest

from pycaffe_prune.engines.comparison import opencv_net
from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter, NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer, write_caffemodel
from pycaffe_prune.formats.carried import parse_text
from pycaffe_prune.formats.prototxt import write_prototxt
from pycaffe_prune.net.counts import count_layers
from pycaffe_prune.net.fork_shapes import shape_rule
from pycaffe_prune.net.shape_rules import RULES
from pycaffe_prune.net.shapes import LayerShapes, infer_shapes

DATA = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: [2, 4, 10, 7] } } }
layer { name: "rois" type: "Input" top: "rois" input_param { shape { dim: [3, 5] } } }
"""


def net_of(kind: str, settings: str = "", bottoms: str = "data") -> NetParameter:
    reads = " ".join(f'bottom: "{name}"' for name in bottoms.split())
    text = f'layer {{ name: "a" type: "{kind}" {reads} top: "a" {settings} }}'
    return parse_text(DATA + text, NetParameter())


def around(kind: str, settings: str = "", bottoms: str = "data") -> LayerShapes:
    found = infer_shapes(net_of(kind, settings, bottoms).layer)[-1]
    assert found.problem is None
    return found


@pytest.mark.parametrize(
    ("kind", "settings", "bottoms"),
    [
        ("Pooling", "pooling_param { kernel_size: 2 stride: 2 ceil_mode: false }", "data"),
        ("Pooling", "pooling_param { kernel_size: 2 stride: 2 ceil_mode: true }", "data"),
        ("Pooling", "pooling_param { kernel_size: 2 stride: 2 round_mode: FLOOR }", "data"),
        ("Pooling", "pooling_param { kernel_size: 2 stride: 2 round_mode: CEIL }", "data"),
        ("Permute", "permute_param { order: 0 order: 2 order: 3 order: 1 }", "data"),
        ("Normalize", "norm_param { across_spatial: false channel_shared: false }", "data"),
        (
            "ConvolutionDepthwise",
            "convolution_param { num_output: 4 kernel_size: 3 stride: 2 pad: 1 }",
            "data",
        ),
        (
            "DepthwiseConvolution",
            "convolution_param { num_output: 8 kernel_size: 3 group: 4 }",
            "data",
        ),
        ("ReLU6", "", "data"),
        (
            "PriorBox",
            "prior_box_param { min_size: 3 max_size: 4 aspect_ratio: [2, 3] variance: 0.1 }",
            "data data",
        ),
        (
            "PriorBox",
            "prior_box_param { min_size: 3 aspect_ratio: [2, 2, 1] flip: false variance: 0.1 }",
            "data data",
        ),
        (
            "ROIPooling",
            "roi_pooling_param { pooled_h: 2 pooled_w: 3 spatial_scale: 0.5 }",
            "data rois",
        ),
    ],
)
def test_opencv_makes_a_top_of_this_shape(
    tmp_path: Path, kind: str, settings: str, bottoms: str
) -> None:
    net = net_of(kind, settings, bottoms)
    shapes = infer_shapes(net.layer)
    random = np.random.default_rng(0)
    layers = [
        Layer(layer, tuple(random.normal(size=shape).astype(np.float32) for shape in found.params))
        for layer, found in zip(net.layer, shapes, strict=True)
    ]
    write_prototxt(tmp_path / "net.prototxt", net)
    write_caffemodel(tmp_path / "w.caffemodel", Caffemodel(tuple(layers)))
    inputs = {
        "data": random.normal(size=(2, 4, 10, 7)).astype(np.float32),
        "rois": np.array([[0, 0, 0, 6, 6]] * 3, np.float32),
    }
    read = {name: inputs[name] for name in bottoms.split()}
    (found,) = opencv_net.forward(tmp_path / "net.prototxt", tmp_path / "w.caffemodel", read, ["a"])
    assert found.shape == shapes[-1].tops[0]


@pytest.mark.parametrize(
    ("kind", "settings", "top", "params"),
    [
        ("Permute", "permute_param { order: [0, 3] }", (2, 7, 4, 10), []),
        ("Normalize", "", (2, 4, 10, 7), [()]),
        ("Normalize", "norm_param { channel_shared: false }", (2, 4, 10, 7), [(4,)]),
        ("BatchNorm", "batch_norm_param { scale_bias: false }", (2, 4, 10, 7), [(4,), (4,), (1,)]),
        (
            "BatchNorm",
            "batch_norm_param { scale_filler { value: 1 } engine: CUDNN }",
            (2, 4, 10, 7),
            [(4,), (4,), (1,), (4,), (4,)],
        ),
        ("BN", "bn_param { shift_filler { } }", (2, 4, 10, 7), [(1, 4, 1, 1)] * 2),
        ("BN", "bn_param { bn_mode: INFERENCE }", (2, 4, 10, 7), [(1, 4, 1, 1)] * 2),
        ("BN", "bn_param { slope_filler { } frozen: true }", (2, 4, 10, 7), [(1, 4, 1, 1)] * 4),
        ("Upsample", "upsample_param { scale: 3 }", (2, 4, 30, 21), []),
        ("Upsample", "upsample_param { scale: 2 pad_out_h: true }", (2, 4, 19, 14), []),
        ("Upsample", "upsample_param { upsample_h: 9 upsample_w: 8 scale: 2 }", (2, 4, 9, 8), []),
        ("Interp", "interp_param { height: 5 width: 6 }", (2, 4, 5, 6), []),
        ("Interp", "interp_param { zoom_factor: 8 }", (2, 4, 73, 49), []),
        ("Interp", "interp_param { shrink_factor: 2 pad_end: -1 }", (2, 4, 5, 3), []),
        ("Interp", "interp_param { shrink_factor: 2 zoom_factor: 3 }", (2, 4, 13, 10), []),
        (
            "CConvolution",
            "convolution_param { num_output: 3 kernel_size: 3 } cconvolution_param { c_rate: 1 }",
            (2, 3, 8, 5),
            [(3, 4, 3, 3), (3,)],
        ),
        (
            "CInnerProduct",
            "inner_product_param { num_output: 3 bias_term: false }",
            (2, 3),
            [(3, 280)],
        ),
        ("ReLU", "forward_type: FLOAT16 relu_param { engine: MKL2017 }", (2, 4, 10, 7), []),
    ],
)
def test_the_fork_makes_this_of_it(
    kind: str, settings: str, top: tuple[int, ...], params: list[tuple[int, ...]]
) -> None:
    found = around(kind, settings)
    assert found.tops == (top,)
    assert list(found.params) == params


def test_what_a_detector_finds_only_the_data_can_tell() -> None:
    found = around("DetectionOutput", "detection_output_param { num_classes: 3 }", "data data data")
    assert found.tops == (None,)
    assert around("MultiBoxLoss", "multibox_loss_param { own: 1 }", "data data data rois").tops == (
        (),
    )
    assert around("SmoothL1Loss", "", "data data").tops == ((),)


@pytest.mark.parametrize(
    ("kind", "settings", "sentence"),
    [
        ("Permute", "permute_param { order: [0, 4] }", r"its order \[0, 4\] does not fit"),
        ("Permute", "permute_param { order: [1, 1] }", r"its order \[1, 1\] does not fit"),
        ("Interp", "", "has neither height and width"),
        ("Interp", "interp_param { zoom_factor: 0 }", "must be at least 1"),
    ],
)
def test_what_the_fork_refuses_is_refused(kind: str, settings: str, sentence: str) -> None:
    with pytest.raises(SurgeryError, match=rf"layer 'a' \({kind}\): .*{sentence}"):
        infer_shapes(net_of(kind, settings).layer)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("Permute", "permute_param { order: 0 own: 1 }"),
        ("Permute", "own_param { order: 0 }"),
        ("ReLU", "permute_param { order: 0 }"),
        ("Pooling", "pooling_param { kernel_size: 2 own: 1 }"),
        ("BN", ""),
        ("Upsample", ""),
        ("Own", ""),
    ],
)
def test_what_is_not_understood_leaves_shapes_unknown(kind: str, settings: str) -> None:
    found = infer_shapes(net_of(kind, settings).layer)[-1]
    assert found.tops == (None,)
    assert "layer 'a'" in (found.problem or "")


def test_caffe_s_own_types_keep_their_rules() -> None:
    for kind, rule in RULES.items():
        assert shape_rule(LayerParameter(type=kind)) is rule


def test_a_fork_s_convolution_counts_as_caffe_s() -> None:
    conv = "convolution_param { num_output: 4 kernel_size: 3 %s }"
    nets = [
        net_of("Convolution", conv % "group: 4"),
        net_of("ConvolutionDepthwise", conv % ""),
        net_of("DepthwiseConvolution", conv % "group: 4"),
    ]
    *_, (_, _, count) = found = [count_layers(net.layer) for net in nets]
    assert (count.weights, count.biases, count.macs) == (36, 4, 36 * 8 * 5)
    assert {(layers[-1].weights, layers[-1].macs) for layers in found} == {(36, 36 * 8 * 5)}
    plain, masked = (
        count_layers(net_of(kind, conv % "").layer)[-1] for kind in ("Convolution", "CConvolution")
    )
    assert (masked.weights, masked.biases, masked.macs) == (plain.weights, plain.biases, plain.macs)
