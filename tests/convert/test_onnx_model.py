"""Judges: onnx.checker, and onnxruntime against the real Caffe on the same weights and input."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from pycaffe_prune.convert.definitions import model_net
from pycaffe_prune.convert.deploy import to_deploy
from pycaffe_prune.convert.onnx_layers import RULES
from pycaffe_prune.convert.onnx_model import to_onnx
from pycaffe_prune.errors import FormatError, SurgeryError
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer, read_caffemodel
from pycaffe_prune.formats.prototxt import read_net
from pycaffe_prune.share import share_root

INPUTS = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 6 dim: 9 dim: 11 } } }
layer { name: "side" type: "Input" top: "side" input_param { shape { dim: 1 dim: 6 dim: 9 dim: 11 } } }
layer { name: "gate" type: "Input" top: "gate" input_param { shape { dim: 1 dim: 6 } } }
layer { name: "positive" type: "AbsVal" bottom: "data" top: "positive" }
layer { name: "flat" type: "Flatten" bottom: "data" top: "flat" }
"""  # noqa: E501  (one layer a line)

# name: type, bottoms, settings; the name is the top's too
CASES = {
    "conv": ("Convolution", "data", "convolution_param { num_output: 4 kernel_size: 3 }"),
    "conv_stride_pad": (
        "Convolution",
        "data",
        "convolution_param { num_output: 4 kernel_h: 3 kernel_w: 2 stride: 2 pad_h: 1 pad_w: 0 }",
    ),
    "conv_group": (
        "Convolution",
        "data",
        "convolution_param { num_output: 4 kernel_size: 3 group: 2 bias_term: false }",
    ),
    "conv_dilated": (
        "Convolution",
        "data",
        "convolution_param { num_output: 3 kernel_size: 3 dilation: 2 pad: 2 }",
    ),
    "conv_too_large": (
        "Convolution",
        "data",
        "convolution_param { num_output: 2 kernel_h: 10 kernel_w: 3 stride: 4 }",
    ),
    "depthwise": (
        "Convolution",
        "data",
        "convolution_param { num_output: 6 kernel_size: 3 group: 6 }",
    ),
    "deconv": (
        "Deconvolution",
        "data",
        "convolution_param { num_output: 4 kernel_size: 4 stride: 2 pad: 1 group: 2 }",
    ),
    "ip": ("InnerProduct", "data", "inner_product_param { num_output: 5 }"),
    "ip_flat": ("InnerProduct", "flat", "inner_product_param { num_output: 5 bias_term: false }"),
    "ip_transpose": (
        "InnerProduct",
        "data",
        "inner_product_param { num_output: 5 transpose: true }",
    ),
    "ip_axis_2": ("InnerProduct", "data", "inner_product_param { num_output: 5 axis: 2 }"),
    "ip_last_axis": ("InnerProduct", "data", "inner_product_param { num_output: 5 axis: -1 }"),
    "lrn": ("LRN", "data", "lrn_param { local_size: 3 alpha: 2 beta: 0.75 }"),
    "lrn_k": ("LRN", "data", "lrn_param { local_size: 5 alpha: 3 beta: 0.5 k: 2 }"),
    "lrn_within": (
        "LRN",
        "data",
        "lrn_param { local_size: 3 alpha: 2 beta: 0.75 norm_region: WITHIN_CHANNEL }",
    ),
    "relu": ("ReLU", "data", ""),
    "leaky": ("ReLU", "data", "relu_param { negative_slope: 0.1 }"),
    "prelu": ("PReLU", "data", ""),
    "prelu_shared": ("PReLU", "data", "prelu_param { channel_shared: true }"),
    "prelu_flat": ("PReLU", "flat", ""),
    "elu": ("ELU", "data", "elu_param { alpha: 0.7 }"),
    "sigmoid": ("Sigmoid", "data", ""),
    "tanh": ("TanH", "data", ""),
    "absval": ("AbsVal", "data", ""),
    "bnll": ("BNLL", "data", ""),
    "swish": ("Swish", "data", "swish_param { beta: 1.5 }"),
    "clip": ("Clip", "data", "clip_param { min: -0.5 max: 0.7 }"),
    "threshold": ("Threshold", "data", "threshold_param { threshold: 0.2 }"),
    "power": ("Power", "positive", "power_param { power: 1.5 scale: 2 shift: 0.5 }"),
    "power_square": ("Power", "data", "power_param { power: 2 shift: -0.5 }"),
    "power_affine": ("Power", "data", "power_param { scale: -3 shift: 0.5 }"),
    "power_zero": ("Power", "data", "power_param { power: 0 }"),
    "power_nothing": ("Power", "data", ""),
    "exp": ("Exp", "data", "exp_param { scale: 0.5 shift: -0.3 }"),
    "exp_base": ("Exp", "data", "exp_param { base: 2 scale: 0.5 shift: 1 }"),
    "log": ("Log", "positive", "log_param { scale: 2 shift: 0.5 }"),
    "log_base": ("Log", "positive", "log_param { base: 10 shift: 1 }"),
    "batch_norm": ("BatchNorm", "data", "batch_norm_param { eps: 0.01 }"),
    "batch_norm_flat": ("BatchNorm", "flat", ""),
    "scale": ("Scale", "data", "scale_param { bias_term: true }"),
    "scale_plain": ("Scale", "data", ""),
    "scale_axes": ("Scale", "data", "scale_param { axis: 2 num_axes: 2 bias_term: true }"),
    "scale_last": ("Scale", "data", "scale_param { axis: -1 }"),
    "scale_one": ("Scale", "data", "scale_param { num_axes: 0 bias_term: true }"),
    "scale_gate": ("Scale", "data gate", "scale_param { axis: 0 }"),
    "scale_side": ("Scale", "data side", "scale_param { axis: 0 }"),
    "bias": ("Bias", "data", ""),
    "bias_axes": ("Bias", "data", "bias_param { axis: 1 num_axes: -1 }"),
    "bias_gate": ("Bias", "data gate", "bias_param { axis: 0 }"),
    "sum": ("Eltwise", "data side", ""),
    "sum_coeff": ("Eltwise", "data side positive", "eltwise_param { coeff: [2, -1, 0.5] }"),
    "prod": ("Eltwise", "data side positive", "eltwise_param { operation: PROD }"),
    "max": ("Eltwise", "data side positive", "eltwise_param { operation: MAX }"),
    "concat": ("Concat", "data side", ""),
    "concat_wide": ("Concat", "data side data", "concat_param { axis: -1 }"),
    "concat_dim": ("Concat", "data side", "concat_param { concat_dim: 2 }"),
    "flatten": ("Flatten", "data", ""),
    "flatten_tail": ("Flatten", "data", "flatten_param { axis: 2 }"),
    "flatten_head": ("Flatten", "data", "flatten_param { axis: 0 end_axis: 1 }"),
    "reshape": ("Reshape", "data", "reshape_param { shape { dim: 0 dim: 3 dim: -1 } }"),
    "reshape_part": (
        "Reshape",
        "data",
        "reshape_param { shape { dim: 2 dim: 3 } axis: 1 num_axes: 1 }",
    ),
    "reshape_rows": ("Reshape", "data", "reshape_param { shape { dim: -1 dim: 11 } }"),
    "softmax": ("Softmax", "data", ""),
    "softmax_last": ("Softmax", "data", "softmax_param { axis: -1 }"),
    "dropout": ("Dropout", "data", "dropout_param { dropout_ratio: 0.9 }"),
    "max_pool": ("Pooling", "data", "pooling_param { kernel_size: 3 stride: 2 }"),
    "global_max": ("Pooling", "data", "pooling_param { global_pooling: true }"),
    "global_ave": ("Pooling", "data", "pooling_param { pool: AVE global_pooling: true }"),
}  # fmt: skip

# more than one top, or layers that only make sense together
CHAINS = """
layer { name: "slice" type: "Slice" bottom: "data" top: "slice_a" top: "slice_b" top: "slice_c"
  slice_param { slice_point: 1 slice_point: 4 } }
layer { name: "halves" type: "Slice" bottom: "data" top: "half_a" top: "half_b" }
layer { name: "two" type: "Convolution" bottom: "data" bottom: "side" top: "two_a" top: "two_b"
  convolution_param { num_output: 2 kernel_size: 3 } }
layer { name: "split" type: "Split" bottom: "side" top: "split_a" top: "split_b" }
layer { name: "split_relu" type: "ReLU" bottom: "split_a" top: "split_relu" }
layer { name: "small" type: "Pooling" bottom: "data" top: "small"
  pooling_param { kernel_size: 3 stride: 2 } }
layer { name: "crop" type: "Crop" bottom: "data" bottom: "small" top: "crop"
  crop_param { offset: 2 offset: 1 } }
layer { name: "low" type: "Pooling" bottom: "data" top: "low"
  pooling_param { pool: AVE kernel_size: 2 stride: 2 } }
layer { name: "low_bn" type: "BatchNorm" bottom: "low" top: "low" }
layer { name: "low_scale" type: "Scale" bottom: "low" top: "low" scale_param { bias_term: true } }
layer { name: "low_relu" type: "ReLU" bottom: "low" top: "low" }
layer { name: "low_drop" type: "Dropout" bottom: "low" top: "low" }
layer { name: "parameter" type: "Parameter" top: "learned"
  parameter_param { shape { dim: 6 dim: 9 dim: 11 } } }
layer { name: "learned_bias" type: "Bias" bottom: "data" bottom: "learned" top: "learned_bias"
  bias_param { axis: 1 } }
layer { name: "twin_a" type: "InnerProduct" bottom: "data" top: "twin_a" param { name: "w" }
  inner_product_param { num_output: 3 bias_term: false } }
layer { name: "twin_b" type: "InnerProduct" bottom: "side" top: "twin_b" param { name: "w" }
  inner_product_param { num_output: 3 bias_term: false } }
"""
CHAINED = [
    "slice_a", "slice_b", "slice_c", "half_a", "half_b", "two_a", "two_b", "split_relu",
    "split_b",
    "crop", "low", "learned_bias", "twin_a", "twin_b",
]  # fmt: skip

Outputs = dict[str, np.ndarray]
NetOf = Callable[[str], NetParameter]
WeightsFor = Callable[..., Caffemodel]
Forward = Callable[..., Outputs]


def random_pools(count: int) -> dict[str, tuple[str, str, str]]:
    """Pooling layers with windows and borders of every kind that Caffe takes."""
    random = np.random.default_rng(7)
    pools = {}
    while len(pools) < count:
        kernel = random.integers(1, 6, 2)
        pad = [int(random.integers(0, size)) for size in kernel]
        stride = random.integers(1, 4, 2)
        ends = []
        for size, reach, step, edge in zip((9, 11), kernel, stride, pad, strict=True):
            pooled = -(-(size + 2 * edge - reach) // step) + 1
            if any(pad) and (pooled - 1) * step >= size + edge:
                pooled -= 1
            ends.append((pooled - 1) * step - edge < size)
        if not all(ends):
            continue  # a window outside of the bottom: refused, see below
        for method in ("MAX", "AVE"):
            settings = (
                f"pooling_param {{ pool: {method} kernel_h: {kernel[0]} kernel_w: {kernel[1]} "
                f"stride_h: {stride[0]} stride_w: {stride[1]} pad_h: {pad[0]} pad_w: {pad[1]} }}"
            )
            pools[f"{method.lower()}_{len(pools)}"] = ("Pooling", "data", settings)
    return pools


POOLS = random_pools(80)


def layer_text(name: str, case: tuple[str, str, str]) -> str:
    kind, bottoms, settings = case
    named = " ".join(f'bottom: "{bottom}"' for bottom in bottoms.split())
    return f'layer {{ name: "{name}" type: "{kind}" {named} top: "{name}" {settings} }}\n'


def run_onnx(model: onnx.ModelProto, inputs: Outputs) -> Outputs:
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    wanted = {entry.name for entry in session.get_inputs()}
    given = {name: value for name, value in inputs.items() if name in wanted}
    return dict(zip(names, session.run(names, given), strict=True))


def require_close(found: np.ndarray, expected: np.ndarray, tolerance: float = 1e-5) -> None:
    assert found.shape == expected.shape
    assert np.isfinite(expected).all()
    size = max(1.0, float(np.abs(expected).max()))
    assert np.abs(found - expected).max() <= tolerance * size


@pytest.fixture(scope="module")
def both(net_of: NetOf, weights_for: WeightsFor, forward: Forward) -> tuple[Outputs, Outputs]:
    """The outputs of all cases in one net, by onnxruntime and by the real Caffe, for 3 images."""
    text = INPUTS + "".join(layer_text(name, case) for name, case in (CASES | POOLS).items())
    net = net_of(text + CHAINS)
    model = weights_for(net)
    twin = {layer.name: layer for layer in model.layers}
    layers = tuple(
        Layer(layer.param, twin["twin_a"].blobs) if layer.name == "twin_b" else layer
        for layer in model.layers
    )
    model = Caffemodel(layers, model.net)
    random = np.random.default_rng(1)
    inputs = {
        name: random.normal(size=shape).astype(np.float32)
        for name, shape in (("data", (3, 6, 9, 11)), ("side", (3, 6, 9, 11)), ("gate", (3, 6)))
    }
    found = run_onnx(to_onnx(net, model), inputs)
    return found, forward(net, model, inputs, list(found))


@pytest.mark.real_caffe
@pytest.mark.parametrize("name", [*CASES, *POOLS, *CHAINED])
def test_every_layer_computes_what_caffe_computes(both: tuple[Outputs, Outputs], name: str) -> None:
    found, expected = both
    require_close(found[name], expected[name])


@pytest.mark.real_caffe
def test_the_cases_are_all_outputs_and_the_outputs_all_cases(both: tuple[Outputs, Outputs]) -> None:
    assert set(both[0]) == {*CASES, *POOLS, *CHAINED}


def test_the_layer_types_with_a_rule_are_the_ones_compared(net_of: NetOf) -> None:
    compared = {case[0] for case in (CASES | POOLS).values()}
    assert set(RULES) <= compared | {layer.type for layer in net_of(CHAINS).layer}


ZOO = [
    ("squeezenet/squeezenet_v1.0_pruned.caffemodel", (2, 3, 227, 227), 100),
    ("lenet/lenet_iter_10000.caffemodel", (3, 1, 28, 28), 1),
    ("cifar10_quick/cifar10_quick_iter_4000.caffemodel", (3, 3, 32, 32), 100),
]


@pytest.mark.real_caffe
@pytest.mark.parametrize(("file", "shape", "scale"), ZOO)
def test_logits_of_real_models_are_caffes(
    data_dir: Path, forward: Forward, file: str, shape: tuple[int, ...], scale: float
) -> None:
    model = read_caffemodel(data_dir / "zoo" / file)
    net = to_deploy(model_net(model), {"data": (1, *shape[1:])})
    probabilities = [layer for layer in net.layer if layer.type == "Softmax"]
    for layer in probabilities:
        net.layer.remove(layer)
    images = {"data": scale * np.random.default_rng(0).random(shape, np.float32)}
    found = run_onnx(to_onnx(net, model), images)
    expected = forward(net, model, images, list(found))
    for name, scores in found.items():
        assert np.ptp(expected[name]) > 1
        require_close(scores, expected[name])


@pytest.mark.parametrize("folder", ["googlenet", "resnet_50", "squeezenet_v1.0", "caffenet"])
def test_networks_of_the_papers_table_become_valid_onnx(
    weights_for: WeightsFor, folder: str
) -> None:
    net = read_net(share_root() / "prototxt" / folder / "deploy.prototxt")
    for layer in net.layer:  # thin: their size is measured elsewhere
        if layer.type == "InnerProduct" and layer.inner_product_param.num_output == 4096:
            layer.inner_product_param.num_output = 8
    model = to_onnx(net, weights_for(net))
    onnx.checker.check_model(model, full_check=True)
    (output,) = model.graph.output
    extents = [dim.dim_param or dim.dim_value for dim in output.type.tensor_type.shape.dim]
    assert extents[:2] == ["N", 1000]


FIXING = [
    'type: "Slice" top: "y" slice_param { axis: 0 }',
    'type: "InnerProduct" inner_product_param { axis: 0 num_output: 3 }',
    'type: "InnerProduct" inner_product_param { axis: -2 num_output: 3 }',
    'type: "Scale" scale_param { axis: 0 bias_term: true }',
    'type: "Bias" bias_param { axis: -2 num_axes: -1 }',
    'type: "Reshape" reshape_param { shape { dim: 2 dim: -1 } }',
    'type: "Crop" bottom: "data" crop_param { axis: 0 }',
]
FREE = [
    'type: "Slice" top: "y" slice_param { axis: 1 slice_point: 2 }',
    'type: "Scale" scale_param { num_axes: 0 axis: 0 }',
    'type: "Reshape" reshape_param { shape { dim: 0 dim: -1 } }',
    'type: "Flatten" flatten_param { axis: 0 }',
]


@pytest.mark.parametrize(("text", "free"), [(t, False) for t in FIXING] + [(t, True) for t in FREE])
def test_the_batch_is_fixed_only_where_a_layer_is_made_for_one(
    net_of: NetOf, weights_for: WeightsFor, text: str, free: bool
) -> None:
    net = net_of(
        'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 4 dim: 3 } } }'
        f'layer {{ name: "x" bottom: "data" top: "x" {text} }}'
    )
    model = to_onnx(net, weights_for(net))
    (shape,) = (entry.type.tensor_type.shape.dim for entry in model.graph.input)
    assert shape[0].dim_value == (0 if free else 4)
    images = np.random.default_rng(0).random((5 if free else 4, 3), np.float32)
    assert run_onnx(model, {"data": images})["x"].size


ROWS = "convolution_param { axis: 2 num_output: 2 kernel_size: 2 }"
REFUSED = [
    (
        'type: "SPP" bottom: "data" spp_param { pyramid_height: 2 }',
        "layer 'x' is of type SPP, which",
    ),
    ('type: "Python" bottom: "data"', "layer 'x' is of type Python"),
    ('type: "Data"', "layer 'x' is of type Data.*--to deploy"),
    (
        'type: "Pooling" bottom: "data" pooling_param { pool: STOCHASTIC kernel_size: 2 }',
        "layer 'x' .Pooling. has pooling_param . pool: STOCHASTIC .",
    ),
    (
        'type: "Pooling" bottom: "data" top: "mask" pooling_param { kernel_size: 2 }',
        "layer 'x' .Pooling. has a second top",
    ),
    (
        'type: "Pooling" bottom: "data" pooling_param { kernel_size: 1 stride: 4 }',
        "layer 'x' .Pooling.: its last window begins outside its bottom .1x6x7x11.",
    ),
    (
        'type: "BatchNorm" bottom: "data" batch_norm_param { use_global_stats: false }',
        "layer 'x' .BatchNorm. has .* use_global_stats: false .* statistics from the batch",
    ),
    ('type: "ReLU" bottom: "data" phase: TRAIN', "layer 'x' .ReLU. has phase: TRAIN, which"),
    (
        f'type: "Convolution" bottom: "data" {ROWS}',
        "layer 'x' .Convolution.: its channels are in axis 2",
    ),
]


@pytest.mark.parametrize(("text", "sentence"), REFUSED)
def test_what_has_no_onnx_form_is_named(
    net_of: NetOf, weights_for: WeightsFor, text: str, sentence: str
) -> None:
    net = net_of(
        'layer { name: "data" type: "Input" top: "data" '
        "input_param { shape { dim: 1 dim: 6 dim: 7 dim: 11 } } }"
        f'layer {{ name: "x" top: "x" {text} }}'
    )
    with pytest.raises((SurgeryError, FormatError), match=sentence) as raised:
        to_onnx(net, weights_for(net))
    assert "\n" not in str(raised.value)


def test_weights_that_are_not_finite_or_do_not_fit_are_refused(
    net_of: NetOf, weights_for: WeightsFor
) -> None:
    net = net_of(INPUTS + layer_text("ip", CASES["ip"]))
    model = weights_for(net)
    broken = model.layer("ip").blobs[0].copy()
    broken[1, 2] = np.nan
    with pytest.raises(SurgeryError, match=r"'ip', blob 0 \(5x594\): 1 of 2970"):
        to_onnx(net, model.with_blobs({("ip", 0): broken}))
    with pytest.raises(SurgeryError, match="'ip', blob 0: the net says 5x594"):
        to_onnx(net, model.with_blobs({("ip", 0): broken[:4]}))


SHARED = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: [1, 4, 3, 3] } } }
layer { name: "a" type: "Convolution" bottom: "data" top: "a" param { name: "w" }
  convolution_param { num_output: 2 kernel_size: 1 bias_term: false } }
layer { name: "b" type: "Convolution" bottom: "a" top: "b"
  param { name: "w" share_mode: PERMISSIVE }
  convolution_param { num_output: 4 kernel_size: 1 bias_term: false } }
"""


@pytest.mark.real_caffe
def test_shared_values_have_each_layers_own_shape(net_of: NetOf, forward: Forward) -> None:
    net, random = net_of(SHARED), np.random.default_rng(4)
    values = random.normal(size=(2, 4, 1, 1)).astype(np.float32)
    model = Caffemodel(
        (Layer(net.layer[1], (values,)), Layer(net.layer[2], (values.reshape(4, 2, 1, 1),)))
    )
    inputs = {"data": random.normal(size=(1, 4, 3, 3)).astype(np.float32)}
    require_close(
        run_onnx(to_onnx(net, model), inputs)["b"], forward(net, model, inputs, ["b"])["b"]
    )
