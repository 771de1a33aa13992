"""OpenCV's importer against the real Caffe: the same values, or one sentence."""

import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from google.protobuf import text_format

from pycaffe_prune.engines.caffe.engine import CaffeEngine
from pycaffe_prune.engines.comparison import opencv_net
from pycaffe_prune.errors import EngineError, SurgeryError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter, NetParameter, V1LayerParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer, write_caffemodel
from pycaffe_prune.formats.carried import parse_text
from pycaffe_prune.formats.hdf5 import write_hdf5_weights
from pycaffe_prune.formats.prototxt import write_prototxt
from pycaffe_prune.net.shapes import infer_shapes

Save = Callable[[str], tuple[Path, Path]]

DATA = """layer { name: "data" type: "Input" top: "data"
  input_param { shape { dim: 2 dim: 4 dim: 10 dim: 7 } } }
"""

# One net for all that the networks of the paper use, and what the importer gets wrong by itself.
AGREED = """
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 6 kernel_size: 3 pad: 1 group: 2 } }
layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "conv" }
layer { name: "scale" type: "Scale" bottom: "conv" top: "conv" scale_param { bias_term: true } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "lrn" type: "LRN" bottom: "conv" top: "lrn" }
layer { name: "within" type: "LRN" bottom: "lrn" top: "within"
  lrn_param { norm_region: WITHIN_CHANNEL local_size: 3 alpha: 0.5 } }
layer { name: "max" type: "Pooling" bottom: "within" top: "max"
  pooling_param { pool: MAX kernel_size: 2 stride: 2 pad: 1 } }
layer { name: "ave" type: "Pooling" bottom: "lrn" top: "ave"
  pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 } }
layer { name: "wide" type: "Concat" bottom: "lrn" bottom: "within" top: "wide"
  concat_param { concat_dim: 2 } }
layer { name: "low" type: "Slice" bottom: "wide" top: "low" top: "high"
  slice_param { slice_dim: 2 slice_point: 9 } }
layer { name: "shared1" type: "Convolution" bottom: "conv" top: "shared1" param { name: "w" }
  convolution_param { num_output: 6 kernel_size: 3 pad: 1 bias_term: false } }
layer { name: "shared2" type: "Convolution" bottom: "shared1" top: "shared2" param { name: "w" }
  convolution_param { num_output: 6 kernel_size: 3 pad: 1 bias_term: false } }
layer { name: "sum" type: "Eltwise" bottom: "shared1" bottom: "shared2" top: "sum"
  eltwise_param { coeff: 1 coeff: -0.5 } }
layer { name: "prelu" type: "PReLU" bottom: "sum" top: "prelu" }
layer { name: "drop" type: "Dropout" bottom: "prelu" top: "prelu" }
layer { name: "flat" type: "Flatten" bottom: "prelu" top: "flat" }
layer { name: "ip1" type: "InnerProduct" bottom: "flat" top: "ip1"
  inner_product_param { num_output: 5 transpose: true } }
layer { name: "half" type: "Slice" bottom: "ip1" top: "half1" top: "half2"
  slice_param { slice_point: 2 } }
layer { name: "relu_half" type: "TanH" bottom: "half2" top: "half2" }
layer { name: "prob" type: "Softmax" bottom: "ip1" top: "prob" }
"""
BLOBS = (
    *("conv", "lrn", "within", "max", "ave", "wide", "low", "high"),
    *("sum", "prelu", "flat", "ip1", "half1", "half2", "prob"),
)
IP = """layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 3 } }"""


def model_of(net: NetParameter, seed: int = 0) -> Caffemodel:
    """Random weights of the size that keeps activations near 1."""
    random = np.random.default_rng(seed)
    shared: dict[str, np.ndarray] = {}
    layers = []
    for layer, around in zip(net.layer, infer_shapes(net.layer), strict=True):
        blobs = [
            random.normal(0, max(1, np.prod(shape[1:])) ** -0.5, shape).astype(np.float32)
            for shape in around.params
        ]
        if layer.type == "BatchNorm":
            blobs = [blobs[0], np.abs(blobs[1]) + 0.1, np.array([2], np.float32)]
        for index, spec in enumerate(layer.param):
            blobs[index] = shared.setdefault(spec.name, blobs[index])
        layers.append(Layer(layer, tuple(blobs)))
    return Caffemodel(tuple(layers), NetParameter(name=net.name))


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Write a net and random weights for it; return both paths."""

    def write(layers: str) -> tuple[Path, Path]:
        net = text_format.Parse(DATA + layers, NetParameter())
        write_prototxt(tmp_path / "net.prototxt", net)
        write_caffemodel(tmp_path / "net.caffemodel", model_of(net))
        return tmp_path / "net.prototxt", tmp_path / "net.caffemodel"

    return write


def images(count: int = 3) -> dict[str, np.ndarray]:
    return {"data": np.random.default_rng(1).normal(size=(count, 4, 10, 7)).astype(np.float32)}


def assert_close(ours: list[np.ndarray], theirs: list[np.ndarray]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert one.dtype == np.float32
        assert one.shape == other.shape
        assert np.abs(other).max() > 0
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * np.abs(other).max())


@pytest.mark.real_caffe
def test_every_blob_is_what_the_real_caffe_computes(save: Save, caffe_python: Path) -> None:
    files = save(AGREED)
    theirs = CaffeEngine(caffe_python).forward(*files, images(), BLOBS)
    assert_close(opencv_net.forward(*files, images(), BLOBS), theirs)


@pytest.mark.real_caffe
@pytest.mark.parametrize("side", [8, 9, 10, 11])
@pytest.mark.parametrize("kernel", [2, 3, 5])
def test_pooling_is_rounded_and_clipped_as_caffe_does(
    save: Save, caffe_python: Path, side: int, kernel: int
) -> None:
    layers = [
        f"""layer {{ name: "{pool}{pad}" type: "Pooling" bottom: "data" top: "{pool}{pad}"
        pooling_param {{ pool: {pool} kernel_size: {kernel} stride: 2 pad: {pad} }} }}"""
        for pool in ("MAX", "AVE")
        for pad in (0, 1)
    ]
    files = save("".join(layers))
    data = {"data": np.random.default_rng(0).normal(size=(1, 4, side, side)).astype(np.float32) - 3}
    blobs = ["MAX0", "MAX1", "AVE0", "AVE1"]
    theirs = CaffeEngine(caffe_python).forward(*files, data, blobs)
    assert_close(opencv_net.forward(*files, data, blobs), theirs)


def test_blobs_come_in_the_order_asked_for_and_in_their_last_version(save: Save) -> None:
    files = save(AGREED)
    prob, conv = opencv_net.forward(*files, images(), ["prob", "conv"])
    assert prob.shape == (3, 5)
    np.testing.assert_allclose(prob.sum(axis=1), 1, rtol=1e-5)
    assert conv.shape == (3, 6, 10, 7)
    assert conv.min() == 0


def test_one_of_several_tops_can_be_asked_for_alone(save: Save) -> None:
    files = save('layer { name: "half" type: "Slice" bottom: "data" top: "low" top: "high" }')
    (high,) = opencv_net.forward(*files, images(), ["high"])
    np.testing.assert_array_equal(high, images()["data"][:, 2:])


def test_the_batch_is_the_inputs_whatever_the_prototxt_says(save: Save) -> None:
    files = save(IP)
    (whole,) = opencv_net.forward(*files, images(5), ["ip"])
    alone = [
        opencv_net.forward(*files, {"data": image[None]}, ["ip"])[0] for image in images(5)["data"]
    ]
    np.testing.assert_allclose(whole, np.concatenate(alone), rtol=1e-5)


def test_inner_product_is_numpys(save: Save) -> None:
    (found,) = opencv_net.forward(*save(IP), images(), ["ip"])
    weight, bias = model_of(text_format.Parse(DATA + IP, NetParameter())).layer("ip").blobs
    expected = images()["data"].reshape(3, -1) @ weight.T + bias
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_training_nets_are_judged_in_their_test_phase(save: Save, tmp_path: Path) -> None:
    net, weights = save(IP)
    (plain,) = opencv_net.forward(net, weights, images(), ["ip"])
    text = """
    layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TRAIN } }
    layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TEST } }
    %s
    layer { name: "double" type: "Power" bottom: "ip" top: "ip" include { phase: TRAIN }
      power_param { scale: 2 } }
    layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" }
    layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
    """
    net.write_text(text % IP)
    (found,) = opencv_net.forward(net, weights, images(), ["ip"])
    np.testing.assert_array_equal(found, plain)


def test_v1_files_with_legacy_dimensions_are_run_too(save: Save, tmp_path: Path) -> None:
    net, weights = save(IP)
    (plain,) = opencv_net.forward(net, weights, images(), ["ip"])
    old = NetParameter()
    layer = old.layers.add(name="ip", type=V1LayerParameter.INNER_PRODUCT)
    for blob, rows in zip(model_of(text_format.Parse(DATA + IP, NetParameter())).layer("ip").blobs,
                          (3, 1), strict=True):  # fmt: skip
        layer.blobs.add(
            num=1, channels=1, height=rows, width=blob.size // rows, data=blob.ravel().tolist()
        )
    weights.write_bytes(old.SerializeToString())
    net.write_text(
        'input: "data" input_dim: 1 input_dim: 4 input_dim: 10 input_dim: 7 layers { name: "ip" '
        'type: INNER_PRODUCT bottom: "data" top: "ip" inner_product_param { num_output: 3 } }'
    )
    (found,) = opencv_net.forward(net, weights, images(), ["ip"])
    np.testing.assert_array_equal(found, plain)


def test_hdf5_weights_hold_a_shared_blob_once(save: Save, tmp_path: Path) -> None:
    net, weights = save(AGREED)
    (plain,) = opencv_net.forward(net, weights, images(), ["sum"])
    model = model_of(text_format.Parse(DATA + AGREED, NetParameter()))
    owners = tuple(
        Layer(layer.param) if layer.name == "shared2" else layer for layer in model.layers
    )
    write_hdf5_weights(tmp_path / "net.h5", Caffemodel(owners, model.net))
    (found,) = opencv_net.forward(net, tmp_path / "net.h5", images(), ["sum"])
    np.testing.assert_array_equal(found, plain)


UNKNOWN = [
    ('type: "Embed" embed_param { input_dim: 5 num_output: 3 }', "(Embed)"),
    ('type: "NoSuchLayer"', "(NoSuchLayer)"),
    ('type: "LRN" lrn_param { k: 2 }', "(LRN with k 2)"),
    ('type: "PReLU" prelu_param { channel_shared: true }', "(PReLU with channel_shared)"),
    (
        'type: "BatchNorm" batch_norm_param { use_global_stats: false }',
        "(BatchNorm over the batch",
    ),
]


@pytest.mark.parametrize(("layer", "what"), UNKNOWN)
def test_a_layer_that_opencv_would_get_wrong_is_named(
    save: Save, capfd: pytest.CaptureFixture[str], layer: str, what: str
) -> None:
    files = save(f'layer {{ name: "odd" bottom: "data" top: "odd" {layer} }}')
    with pytest.raises(EngineError) as caught:
        opencv_net.forward(*files, images(), ["odd"])
    assert f"does not know layer 'odd' {what}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_whatever_else_opencv_throws_is_one_sentence(
    save: Save, capfd: pytest.CaptureFixture[str]
) -> None:
    net, weights = save(IP)
    write_caffemodel(weights, Caffemodel((Layer(LayerParameter(name="other")),)))
    with pytest.raises(EngineError) as caught:
        opencv_net.forward(net, weights, images(), ["ip"])
    assert "cannot run this net" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_two_layers_of_one_name_are_refused(save: Save) -> None:
    twice = 'layer { name: "same" type: "ReLU" bottom: "data" top: "%s" }'
    last = 'layer { name: "sum" type: "Eltwise" bottom: "a" bottom: "b" top: "sum" }'
    files = save(twice % "a" + twice % "b" + last)
    with pytest.raises(EngineError, match="two layers called 'same'"):
        opencv_net.forward(*files, images(), ["sum"])


def test_python_layers_are_not_known_and_run_nothing(save: Save) -> None:
    files = save(
        'layer { name: "p" type: "Python" bottom: "data" top: "p"'
        '  python_param { module: "antigravity" layer: "L" } }'
    )
    with pytest.raises(EngineError, match=r"does not know layer 'p' \(Python\)"):
        opencv_net.forward(*files, images(), ["p"])
    assert "antigravity" not in sys.modules


def test_a_blob_that_is_not_there_is_named(save: Save) -> None:
    with pytest.raises(SurgeryError, match="no blob 'ip9'; its blobs: data, ip"):
        opencv_net.forward(*save(IP), images(), ["ip9"])


def test_an_opencv_without_the_importer_says_what_to_install(
    save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(cv2.dnn, "readNetFromCaffe")
    with pytest.raises(EngineError, match=r"pip install 'opencv-python-headless<5'"):
        opencv_net.forward(*save(IP), images(), ["ip"])


@pytest.mark.parametrize(
    "field", ["relu_param { own: 1 }", "permute_param { own: 1 }", "upsample_param { scale: 2 }"]
)
def test_fields_that_the_importer_would_pass_over_are_refused(tmp_path: Path, field: str) -> None:
    text = DATA + f'layer {{ name: "a" type: "ReLU" bottom: "data" top: "a" {field} }}'
    net = parse_text(text, NetParameter())
    write_prototxt(tmp_path / "net.prototxt", net)
    write_caffemodel(tmp_path / "net.caffemodel", model_of(net))
    paths = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    with pytest.raises(EngineError, match=r"does not know layer 'a' \(ReLU with the field"):
        opencv_net.forward(*paths, images(), ["a"])
