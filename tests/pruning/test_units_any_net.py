"""In any net, deleting units is zeroing all that leads out of them: the real Caffe's verdict."""

import numpy as np
import pytest
from google.protobuf import text_format
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import BlobKey, Caffemodel
from pycaffe_prune.net.channel_trace import trace_channels
from pycaffe_prune.net.fit import require_fitting
from pycaffe_prune.net.shapes import infer_shapes
from pycaffe_prune.pruning.units import (
    Kept,
    choose_units,
    delete_units,
    mask_units,
    prunable_layers,
    units_together,
)
from tests.pruning.conftest import CaffeForward
from tests.pruning.random_nets import SIZE, nets, random_weights

SHARED_FIXTURE = settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class Case:
    """A net, its weights, and a choice of units of some of its layers."""

    def __init__(self, net: NetParameter, model: Caffemodel, kept: Kept) -> None:
        self.net, self.model, self.kept = net, model, kept

    def __repr__(self) -> str:  # weights would be too long to read
        return f"{text_format.MessageToString(self.net)}\nkept: {self.kept}"


@st.composite
def cases(draw: st.DrawFn) -> Case:
    net = draw(nets())
    model = random_weights(net, draw(st.integers(0, 99)))
    names = prunable_layers(net, model)
    assume(names)
    ratios = {}
    for group in units_together(net, model):
        ratio = draw(st.sampled_from([0, 0.3, 0.5, 0.8]))
        ratios.update((name, ratio) for name in group if name in names)
    try:
        kept = choose_units(net, model, ratios, criterion="random", seed=draw(st.integers(0, 99)))
    except SurgeryError as error:
        # Groups that cross each other: no choice of units keeps all of them equal.
        assume("groups" not in str(error))
        raise
    return Case(net, model, kept)


def images() -> dict[str, np.ndarray]:
    random = np.random.default_rng(5)
    return {"data": random.normal(size=(2, 4, SIZE, SIZE)).astype(np.float32)}


def assert_same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for name, expected in one.items():
        size = max(float(np.abs(expected).max()), 1e-3)
        np.testing.assert_allclose(other[name] / size, expected / size, atol=2e-5, err_msg=name)


@pytest.mark.real_caffe
@SHARED_FIXTURE
@given(case=cases())
def test_the_deleted_net_computes_what_the_masked_one_does(
    caffe_forward: CaffeForward, case: Case
) -> None:
    net, model, kept = case.net, case.model, case.kept
    masked = caffe_forward(net, mask_units(net, model, kept), images())
    deleted = caffe_forward(*delete_units(net, model, kept), images())
    assert_same(masked, deleted)


@pytest.mark.real_caffe
@SHARED_FIXTURE
@given(case=cases())
def test_what_deleted_units_compute_reaches_no_output_of_the_masked_net(
    caffe_forward: CaffeForward, case: Case
) -> None:
    net, model, kept = case.net, case.model, case.kept
    masked = mask_units(net, model, kept)
    scrambled: dict[BlobKey, np.ndarray] = {}
    transposed = {layer.name for layer in net.layer if layer.inner_product_param.transpose}
    groups = {
        layer.name: layer.convolution_param.group
        for layer in net.layer
        if layer.type == "Deconvolution"
    }
    for name, keep in kept.items():
        weights = masked.layer(name).blobs[0].copy()
        if name in groups:  # the filters of a group are along axis 1, for each of its inputs
            grouped = weights.reshape(groups[name], -1, *weights.shape[1:]).swapaxes(1, 2)
            grouped[~keep.reshape(groups[name], -1)] = 7
        else:
            (weights.T if name in transposed else weights)[~keep] = 7
        scrambled[name, 0] = weights
    one = caffe_forward(net, masked, images())
    assert_same(one, caffe_forward(net, masked.with_blobs(scrambled), images()))


@settings(max_examples=100)
@given(case=cases())
def test_definitions_weights_and_inferred_shapes_shrink_together(
    case: Case,
) -> None:
    net, model, kept = case.net, case.model, case.kept
    small_net, small = delete_units(net, model, kept)
    require_fitting(small_net, small)
    counts = [sum(blob.size for _, blob in one.blobs()) for one in (model, small)]
    removed = any(not keep.all() for keep in kept.values())
    assert (counts[1] < counts[0]) == removed
    for layer, shapes in zip(small_net.layer, infer_shapes(small_net.layer), strict=True):
        assert shapes.problem is None
        if layer.name in kept:
            assert shapes.tops[0] is not None
            assert shapes.tops[0][1] == kept[layer.name].sum()
    # What is left is ready to be pruned again.
    assert set(trace_channels(small_net, small).units) == set(trace_channels(net, model).units)


@settings(max_examples=100)
@given(case=cases())
def test_the_arguments_are_left_as_they_were(case: Case) -> None:
    net, model, kept = case.net, case.model, case.kept
    text = net.SerializeToString(deterministic=True)
    values = [blob.copy() for _, blob in model.blobs()]
    delete_units(net, model, kept)
    mask_units(net, model, kept)
    assert net.SerializeToString(deterministic=True) == text
    for (_, blob), value in zip(model.blobs(), values, strict=True):
        np.testing.assert_array_equal(blob, value)
