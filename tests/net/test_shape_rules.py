from collections.abc import Callable, Sequence

import numpy as np
import pytest
from google.protobuf import text_format

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import TEST, NetParameter
from pycaffe_prune.net.shapes import LayerShapes, Shape, infer_shapes
from tests.net.layer_nets import net_around

Random = np.random.Generator


def shapes_of(
    kind: str, bottoms: Sequence[Sequence[int]], settings: str = "", tops: int = 1
) -> LayerShapes:
    return infer_shapes(
        text_format.Parse(net_around(kind, bottoms, settings, tops), NetParameter()).layer
    )[-1]


def draw_shape(random: Random, axes: int, low: int = 1, high: int = 9) -> list[int]:
    return [int(extent) for extent in random.integers(low, high, axes)]


def draw_convolution(random: Random) -> str:
    kind = ("Convolution", "Deconvolution", "Im2col")[random.integers(3)]
    group = int(random.integers(1, 4))
    spatial = int(random.integers(kind == "Im2col", 5)) if random.random() < 0.3 else 2
    bottom = [2, group * int(random.integers(1, 4)), *draw_shape(random, spatial, 3, 16)]
    outputs = group * int(random.integers(1, 4))
    settings = [f"num_output: {outputs} group: {group}"]
    if spatial == 2 and random.random() < 0.5:
        height, width = draw_shape(random, 2, 1, 6)
        settings.append(f"kernel_h: {height} kernel_w: {width}")
        settings.append(f"stride_h: {random.integers(1, 4)} stride_w: {random.integers(1, 4)}")
        settings.append(f"pad_h: {random.integers(4)} pad_w: {random.integers(4)}")
    else:
        for name, low in (("kernel_size", 1), ("stride", 1), ("pad", 0), ("dilation", 1)):
            count = (1, spatial)[random.integers(2)]
            values = random.integers(low, 4, count)
            settings += [f"{name}: {value}" for value in values]
    settings.append(f"bias_term: {('false', 'true')[random.integers(2)]}")
    copies = int(random.integers(1, 3)) if kind != "Im2col" else 1
    return net_around(
        kind, [bottom] * copies, f"convolution_param {{ {' '.join(settings)} }}", copies
    )


def draw_pooling(random: Random) -> str:
    bottom = draw_shape(random, 4, 1, 17)
    pool = ("MAX", "AVE")[random.integers(2)]
    mode = ("CEIL", "FLOOR")[int(random.random() < 0.2)]
    if random.random() < 0.1:
        settings = "global_pooling: true"
    elif random.random() < 0.5:
        kernel = int(random.integers(1, 6))
        settings = f"kernel_size: {kernel} stride: {random.integers(1, 5)} "
        settings += f"pad: {random.integers(kernel)} round_mode: {mode}"
    else:
        height, width = draw_shape(random, 2, 1, 6)
        settings = f"kernel_h: {height} kernel_w: {width} stride_h: {random.integers(1, 5)} "
        settings += f"stride_w: {random.integers(1, 5)} pad_h: {random.integers(height)} "
        settings += f"pad_w: {random.integers(width)} round_mode: {mode}"
    tops = 2 if pool == "MAX" and random.random() < 0.3 else 1
    return net_around("Pooling", [bottom], f"pooling_param {{ pool: {pool} {settings} }}", tops)


def draw_pyramid(random: Random) -> str:
    height = random.integers(1, 5)
    pool = ("MAX", "AVE")[random.integers(2)]
    settings = f"spp_param {{ pyramid_height: {height} pool: {pool} }}"
    return net_around("SPP", [draw_shape(random, 4, 1, 17)], settings)


def draw_inner_product(random: Random) -> str:
    bottom = draw_shape(random, int(random.integers(1, 5)))
    axis = int(random.integers(-len(bottom), len(bottom)))
    settings = f"num_output: {random.integers(1, 9)} axis: {axis}"
    settings += f" transpose: {('false', 'true')[random.integers(2)]}"
    settings += f" bias_term: {('false', 'true')[random.integers(2)]}"
    return net_around("InnerProduct", [bottom], f"inner_product_param {{ {settings} }}")


def draw_same(random: Random) -> str:
    kinds = ["AbsVal", "BNLL", "Dropout", "ELU", "Exp", "Log", "Power", "ReLU", "Sigmoid", "TanH"]
    kind = [*kinds, "Threshold", "Split", "MVN"][random.integers(len(kinds) + 3)]
    tops = int(random.integers(1, 4)) if kind == "Split" else 1
    return net_around(kind, [draw_shape(random, int(random.integers(1, 5)))], "", tops)


def draw_normalisation(random: Random) -> str:
    kind = ("BatchNorm", "PReLU", "LRN", "Softmax")[random.integers(4)]
    axes = 4 if kind == "LRN" else int(random.integers(2, 5))
    settings = ""
    if kind == "PReLU":
        settings = f"prelu_param {{ channel_shared: {('false', 'true')[random.integers(2)]} }}"
    if kind == "LRN":
        region = ("ACROSS_CHANNELS", "WITHIN_CHANNEL")[random.integers(2)]
        settings = f"lrn_param {{ local_size: {2 * random.integers(3) + 1} norm_region: {region} }}"
    return net_around(kind, [draw_shape(random, axes)], settings)


def draw_scale(random: Random) -> str:
    kind = ("Scale", "Bias")[random.integers(2)]
    bottom = draw_shape(random, int(random.integers(1, 5)))
    axis = int(random.integers(len(bottom)))
    axes = int(random.integers(-1, len(bottom) - axis + 1))
    settings = f"axis: {axis - len(bottom) * int(random.random() < 0.3)}"
    bottoms = [bottom]
    if random.random() < 0.4:
        bottoms.append(bottom[axis : axis + max(axes, 0)] or bottom[axis:])
    else:
        settings += f" num_axes: {axes}"
    if kind == "Scale":
        settings += f" bias_term: {('false', 'true')[random.integers(2)]}"
    return net_around(kind, bottoms, f"{kind.lower()}_param {{ {settings} }}")


def draw_join(random: Random) -> str:
    bottom = draw_shape(random, int(random.integers(1, 5)))
    count = int(random.integers(2, 5))
    if random.random() < 0.4:
        operation = ("PROD", "SUM", "MAX")[random.integers(3)]
        return net_around(
            "Eltwise", [bottom] * count, f"eltwise_param {{ operation: {operation} }}"
        )
    axis = int(random.integers(len(bottom)))
    bottoms = [list(bottom) for _ in range(count)]
    for shape in bottoms:
        shape[axis] = int(random.integers(1, 6))
    settings = f"axis: {axis - len(bottom)}" if random.random() < 0.5 else f"concat_dim: {axis}"
    return net_around("Concat", bottoms, f"concat_param {{ {settings} }}")


def draw_slice(random: Random) -> str:
    bottom = draw_shape(random, int(random.integers(1, 5)))
    axis, tops = int(random.integers(len(bottom))), int(random.integers(1, 4))
    settings = f"axis: {axis}"
    if random.random() < 0.5:
        bottom[axis] = tops * int(random.integers(1, 4))
    else:
        counts = draw_shape(random, tops, 1, 4)
        bottom[axis] = sum(counts)
        settings += "".join(f" slice_point: {point}" for point in np.cumsum(counts)[:-1])
    return net_around("Slice", [bottom], f"slice_param {{ {settings} }}", tops)


def draw_reshape(random: Random) -> str:
    bottom = draw_shape(random, int(random.integers(1, 5)))
    start = int(random.integers(len(bottom)))
    end = int(random.integers(start, len(bottom)))
    if random.random() < 0.4:
        settings = f"flatten_param {{ axis: {start} end_axis: {end - len(bottom)} }}"
        return net_around("Flatten", [bottom], settings)
    dims = [0] * int(random.integers(end + 1 - start)) + [-1]
    if random.random() < 0.3:
        dims.append(1)
    told = " ".join(f"dim: {extent}" for extent in dims)
    axis = start - (len(bottom) + 1) * int(random.random() < 0.3)
    settings = f"shape {{ {told} }} axis: {axis} num_axes: {end + 1 - start}"
    return net_around("Reshape", [bottom], f"reshape_param {{ {settings} }}")


def draw_crop(random: Random) -> str:
    bottom = draw_shape(random, int(random.integers(1, 5)), 3)
    axis = int(random.integers(len(bottom)))
    offsets = [int(random.integers(3)) for _ in bottom[axis:]]
    like = draw_shape(random, axis) + [
        int(random.integers(1, extent - offset + 1))
        for extent, offset in zip(bottom[axis:], offsets, strict=True)
    ]
    settings = f"axis: {axis}" + "".join(f" offset: {offset}" for offset in offsets)
    return net_around("Crop", [bottom, like], f"crop_param {{ {settings} }}")


def draw_end(random: Random) -> str:
    kind = ("Accuracy", "SoftmaxWithLoss", "ArgMax", "EuclideanLoss", "Reduction", "Tile")[
        random.integers(6)
    ]
    scores = draw_shape(random, int(random.integers(2, 5)), 3)
    labels = [scores[0], 1, *scores[2:]]
    tops = int(random.integers(1, 3))
    if kind == "Accuracy":
        return net_around(kind, [scores, labels], "", tops)
    if kind == "SoftmaxWithLoss":
        return net_around(kind, [scores, labels], "")
    if kind == "EuclideanLoss":
        return net_around(kind, [scores, scores], "")
    axis = int(random.integers(1, len(scores)))
    settings = {
        "ArgMax": (
            f"argmax_param {{ top_k: 2 axis: {axis} }}",
            "argmax_param { out_max_val: true }",
        ),
        "Reduction": (f"reduction_param {{ axis: {axis} }}", "reduction_param { operation: MEAN }"),
        "Tile": (f"tile_param {{ axis: {axis} tiles: 3 }}", "tile_param { tiles: 2 }"),
    }
    return net_around(kind, [scores], settings[kind][random.integers(2)])


DRAWS: Sequence[tuple[Callable[[Random], str], int]] = (
    (draw_convolution, 150),
    (draw_pooling, 250),
    (draw_pyramid, 40),
    (draw_inner_product, 40),
    (draw_same, 40),
    (draw_normalisation, 40),
    (draw_scale, 60),
    (draw_join, 40),
    (draw_slice, 40),
    (draw_reshape, 80),
    (draw_crop, 30),
    (draw_end, 60),
)


def random_nets(seed: int) -> list[NetParameter]:
    random = np.random.default_rng(seed)
    texts = [draw(random) for draw, count in DRAWS for _ in range(count)]
    return [text_format.Parse(text, NetParameter()) for text in texts]


@pytest.mark.real_caffe
def test_random_layers_have_the_shapes_that_the_real_caffe_gives_them(
    built_by_caffe: Callable[..., list[object]], require_equal: Callable[..., None]
) -> None:
    nets, ours = [], []
    for net in random_nets(seed=5):
        try:
            ours.append(infer_shapes(net.layer))
        except SurgeryError:
            continue
        nets.append(net)
    assert len(nets) > 700  # few of those drawn are impossible
    built = built_by_caffe([(net, TEST) for net in nets])
    for net, shapes, found in zip(nets, ours, built, strict=True):
        require_equal(net.layer, shapes, found)


DATA_LAYERS: Sequence[tuple[str, str, tuple[Shape | None, ...]]] = [
    (
        "DummyData",
        "dummy_data_param { num: 2 num: 3 channels: 4 height: 5 width: 6 }",
        ((2, 4, 5, 6), (3, 4, 5, 6)),
    ),
    ("DummyData", "dummy_data_param { shape { dim: 2 dim: 3 } }", ((2, 3), (2, 3))),
    ("Input", "input_param { shape { dim: 2 } shape { dim: 3 } }", ((2,), (3,))),
    ("Input", "", (None, None)),
    (
        "MemoryData",
        "memory_data_param { batch_size: 2 channels: 3 height: 4 width: 5 }",
        ((2, 3, 4, 5), (2,)),
    ),
    ("Data", "data_param { batch_size: 2 } transform_param { crop_size: 9 }", (None, (2,))),
    (
        "ImageData",
        "image_data_param { batch_size: 2 new_height: 8 new_width: 9 is_color: false }",
        ((2, 1, 8, 9), (2,)),
    ),
    (
        "ImageData",
        "image_data_param { batch_size: 2 } transform_param { crop_size: 9 }",
        ((2, 3, 9, 9), (2,)),
    ),
    ("ImageData", "image_data_param { batch_size: 2 }", (None, (2,))),
    (
        "WindowData",
        "window_data_param { batch_size: 2 } transform_param { crop_size: 9 }",
        ((2, 3, 9, 9), (2,)),
    ),
    ("HDF5Data", "hdf5_data_param { batch_size: 2 }", (None, None)),
]


@pytest.mark.parametrize(("kind", "settings", "tops"), DATA_LAYERS)
def test_data_layers_tell_what_is_in_the_prototxt(
    kind: str, settings: str, tops: tuple[Shape | None, ...]
) -> None:
    assert shapes_of(kind, [], settings, tops=2).tops == tops


IMAGE = (2, 6, 8, 8)
CONV = "convolution_param {{ num_output: 4 kernel_size: 3 {} }}"
CONTRADICTIONS = [
    # type, bottoms, settings, what the sentence says
    (
        "Convolution",
        [IMAGE],
        CONV.format("kernel_size: 3 kernel_size: 3"),
        "3 values of kernel_siz",
    ),
    ("Convolution", [IMAGE], CONV.format("dilation: 4"), "kernel 3x3 does not fit .* 2x6x8x8"),
    (
        "Convolution",
        [IMAGE],
        CONV.format("group: 4"),
        "group 4 .* 6 input channels .* num_output 4",
    ),
    (
        "Convolution",
        [IMAGE],
        CONV.format("group: 3"),
        "group 3 .* 6 input channels .* num_output 4",
    ),
    ("Convolution", [IMAGE], CONV.format("stride: 0"), "stride 0x0 must not be 0"),
    ("Convolution", [IMAGE], CONV.format("axis: 4"), "axis 4 does not exist .* 2x6x8x8"),
    ("Convolution", [IMAGE], "convolution_param { kernel_size: 3 }", "no num_output"),
    ("Convolution", [IMAGE, (2, 6, 8, 9)], CONV.format(""), "2x6x8x8 and 2x6x8x9; .* equal"),
    (
        "Convolution",
        [(2, 6, 8)],
        "convolution_param { num_output: 1 kernel_h: 1 }",
        "2 spatial axes",
    ),
    ("Convolution", [], CONV.format(""), "0 bottoms; its type takes at least 1"),
    ("Pooling", [(2, 6)], "", "its bottom has shape 2x6"),
    ("Pooling", [IMAGE], "pooling_param { kernel_size: 9 stride: 1 }", "kernel 9x9 .* 2x6x8x8"),
    ("Pooling", [IMAGE], "pooling_param { kernel_size: 2 pad: 2 }", "pad 2x2 must be smaller"),
    ("Pooling", [IMAGE], "pooling_param { }", "kernel 0x0 .* must not be 0"),
    ("InnerProduct", [IMAGE], "", "no num_output"),
    ("InnerProduct", [IMAGE], "inner_product_param { num_output: 1 axis: -5 }", "axis -5"),
    ("InnerProduct", [IMAGE, IMAGE], "inner_product_param { num_output: 1 }", "has 2 bottoms"),
    (
        "InnerProduct",
        [(1, 3 * 2**29)],
        "inner_product_param { num_output: 2 }",
        "2x1610612736 is too large",
    ),
    ("Eltwise", [IMAGE, (2, 6, 8, 7)], "", "2x6x8x8 and 2x6x8x7"),
    ("Eltwise", [IMAGE, IMAGE], "eltwise_param { coeff: 1 }", "1 coeff for 2 bottoms"),
    ("Eltwise", [IMAGE, IMAGE], "eltwise_param { operation: PROD coeff: [1, 2] }", "leave coeff"),
    ("Concat", [IMAGE, (2, 3, 8, 7)], "", "2x6x8x8 and 2x3x8x7; they may differ in axis 1 only"),
    ("Concat", [(2, 3), (2, 3, 1)], "", "2x3 and 2x3x1"),
    ("Slice", [IMAGE], "slice_param { slice_point: 6 }", "cut axis 1 of 2x6x8x8 into 2 tops"),
    ("Reshape", [IMAGE], "reshape_param { shape { dim: 0 dim: 5 dim: -1 } }", "2x6x8x8"),
    ("Reshape", [IMAGE], "reshape_param { shape { dim: 0 dim: -1 dim: -1 } }", "2x6x8x8"),
    ("Reshape", [(2,)], "reshape_param { shape { dim: 0 dim: 0 } }", "axis 0 and num_axes -1"),
    ("Crop", [IMAGE, (2, 6, 9, 9)], "", "2x6x9x9 .* cannot be cut out of 2x6x8x8"),
    ("Scale", [IMAGE, (6, 7)], "", "6x7, which is not what its first, 2x6x8x8, has from axis 1"),
    ("Bias", [IMAGE], "bias_param { axis: 2 num_axes: 3 }", "num_axes 3 from axis 2"),
    ("LRN", [(2, 6)], "", "needs 4 axes"),
    ("LRN", [IMAGE], "lrn_param { local_size: 4 }", "local_size 4 must be odd"),
    ("PReLU", [(2,)], "", "at least 2 axes"),
    ("Accuracy", [(2, 6), (3,)], "", "2 labels are needed; the labels have shape 3"),
    ("SoftmaxWithLoss", [IMAGE, (2,)], "", "2x6x8x8, so 128 labels"),
    ("EuclideanLoss", [IMAGE, (3, 6)], "", "2x6x8x8 and 3x6; their first axes"),
    ("Input", [], "input_param { shape { dim: -1 } }", "cannot have shape -1"),
    ("DummyData", [], "dummy_data_param { num: 1 }", "num, channels, height and width"),
]


@pytest.mark.parametrize(("kind", "bottoms", "settings", "message"), CONTRADICTIONS)
def test_a_contradiction_is_one_sentence_with_layer_and_shapes(
    kind: str, bottoms: Sequence[Shape], settings: str, message: str
) -> None:
    tops = 2 if kind == "Slice" else 1
    with pytest.raises(SurgeryError, match=rf"^layer 'x' \({kind}\): .*{message}") as caught:
        shapes_of(kind, bottoms, settings, tops)
    assert "\n" not in str(caught.value)


@pytest.mark.real_caffe
@pytest.mark.parametrize(
    ("kind", "bottoms", "settings"),
    [
        (kind, bottoms, settings)
        for kind, bottoms, settings, message in CONTRADICTIONS
        if message.startswith(("kernel", "group", "2x6x8x8 and", "pad"))
    ],
)
def test_the_real_caffe_refuses_the_same(
    built_by_caffe: Callable[..., list[object]], kind: str, bottoms: Sequence[Shape], settings: str
) -> None:
    net = text_format.Parse(net_around(kind, bottoms, settings, len(bottoms)), NetParameter())
    with pytest.raises(AssertionError, match="Check failed"):
        built_by_caffe([(net, TEST)])


def test_too_many_tops_are_refused() -> None:
    with pytest.raises(SurgeryError, match=r"layer 'x' \(ReLU\): has 2 tops; it makes 1"):
        shapes_of("ReLU", [(2, 3)], "", tops=2)
