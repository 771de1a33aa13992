"""Single layers with drawn settings and inputs: with weights, windows or statistics."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from hypothesis import strategies as st

from pycaffe_prune.formats.caffe_pb2 import LayerParameter
from pycaffe_prune.net.shapes import infer_shapes
from tests.engines.torch.layer_case import Array, Case

Draw = st.DrawFn
Shape = tuple[int, ...]


def _values(draw: Draw, shape: Shape, *, ties: bool = False) -> Array:
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    if ties:
        return random.integers(-4, 5, shape).astype(np.float32) / 4
    centre = draw(st.sampled_from([0, 1]))
    return np.asarray(random.normal(centre, 1, shape), np.float32)


def _shape(draw: Draw, least: int = 1, most: int = 4) -> Shape:
    return tuple(draw(st.lists(st.integers(1, 4), min_size=least, max_size=most)))


def _flag(draw: Draw, name: str) -> str:
    return f"{name}: {str(draw(st.booleans())).lower()}"


def _filled(draw: Draw, case: Case) -> Case:
    """The case with parameters."""
    param: LayerParameter = case.param
    shapes = {name: array.shape for name, array in zip(param.bottom, case.bottoms, strict=True)}
    case.params.extend(_values(draw, shape) for shape in infer_shapes([param], shapes)[0].params)
    return case


# Weights


@st.composite
def _inner_product(draw: Draw) -> Case:
    shape = _shape(draw)
    settings = (
        f"inner_product_param {{ num_output: {draw(st.integers(1, 5))} "
        f"axis: {draw(st.integers(-len(shape), len(shape) - 1))} "
        f"{_flag(draw, 'bias_term')} {_flag(draw, 'transpose')} }}"
    )
    return _filled(draw, Case("InnerProduct", [_values(draw, shape)], settings))


@st.composite
def _embed(draw: Draw) -> Case:
    rows = draw(st.integers(1, 4))
    settings = (
        f"loss_weight: 1 embed_param {{ num_output: {draw(st.integers(1, 4))} input_dim: {rows} "
        f"{_flag(draw, 'bias_term')} }}"
    )
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    picked = random.integers(0, rows, _shape(draw)).astype(np.float32)
    return _filled(draw, Case("Embed", [picked], settings, gradients=(False,)))


@st.composite
def _convolving(draw: Draw, kind: str) -> Case:
    axes = draw(st.sampled_from([2, 2, 2, 1, 3, 0, 4]))
    group = draw(st.integers(1, 2))
    room = 1 if axes == 4 else 4
    transposed = kind == "Deconvolution"
    windows = [_window(draw, transposed=transposed, room=room) for _ in range(axes)]
    lead = _shape(draw, 0, 2)
    channels = group * draw(st.integers(1, 3))
    bottom = (*lead, channels, *(size for size, *_ in windows))
    settings = (
        f"convolution_param {{ num_output: {group * draw(st.integers(1, 3))} group: {group} "
        f"axis: {draw(st.sampled_from([len(lead), -axes - 1]))} {_flag(draw, 'bias_term')} "
        f"{_flag(draw, 'force_nd_im2col')} {_told(windows)} }}"
    )
    count = draw(st.sampled_from([1, 1, 2]))
    bottoms = [_values(draw, bottom) for _ in range(count)]
    return _filled(draw, Case(kind, bottoms, settings, tops=count))


@st.composite
def _im2col(draw: Draw) -> Case:
    axes = draw(st.integers(1, 4))
    windows = [_window(draw, transposed=False, room=5 - axes) for _ in range(axes)]
    lead = _shape(draw, 0, 2)
    bottom = (*lead, draw(st.integers(1, 3)), *(size for size, *_ in windows))
    axis = draw(st.sampled_from([len(lead), -axes - 1]))
    settings = (
        f"convolution_param {{ axis: {axis} {_flag(draw, 'force_nd_im2col')} {_told(windows)} }}"
    )
    return Case("Im2col", [_values(draw, bottom)], settings)


def _told(windows: Sequence[tuple[int, ...]]) -> str:
    names = ("kernel_size", "stride", "pad", "dilation")
    return " ".join(
        f"{name}: {value}"
        for values in windows
        for name, value in zip(names, values[1:], strict=True)
    )


def _window(draw: Draw, *, transposed: bool, room: int) -> tuple[int, int, int, int, int]:
    """Size, kernel, stride, pad and dilation of one axis; something comes out."""
    kernel, stride, pad, dilation = (
        draw(st.integers(least, most)) for least, most in ((1, 3), (1, 3), (0, 2), (1, 2))
    )
    reach = dilation * (kernel - 1) + 1
    if transposed:
        least = 1 + max(0, -(-(1 + 2 * pad - reach) // stride))
    else:
        least = max(1, reach - 2 * pad - stride + 1)
    return least + draw(st.integers(0, room)), kernel, stride, pad, dilation


@st.composite
def _scale(draw: Draw, kind: str) -> Case:
    bottom = _shape(draw)
    axis = draw(st.integers(0, len(bottom) - 1))
    axes = draw(st.integers(-1, len(bottom) - axis))
    biased = _flag(draw, "bias_term") if kind == "Scale" else ""
    covered = f"axis: {axis} num_axes: {axes}"
    bottoms = [_values(draw, bottom)]
    if axes > 0 and draw(st.booleans()):
        bottoms.append(_values(draw, bottom[axis : axis + axes]))
    return _filled(draw, Case(kind, bottoms, f"{kind.lower()}_param {{ {covered} {biased} }}"))


@st.composite
def _prelu(draw: Draw) -> Case:
    settings = f"prelu_param {{ {_flag(draw, 'channel_shared')} }}"
    values = _values(draw, _shape(draw, 2), ties=draw(st.booleans()))
    return _filled(draw, Case("PReLU", [values], settings))


# Sequences


@st.composite
def _recurrent(draw: Draw, kind: str) -> Case:
    steps, streams, outputs = (draw(st.integers(1, most)) for most in (4, 3, 3))
    states = {"LSTM": 2, "RNN": 1}[kind] if draw(st.booleans()) else 0
    marks = _marks(draw, steps, streams)
    if not states:
        marks[0] = 0  # what the passes before left does not count
    bottoms = [_values(draw, (steps, streams, *_shape(draw, 1, 2))), marks]
    if draw(st.booleans()):
        bottoms.append(_values(draw, (streams, *_shape(draw, 1, 2))))
    bottoms += [_values(draw, (1, streams, outputs)) for _ in range(states)]
    exposed = str(bool(states)).lower()
    settings = f"recurrent_param {{ num_output: {outputs} expose_hidden: {exposed} }}"
    gradients = tuple(number != 1 for number in range(len(bottoms)))
    return _filled(draw, Case(kind, bottoms, settings, tops=1 + states, gradients=gradients))


@st.composite
def _lstm_unit(draw: Draw) -> Case:
    streams, outputs = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    bottoms = [_values(draw, (1, streams, count * outputs)) for count in (1, 4)]
    bottoms.append(_marks(draw, 1, streams))
    return Case("LSTMUnit", bottoms, tops=2, gradients=(True, True, False))


def _marks(draw: Draw, steps: int, streams: int) -> Array:
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    return random.integers(0, 2, (steps, streams)).astype(np.float32)


# Windows and statistics


@st.composite
def _pooling(draw: Draw) -> Case:
    method = draw(st.sampled_from(["MAX", "AVE"]))
    rounding = draw(st.sampled_from(["CEIL", "CEIL", "FLOOR"]))
    if draw(st.integers(0, 5)) == 0:
        size, windows = _shape(draw, 2, 2), "global_pooling: true"
    else:
        rows, columns = (_pooled_axis(draw, rounding) for _ in range(2))
        windows = " ".join(
            f"{name}_h: {row} {name}_w: {column}"
            for name, row, column in zip(
                ("kernel", "stride", "pad"), rows[1:], columns[1:], strict=True
            )
        )
        size = (rows[0], columns[0])
    settings = f"pooling_param {{ pool: {method} round_mode: {rounding} {windows} }}"
    tops = 2 if method == "MAX" and draw(st.booleans()) else 1
    bottom = _values(draw, (*_shape(draw, 2, 2), *size), ties=draw(st.booleans()))
    return Case("Pooling", [bottom], settings, tops=tops)


def _pooled_axis(draw: Draw, rounding: str) -> tuple[int, int, int, int]:
    """Size, kernel, stride and pad of one axis; no window begins behind the end."""
    kernel = draw(st.integers(1, 4))
    stride, pad = draw(st.integers(1, kernel)), draw(st.integers(0, kernel - 1))
    least = kernel - 2 * pad - (stride - 1 if rounding == "CEIL" else 0)
    return max(1, least) + draw(st.integers(0, 5)), kernel, stride, pad


@st.composite
def _pyramid(draw: Draw) -> Case:
    height = draw(st.integers(1, 3))
    size = tuple(draw(st.sampled_from(_SIDES[height - 1])) for _ in range(2))
    method = draw(st.sampled_from(["", "pool: AVE"]))
    bottom = _values(draw, (*_shape(draw, 2, 2), *size), ties=draw(st.booleans()))
    return Case("SPP", [bottom], f"spp_param {{ pyramid_height: {height} {method} }}")


_SIDES = (range(1, 8), range(2, 8), (4, 7, 8, 9, 11))
"""By height of a pyramid, heights and widths of bottoms that every level fits."""


@st.composite
def _lrn(draw: Draw) -> Case:
    region = draw(st.sampled_from(["ACROSS_CHANNELS", "ACROSS_CHANNELS", "WITHIN_CHANNEL"]))
    settings = (
        f"lrn_param {{ norm_region: {region} local_size: {2 * draw(st.integers(0, 3)) + 1} "
        f"alpha: {draw(st.sampled_from([1, 0.0001, 0.5]))} "
        f"beta: {draw(st.sampled_from([0.75, 0.5, 1.2]))} k: {draw(st.sampled_from([1, 2]))} }}"
    )
    values = _values(draw, (*_shape(draw, 1, 1), draw(st.integers(1, 7)), *_shape(draw, 2, 2)))
    return Case("LRN", [values], settings)


@st.composite
def _batch_norm(draw: Draw) -> Case:
    # Of two values all that is normalized is the sign: gradients are rounding errors then.
    shape = (draw(st.integers(4, 6)), *_shape(draw, 1, 3))
    settings = (
        f"batch_norm_param {{ eps: {draw(st.sampled_from([0.00001, 0.1]))} "
        f"moving_average_fraction: {draw(st.sampled_from([0.999, 0.5]))} "
        f"{draw(st.sampled_from(['', '', _flag(draw, 'use_global_stats')]))} }}"
    )
    mean, variance = _values(draw, shape[1:2]), abs(_values(draw, shape[1:2]))
    factor = np.full(1, draw(st.sampled_from([1, 0, 3.5])), np.float32)
    return Case("BatchNorm", [_values(draw, shape)], settings, params=[mean, variance, factor])


@st.composite
def _mvn(draw: Draw) -> Case:
    settings = (
        f"mvn_param {{ {_flag(draw, 'normalize_variance')} {_flag(draw, 'across_channels')} "
        f"eps: {draw(st.sampled_from([0.000000001, 0.1]))} }}"
    )
    values = _values(draw, (*_shape(draw, 2, 2), draw(st.integers(2, 4)), draw(st.integers(2, 4))))
    return Case("MVN", [values], settings)


CASES: Mapping[str, Callable[[], st.SearchStrategy[Case]]] = {
    "BatchNorm": _batch_norm,
    "Bias": lambda: _scale("Bias"),
    "Convolution": lambda: _convolving("Convolution"),
    "Deconvolution": lambda: _convolving("Deconvolution"),
    "Embed": _embed,
    "Im2col": _im2col,
    "InnerProduct": _inner_product,
    "LRN": _lrn,
    "LSTM": lambda: _recurrent("LSTM"),
    "LSTMUnit": _lstm_unit,
    "MVN": _mvn,
    "PReLU": _prelu,
    "Pooling": _pooling,
    "RNN": lambda: _recurrent("RNN"),
    "SPP": _pyramid,
    "Scale": lambda: _scale("Scale"),
}
"""Per type, the settings and inputs that it is tried with."""
