"""Units of nets of Caffe's forks: OpenCV computes the same from the smaller net and the masked."""

import re
from pathlib import Path

import numpy as np
import pytest

from pycaffe_prune.engines.comparison import opencv_net
from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer, write_caffemodel
from pycaffe_prune.formats.carried import carried_fields, parse_text
from pycaffe_prune.formats.prototxt import read_net, write_prototxt
from pycaffe_prune.net.channel_trace import trace_channels
from pycaffe_prune.net.shapes import infer_shapes
from pycaffe_prune.pruning.units import choose_units, delete_units, mask_units, prunable_layers

SIZE = (1, 3, 16, 16)

# The form of MobileNet-SSD and of the detector of QR codes: depthwise layers, heads that are
# permuted and flattened, priors, detections.
DETECTOR = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: [1, 3, 16, 16] } } }
layer { name: "conv0" type: "Convolution" bottom: "data" top: "conv0"
  convolution_param { num_output: 8 kernel_size: 3 stride: 2 pad: 1 bias_term: false } }
layer { name: "conv0/bn" type: "BatchNorm" bottom: "conv0" top: "conv0" }
layer { name: "conv0/scale" type: "Scale" bottom: "conv0" top: "conv0"
  scale_param { bias_term: true } }
layer { name: "conv0/relu" type: "%(relu)s" bottom: "conv0" top: "conv0" }
layer { name: "dw" type: "%(depthwise)s" bottom: "conv0" top: "dw"
  convolution_param { num_output: 8 kernel_size: 3 pad: 1 %(group)s engine: CAFFE } }
layer { name: "dw/relu" type: "%(relu)s" bottom: "dw" top: "dw" }
layer { name: "conv1" type: "Convolution" bottom: "dw" top: "conv1"
  convolution_param { num_output: 6 kernel_size: 1 } }
layer { name: "pool" type: "Pooling" bottom: "conv1" top: "pool"
  pooling_param { kernel_size: 3 stride: 2 ceil_mode: false } }
layer { name: "loc" type: "Convolution" bottom: "pool" top: "loc"
  convolution_param { num_output: 12 kernel_size: 3 pad: 1 } }
layer { name: "loc_perm" type: "Permute" bottom: "loc" top: "loc_perm"
  permute_param { order: 0 order: 2 order: 3 order: 1 } }
layer { name: "loc_flat" type: "Flatten" bottom: "loc_perm" top: "loc_flat" }
layer { name: "conf" type: "Convolution" bottom: "pool" top: "conf"
  convolution_param { num_output: 6 kernel_size: 3 pad: 1 } }
layer { name: "conf_perm" type: "Permute" bottom: "conf" top: "conf_perm"
  permute_param { order: 0 order: 2 order: 3 order: 1 } }
layer { name: "conf_rows" type: "Reshape" bottom: "conf_perm" top: "conf_rows"
  reshape_param { shape { dim: [0, -1, 2] } } }
layer { name: "conf_soft" type: "Softmax" bottom: "conf_rows" top: "conf_soft"
  softmax_param { axis: 2 } }
layer { name: "conf_flat" type: "Flatten" bottom: "conf_soft" top: "conf_flat" }
layer { name: "priors" type: "PriorBox" bottom: "pool" bottom: "data" top: "priors"
  prior_box_param { min_size: 4 aspect_ratio: 2 variance: [0.1, 0.1, 0.2, 0.2] } }
layer { name: "found" type: "DetectionOutput" bottom: "loc_flat" bottom: "conf_flat"
  bottom: "priors" top: "found"
  detection_output_param { num_classes: 2 share_location: true background_label_id: 0
    nms_param { nms_threshold: 0.9 top_k: 50 } code_type: CENTER_SIZE keep_top_k: 20
    confidence_threshold: 0.01 } }
"""
CONVOLUTION = {"relu": "ReLU", "depthwise": "Convolution", "group": "group: 8"}
DEPTHWISE = {"relu": "ReLU6", "depthwise": "DepthwiseConvolution", "group": "group: 8"}
IMPLIED = {"relu": "ReLU6", "depthwise": "ConvolutionDepthwise", "group": ""}


def detector(form: dict[str, str]) -> tuple[NetParameter, Caffemodel]:
    net = parse_text(DETECTOR % form, NetParameter())
    return net, weights_for(net)


def weights_for(net: NetParameter) -> Caffemodel:
    random = np.random.default_rng(3)
    layers = []
    for layer, around in zip(net.layer, infer_shapes(net.layer), strict=True):
        blobs = [random.normal(0, 0.4, shape).astype(np.float32) for shape in around.params]
        if layer.type == "BatchNorm":
            blobs = [blobs[0], np.abs(blobs[1]) + 0.1, np.ones(1, np.float32)]
        layers.append(Layer(layer, tuple(blobs)))
    return Caffemodel(tuple(layers))


def outputs(
    folder: Path, net: NetParameter, model: Caffemodel, names: list[str]
) -> list[np.ndarray]:
    folder.mkdir()
    write_prototxt(folder / "net.prototxt", net)
    write_caffemodel(folder / "net.caffemodel", model)
    image = np.random.default_rng(0).normal(size=SIZE).astype(np.float32)
    return opencv_net.forward(
        folder / "net.prototxt", folder / "net.caffemodel", {"data": image}, names
    )


@pytest.mark.parametrize("form", [CONVOLUTION, DEPTHWISE, IMPLIED])
def test_a_detector_s_units_are_deleted_as_opencv_masks_them(
    tmp_path: Path, form: dict[str, str]
) -> None:
    net, model = detector(form)
    assert prunable_layers(net, model) == ["conv0", "dw", "conv1"]
    kept = choose_units(net, model, {"conv0": 0.25, "conv1": 0.5})
    smaller, weights = delete_units(net, model, kept)
    write_prototxt(tmp_path / "small.prototxt", smaller)
    assert read_net(tmp_path / "small.prototxt") == smaller
    sizes = {layer.name: layer.convolution_param.num_output for layer in smaller.layer}
    assert (sizes["conv0"], sizes["dw"], sizes["conv1"]) == (6, 6, 3)
    dw = next(layer for layer in smaller.layer if layer.name == "dw").convolution_param
    assert dw.HasField("group") == bool(form["group"])
    assert not dw.HasField("group") or dw.group == 6
    assert [carried_fields(layer) for layer in smaller.layer] == [
        carried_fields(layer) for layer in net.layer
    ]
    names = ["loc_flat", "conf_flat", "found"]
    masked = outputs(tmp_path / "masked", net, mask_units(net, model, kept), names)
    deleted = outputs(tmp_path / "deleted", smaller, weights, names)
    assert masked[-1].shape[-1] == 7
    assert masked[-1].shape[-2] > 1
    for one, other in zip(masked, deleted, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * np.abs(one).max())


SHUFFLED = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: [1, 3, 16, 16] } } }
layer { name: "a" type: "Convolution" bottom: "data" top: "a"
  convolution_param { num_output: 12 kernel_size: 3 pad: 1 group: 1 } }
layer { name: "x" type: "ShuffleChannel" bottom: "a" top: "x" shuffle_channel_param { group: 2 } }
layer { name: "dw" type: "Convolution" bottom: "x" top: "dw"
  convolution_param { num_output: 12 group: 12 kernel_size: 3 pad: 1 } }
layer { name: "b" type: "Convolution" bottom: "dw" top: "b"
  convolution_param { num_output: 6 kernel_size: 1 group: %d } }
"""
IN_OPENCV_S_WORDS = """
layer { name: "x1" type: "Reshape" bottom: "a" top: "x1"
  reshape_param { shape { dim: [0, 2, %d, 256] } } }
layer { name: "x2" type: "Permute" bottom: "x1" top: "x2" permute_param { order: [0, 2, 1, 3] } }
layer { name: "x3" type: "Reshape" bottom: "x2" top: "x"
  reshape_param { shape { dim: [0, %d, 16, 16] } } }
"""


def in_opencv_s_words(net: NetParameter) -> NetParameter:
    """The net with what ShuffleChannel does said in layers that OpenCV's importer knows."""
    spoken = NetParameter()
    for layer in net.layer:
        if layer.type == "ShuffleChannel":
            count = net.layer[1].convolution_param.num_output
            words = parse_text(IN_OPENCV_S_WORDS % (count // 2, count), NetParameter())
            spoken.layer.extend(words.layer)
        else:
            spoken.layer.add().CopyFrom(layer)
    return spoken


@pytest.mark.parametrize("group", [1, 2, 3])
def test_channels_go_through_a_shuffle_place_by_place(tmp_path: Path, group: int) -> None:
    net = parse_text(SHUFFLED % group, NetParameter())
    model = weights_for(net)
    kept = choose_units(net, model, {"a": 0.34})
    smaller, weights = delete_units(net, model, kept)
    assert smaller.layer[1].convolution_param.num_output in (6, 8)
    masked, deleted = (
        outputs(tmp_path / name, in_opencv_s_words(some), of, ["b"])[0]
        for name, some, of in (
            ("masked", net, mask_units(net, model, kept)),
            ("deleted", smaller, weights),
        )
    )
    np.testing.assert_allclose(masked, deleted, rtol=0, atol=1e-5 * np.abs(masked).max())


def test_a_shuffle_whose_places_do_not_divide_among_the_groups_after_it_is_named() -> None:
    net = parse_text(SHUFFLED.replace("group: 2 } }", "group: 6 } }") % 3, NetParameter())
    model = weights_for(net)
    with pytest.raises(SurgeryError, match="layer 'b' reads a channel in several of its groups"):
        choose_units(net, model, {"a": 0.5})


LAYERS = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: [1, 3, 16, 16] } } }
layer { name: "a" type: "Convolution" bottom: "data" top: "a"
  convolution_param { num_output: 4 kernel_size: 3 pad: 1 } }
%s
layer { name: "b" type: "Convolution" bottom: "%s" top: "b"
  convolution_param { num_output: 2 kernel_size: 3 pad: 1 } }
"""


@pytest.mark.parametrize(
    ("between", "blobs"),
    [
        ('type: "Interp" interp_param { zoom_factor: 2 }', 0),
        ('type: "Upsample" upsample_param { scale: 2 }', 0),
        ('type: "Permute" permute_param { order: [0, 1, 3, 2] }', 0),
        ('type: "Permute" permute_param { order: [2] order: 1 }', 0),
        ('type: "BN" bn_param { shift_filler { } }', 2),
        ('type: "BN" bn_param { slope_filler { } }', 4),
        ('type: "BatchNorm" batch_norm_param { scale_bias: true }', 4),
        ('type: "ReLU" forward_type: FLOAT16', 0),
    ],
)
def test_channels_go_through_with_a_value_each(between: str, blobs: int) -> None:
    layer = f'layer {{ name: "x" bottom: "a" top: "x" {between} }}'
    net = parse_text(LAYERS % (layer, "x"), NetParameter())
    channels = trace_channels(net)
    ids = channels.units["a"].tolist()
    assert not set(ids) & set(channels.fixed)
    bound = [blob for (name, _), blob in channels.blobs.items() if name == "x"]
    assert len(bound) == blobs
    assert all(ids in [axis.tolist() for axis in blob.axes if axis is not None] for blob in bound)


@pytest.mark.parametrize(
    ("between", "reason"),
    [
        (
            'type: "Permute" permute_param { order: [0, 2, 3, 1] }',
            r"'x' of type Permute with order",
        ),
        ('type: "Permute" permute_param { order: [1] }', r"'x' of type Permute with order"),
        (
            'type: "ShuffleChannel" shuffle_channel_param { group: 3 }',
            "ShuffleChannel with group 3",
        ),
        (
            'type: "PSROIPooling" bottom: "data" psroi_pooling_param { group_size: 2 }',
            "'x' of type PSROIPooling, which takes 2x2 maps for each of its outputs",
        ),
        ('type: "Normalize"', "'x' of type Normalize over all channels"),
        ('type: "Own" own_param { a: 1 }', "'x' of type Own with the field 'own_param'"),
        ('type: "Upsample" upsample_param { own: 1 }', "with the field 'upsample_param'"),
        ('type: "DetectionOutput" bottom: "a" bottom: "a"', "output layer .*'x', DetectionOutput"),
    ],
)
def test_what_mixes_channels_keeps_them_and_is_named(between: str, reason: str) -> None:
    layer = f'layer {{ name: "x" bottom: "a" top: "x" {between} }}'
    channels = trace_channels(parse_text(LAYERS % (layer, "a"), NetParameter()))
    found = {channels.fixed[channel] for channel in channels.units["a"].tolist()}
    (text,) = found
    assert re.search(reason, text)
