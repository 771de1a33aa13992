"""A fork's net and weights in Caffe's form: OpenCV, and NumPy, compute the same from both."""

from pathlib import Path

import numpy as np
import pytest

from pycaffe_prune.convert.stock import masks_behind, stock_model, stock_net
from pycaffe_prune.engines.caffe.engine import CaffeEngine
from pycaffe_prune.engines.comparison import opencv_net
from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter, NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer, read_caffemodel, write_caffemodel
from pycaffe_prune.formats.carried import carried_fields, parse_text
from pycaffe_prune.formats.prototxt import read_net, refuse_carried, write_prototxt
from pycaffe_prune.net.fit import require_fitting
from pycaffe_prune.net.shapes import infer_shapes

SIZE = (2, 4, 9, 7)
DATA = (
    'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: [2, 4, 9, 7] } } }'
)
RANDOM = np.random.default_rng(0)


def net_of(*layers: str) -> NetParameter:
    return parse_text("\n".join([DATA, *layers]), NetParameter())


def values(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype(np.float32)


def random_model(net: NetParameter) -> Caffemodel:
    shapes = infer_shapes(net.layer)
    return Caffemodel(
        tuple(
            Layer(layer, tuple(values(*shape) for shape in around.params))
            for layer, around in zip(net.layer, shapes, strict=True)
        )
    )


def forward(folder: Path, net: NetParameter, model: Caffemodel, images: np.ndarray) -> np.ndarray:
    folder.mkdir(exist_ok=True)
    write_prototxt(folder / "net.prototxt", net)
    write_caffemodel(folder / "net.caffemodel", model)
    top = net.layer[-1].top[0]
    paths = folder / "net.prototxt", folder / "net.caffemodel"
    return opencv_net.forward(*paths, {"data": images}, [top])[0]


FORMS = pytest.mark.parametrize(
    "settings",
    [
        'type: "ConvolutionDepthwise" convolution_param { num_output: 4 kernel_size: 3 }',
        'type: "DepthwiseConvolution" convolution_param { num_output: 8 kernel_size: 3 group: 4 }',
        'type: "ReLU6"',
        'type: "Pooling" pooling_param { kernel_size: 2 stride: 2 ceil_mode: false }',
        'type: "Pooling" pooling_param { kernel_size: 2 stride: 2 ceil_mode: true }',
    ],
)


@FORMS
@pytest.mark.real_caffe
def test_caffe_computes_from_the_stock_form_what_opencv_does_from_the_fork_s(
    caffe_python: Path, tmp_path: Path, settings: str
) -> None:
    net = net_of(f'layer {{ name: "a" bottom: "data" top: "a" {settings} }}')
    model = random_model(net)
    images = 5 * values(*SIZE)
    wanted = forward(tmp_path, net, model, images)
    paths = tmp_path / "stock.prototxt", tmp_path / "stock.caffemodel"
    write_prototxt(paths[0], stock_net(net))
    write_caffemodel(paths[1], stock_model(model))
    (found,) = CaffeEngine(caffe_python).forward(*paths, {"data": images}, ["a"])
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


@FORMS
def test_the_stock_form_is_one_of_caffe_s_types_with_the_same_shapes(
    tmp_path: Path, settings: str
) -> None:
    net = net_of(f'layer {{ name: "a" bottom: "data" top: "a" {settings} }}')
    stock = stock_net(net)
    refuse_carried(stock, tmp_path, "a test")
    assert stock.layer[-1].type in ("Clip", "Convolution", "Pooling")
    assert infer_shapes(stock.layer) == infer_shapes(net.layer)
    require_fitting(stock, stock_model(random_model(net)))


BN = """layer { name: "bn" type: "BatchNorm" bottom: "data" top: "bn" include { phase: TEST }
  batch_norm_param { eps: 1e-7 scale_filler { value: 1 } engine: CUDNN } forward_type: FLOAT }"""


@pytest.mark.parametrize("version", ["0.14", "0.15", "0.16"])
def test_nvidia_s_batch_norm_computes_what_nvidia_s_caffe_does(
    tmp_path: Path, version: str
) -> None:
    mean, scale, bias = (values(4) for _ in range(3))
    variance = np.abs(values(4))
    factor = np.array([7], np.float32)
    blobs = (mean, variance, factor, scale, bias)
    if version == "0.15":
        blobs = (scale, bias, mean, variance, factor)
    elif version == "0.14":
        blobs = (scale, bias, factor, mean, variance)
    if version != "0.16":
        blobs = tuple(blob.reshape(1, -1, 1, 1) for blob in blobs)
    net = net_of(BN)
    model = Caffemodel((Layer(net.layer[1], blobs),))
    write_caffemodel(tmp_path / "theirs", model)  # as a file has it: without the carried text
    stock = stock_net(net)
    refuse_carried(stock, tmp_path, "a test")
    assert [layer.type for layer in stock.layer] == ["Input", "BatchNorm", "Scale"]
    assert stock.layer[2].include == net.layer[1].include
    images = values(*SIZE)
    along = (1, 4, 1, 1)
    wanted = (images - mean.reshape(along)) / np.sqrt(variance.reshape(along) + np.float32(1e-5))
    wanted = wanted * scale.reshape(along) + bias.reshape(along)
    for read in (model, read_caffemodel(tmp_path / "theirs")):
        weights = stock_model(read)
        require_fitting(stock, weights)
        found = forward(tmp_path / "run", stock, weights, images)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())


def masks_like(*blobs: np.ndarray) -> tuple[np.ndarray, ...]:
    return tuple((RANDOM.random(blob.shape) < 0.5).astype(np.float32) for blob in blobs)


@pytest.mark.parametrize("kind", ["CInnerProduct", "InnerProduct"])
@pytest.mark.parametrize("form", ["none", "Auto_pruning", "Dynamic Network Surgery", "no bias"])
def test_masks_are_multiplied_into_the_weights(kind: str, form: str) -> None:
    weight, bias = values(3, 5), values(3)
    own = (weight,) if form == "no bias" else (weight, bias)
    masks = {"none": (), "Auto_pruning": masks_like(weight)}.get(form, masks_like(*own))
    layer = Layer(LayerParameter(name="ip", type=kind), (*own, *masks))
    (found,) = stock_model(Caffemodel((layer,))).layers
    assert (found.name, found.type) == ("ip", "InnerProduct")
    wanted = [blob * mask for blob, mask in zip(own, masks, strict=False)] + list(own[len(masks) :])
    for one, other in zip(found.blobs, wanted, strict=True):
        np.testing.assert_array_equal(one, other)
    assert all(np.array_equal(one, other) for one, other in zip(layer.blobs, own, strict=False))
    kept = masks_behind(Caffemodel((layer,)))
    assert list(kept) == [("ip", index) for index in range(len(masks))]
    for one, other in zip(kept.values(), masks, strict=True):
        np.testing.assert_array_equal(one, other == 1)


@pytest.mark.parametrize(
    ("kind", "shapes"),
    [
        ("BN", [(1, 4, 1, 1)] * 2),
        ("Scale", [(4,)] * 2),
        ("", [(4,)] * 2),
        ("", [(4,), (4,), (1,), (4,), (4,)]),
        ("Convolution", [(2, 4, 3, 3), (2,)]),
        ("Normalize", [()]),
        ("LSTM", [(8, 3), (8,), (8, 2)]),
    ],
)
def test_blobs_of_equal_shapes_are_masks_in_weighted_layers_only(
    kind: str, shapes: list[tuple[int, ...]]
) -> None:
    blobs = tuple(np.zeros(shape, np.float32) for shape in shapes)
    (found,) = stock_model(Caffemodel((Layer(LayerParameter(name="a", type=kind), blobs),))).layers
    assert all(one is other for one, other in zip(found.blobs, blobs, strict=True))


@pytest.mark.parametrize(
    ("kind", "shapes", "sentence"),
    [
        ("InnerProduct", [(3, 5), (3,), (3, 5)], "last 1 have the shapes of masks but other value"),
        ("BatchNorm", [(4,)] * 5, "holds blobs of shapes 4, 4, 4, 4, 4, which do not tell"),
        ("BatchNorm", [(1,)] * 5, "which do not tell in which of the orders"),
        ("BatchNorm", [(1, 1, 1, 1)] * 5, "which do not tell in which of the orders"),
    ],
)
def test_what_is_not_known_is_refused(
    kind: str, shapes: list[tuple[int, ...]], sentence: str
) -> None:
    blobs = tuple(values(*shape) for shape in shapes)
    with pytest.raises(SurgeryError, match=rf"layer 'a' \({kind}\) .*{sentence}"):
        stock_model(Caffemodel((Layer(LayerParameter(name="a", type=kind), blobs),)))


def test_a_fork_s_weights_are_refused_for_a_stock_net_with_the_remedy() -> None:
    net = net_of(
        'layer { name: "a" type: "InnerProduct" bottom: "data" top: "a"',
        "inner_product_param { num_output: 3 } }",
    )
    (weight, bias) = (values(*shape) for shape in infer_shapes(net.layer)[1].params)
    model = Caffemodel((Layer(net.layer[1], (weight, bias, *masks_like(weight))),))
    with pytest.raises(SurgeryError, match=r"layer 'a': .* holds 3 .*convert --to stock"):
        require_fitting(net, model)
    require_fitting(net, stock_model(model))


def test_settings_of_precision_go_and_others_stay() -> None:
    net = parse_text("default_forward_type: FLOAT16 own: 1 " + DATA, NetParameter())
    assert [field.text for field in carried_fields(stock_net(net))] == ["own: 1"]


def test_what_has_no_stock_form_stays_carried(tmp_path: Path) -> None:
    permute = 'layer { name: "p" type: "Permute" bottom: "data" top: "p" %s }'
    net = net_of(permute % "permute_param { order: 0 own: 1 } own: 2 forward_type: FLOAT")
    write_prototxt(tmp_path / "net.prototxt", stock_net(net))
    found = read_net(tmp_path / "net.prototxt").layer[-1]
    assert [field.name for field in carried_fields(found)] == [
        "permute_param",
        "own",
        "forward_type",
    ]
    known = net_of(permute % "permute_param { order: 0 }")
    assert carried_fields(stock_net(known).layer[-1])
