"""Our layers beside Caffe's: the same inputs, forward and backward."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from google.protobuf import text_format
from torch import Tensor

from pycaffe_prune.engines.torch.layers.base import Layer, LayerSetup
from pycaffe_prune.engines.torch.layers.registry import make_layer
from pycaffe_prune.formats.caffe_pb2 import TRAIN, LayerParameter
from pycaffe_prune.net.shapes import LayerShapes, Shape, infer_shapes
from tests.parity.conftest import Array, CaffeLayer, LayerRun

TOLERANCE = 1e-5
"""Of the largest value of each array; for gradients, of the largest gradient of a top if greater,
since a sum over many of them may come out near 0."""


def parse_layer(kind: str, settings: str = "", bottoms: int = 1, tops: int = 1) -> LayerParameter:
    """A layer that reads the blobs b0, b1, ... and makes t0, t1, ..."""
    param = text_format.Parse(settings, LayerParameter(name="x", type=kind))
    param.bottom.extend(f"b{number}" for number in range(bottoms))
    param.top.extend(f"t{number}" for number in range(tops))
    return param


def shapes_around(param: LayerParameter, bottoms: Sequence[Shape]) -> LayerShapes:
    (around,) = infer_shapes([param], dict(zip(param.bottom, bottoms, strict=True)))
    assert around.problem is None
    return around


def build_layer(param: LayerParameter, bottoms: Sequence[Shape], phase: int = TRAIN) -> Layer:
    """The layer as a net would make it."""
    tops = tuple(shape or () for shape in shapes_around(param, bottoms).tops)
    return make_layer(LayerSetup(param, tuple(bottoms), tops, phase))


def run_by_hand(
    layer: Layer,
    bottoms: Sequence[Array],
    params: Sequence[Array],
    top_diffs: Sequence[Array | None],
    propagate: Sequence[bool],
) -> LayerRun:
    """Run the pass that trains: `forward_saving` and `backward` as the layer defines them."""
    return _run(layer, type(layer), bottoms, params, top_diffs, propagate)


def run_by_autograd(
    layer: Layer,
    bottoms: Sequence[Array],
    params: Sequence[Array],
    top_diffs: Sequence[Array | None],
    propagate: Sequence[bool],
) -> LayerRun:
    """Run the layer's pure `forward`, and autograd over it."""
    return _run(layer, Layer, bottoms, params, top_diffs, propagate)


def _run(
    layer: Layer,
    passes: type[Layer],
    bottoms: Sequence[Array],
    params: Sequence[Array],
    top_diffs: Sequence[Array | None],
    propagate: Sequence[bool],
) -> LayerRun:
    held, blobs = [_tensors(arrays) for arrays in (bottoms, params)]
    diffs = [None if diff is None else torch.from_numpy(diff.copy()) for diff in top_diffs]
    param_diffs: list[Tensor | None] = [torch.zeros_like(blob) for blob in blobs]
    with torch.no_grad():
        tops, saved = passes.forward_saving(layer, held, blobs)
        values = [top.numpy().copy() for top in tops]
        found = passes.backward(layer, saved, diffs, propagate, param_diffs)
    for given, diff in zip(top_diffs, diffs, strict=True):
        assert given is None or (diff is not None and np.array_equal(given, diff.numpy()))
    for wanted, bottom_diff in zip(propagate, found, strict=True):
        assert wanted or bottom_diff is None
    return LayerRun(
        values,
        [_array(diff, bottom) for diff, bottom in zip(found, held, strict=True)],
        [_array(diff, blob) for diff, blob in zip(param_diffs, blobs, strict=True)],
        [blob.numpy() for blob in blobs],
    )


def _tensors(arrays: Sequence[Array]) -> list[Tensor]:
    return [torch.from_numpy(array.copy()) for array in arrays]


def _array(diff: Tensor | None, like: Tensor) -> Array:
    found: Array = (torch.zeros_like(like) if diff is None else diff).numpy()
    return found


def require_close(
    ours: LayerRun,
    theirs: LayerRun,
    top_diffs: Sequence[Array | None],
    propagate: Sequence[bool],
    tolerance: float = TOLERANCE,
) -> None:
    """Require equal tops, and equal gradients where they are wanted."""
    _require_arrays("top", ours.tops, theirs.tops, tolerance)
    _require_arrays("param", ours.params, theirs.params, tolerance)
    pairs = zip(ours.bottom_diffs, theirs.bottom_diffs, propagate, strict=True)
    kept = [(mine, other) for mine, other, wanted in pairs if wanted]
    least = max((np.abs(diff).max(initial=0) for diff in top_diffs if diff is not None), default=0)
    _require_arrays("bottom diff", [m for m, _ in kept], [o for _, o in kept], tolerance, least)
    _require_arrays("param diff", ours.param_diffs, theirs.param_diffs, tolerance, least)


def _require_arrays(
    what: str,
    ours: Sequence[Array],
    theirs: Sequence[Array],
    tolerance: float,
    least: float = 0,
) -> None:
    assert len(ours) == len(theirs), what
    for number, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        largest = max(np.abs(other).max(initial=0), least)
        assert mine.shape == other.shape, (what, number)
        np.testing.assert_allclose(
            mine, other, rtol=0, atol=tolerance * largest, err_msg=f"{what} {number}"
        )


def require_parity(
    caffe: CaffeLayer,
    param: LayerParameter,
    bottoms: Sequence[Array],
    params: Sequence[Array],
    top_diffs: Sequence[Array | None],
    phase: int = TRAIN,
    propagate: Sequence[bool] = (),
    tolerance: float = TOLERANCE,
) -> LayerRun:
    """Require that the layer does what the real Caffe does, by hand and by autograd.

    ``propagate``: the bottoms whose gradients count, all when empty. Returns our run by hand.
    """
    wanted = propagate or [True] * len(bottoms)
    theirs = caffe(param, bottoms, params, top_diffs, phase)
    layer = build_layer(param, [bottom.shape for bottom in bottoms], phase)
    pure = run_by_autograd(layer, bottoms, params, top_diffs, wanted)
    for held, given in zip(pure.params, params, strict=True):
        assert np.array_equal(held, given), "a pure function wrote to its parameters"
    require_close(replace(pure, params=theirs.params), theirs, top_diffs, wanted, tolerance)
    ours = run_by_hand(layer, bottoms, params, top_diffs, wanted)
    require_close(ours, theirs, top_diffs, wanted, tolerance)
    return ours
