"""Laws of predicted weights: what the dictionary gives back, and what the layers made of it do."""

import numpy as np
import pytest
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.net.fit import require_fitting
from pycaffe_prune.pruning.predicted import (
    dictionary,
    normalised,
    predicted,
    relative_error,
    sampled_inputs,
    squared_exponential,
)
from pycaffe_prune.pruning.predicted_layers import (
    covariance_kernel,
    drawn,
    place_kernel,
    predict_layers,
)
from tests.pruning.conftest import CaffeForward
from tests.pruning.random_nets import random_weights

RANDOM = np.random.default_rng(8)
NET = text_format.Parse(
    """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: [2, 3, 6, 5] } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 } }
layer { name: "ip1" type: "InnerProduct" bottom: "conv" top: "ip1"
  inner_product_param { num_output: 12 transpose: true } }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
  inner_product_param { num_output: 7 } }
""",
    NetParameter(),
)
MODEL = random_weights(NET, 3)


@settings(max_examples=30)
@given(st.integers(1, 60), st.floats(0, 0.999), st.integers(0, 9))
def test_the_sampled_inputs_are_different_and_as_many_as_are_not_predicted(
    inputs: int, share: float, seed: int
) -> None:
    found = sampled_inputs(inputs, share, seed)
    assert len(found) == max(1, round((1 - share) * inputs))
    assert (np.diff(found) > 0).all()
    assert 0 <= found[0] <= found[-1] < inputs
    np.testing.assert_array_equal(found, sampled_inputs(inputs, share, seed))


def test_the_kernel_falls_with_the_distance_within_a_map_alone() -> None:
    samples = np.array([0, 7, 33])  # of 3 maps of 4 x 5: (0, 0, 0), (0, 1, 2), (1, 2, 3)
    kernel = squared_exponential((3, 4, 5), samples, 1.5)
    for place in range(60):
        at = np.array(np.unravel_index(place, (3, 4, 5)))
        for column, sample in enumerate(samples):
            other = np.array(np.unravel_index(sample, (3, 4, 5)))
            wanted = np.exp(-np.square(at - other)[1:].sum() / (2 * 1.5**2))
            assert kernel[place, column] == pytest.approx(wanted if at[0] == other[0] else 0)


@settings(max_examples=20)
@given(st.integers(0, 99), st.floats(0.1, 0.9))
def test_smooth_weights_are_predicted_and_with_all_inputs_any(seed: int, share: float) -> None:
    random = np.random.default_rng(seed)
    shape, samples = (1, 6, 7), sampled_inputs(42, share, seed)
    kernel = squared_exponential(shape, samples, 2.0)
    fixed = dictionary(kernel, samples, 1e-6)
    between = kernel[samples] + 1e-6 * np.eye(len(samples))
    norm = np.linalg.norm(np.linalg.solve(between, kernel.T), 2)
    assert np.linalg.norm(fixed, 2) == pytest.approx(1)
    # What the kernel itself spans is given back from its values at the sampled inputs.
    weights = (kernel @ random.normal(size=(len(samples), 4))).T[None]
    near = norm * weights[0][:, samples] @ fixed
    np.testing.assert_allclose(near, weights[0], atol=1e-2 * np.abs(weights).max())
    assert relative_error(weights, predicted(weights, fixed)) < 1e-4
    # Least squares leave no more than the values at the sampled inputs do.
    rough = random.normal(size=(1, 5, 42))
    factors = predicted(rough, fixed)
    plain = np.square(rough - norm * rough[:, :, samples] @ fixed).sum() / np.square(rough).sum()
    assert relative_error(rough, factors) <= plain + 1e-9
    everything = np.arange(42)
    whole = dictionary(squared_exponential(shape, everything, 0.5), everything, 1e-3)
    assert relative_error(rough, predicted(rough, whole)) < 1e-9


def test_a_covariance_is_a_kernel_of_mean_diagonal_1() -> None:
    values = RANDOM.normal(size=(50, 6)) * np.arange(1, 7)
    covariance = np.cov(values.T, bias=True)
    found = normalised(covariance, np.diag(covariance))
    assert np.diag(found).mean() == pytest.approx(1)
    with pytest.raises(SurgeryError, match="layer 'ip' reads the same values of every image"):
        covariance_kernel("ip", np.array([0]), np.zeros((3, 1)), np.zeros(3))


@pytest.mark.real_caffe
def test_the_real_caffe_computes_with_the_predicted_weights(caffe_forward: CaffeForward) -> None:
    kernels = {}
    for name, share in (("conv", 0.5), ("ip1", 0.7)):
        samples = drawn(NET, MODEL, name, share, 1)
        kernels[name] = place_kernel(NET, MODEL, name, samples, 1.0)
    samples = drawn(NET, MODEL, "ip2", 0.5, 1)
    covariance = np.cov(RANDOM.normal(size=(9, 12)).T, bias=True)
    kernels["ip2"] = covariance_kernel("ip2", samples, covariance[:, samples], np.diag(covariance))
    net, model, rows = predict_layers(NET, MODEL, kernels, 0.01)
    require_fitting(net, model)
    assert [layer.name for layer in net.layer if layer.param] == ["conv_v", "ip1_v", "ip2_v"]
    changed = {}
    for name, row in rows.items():
        first, second = (model.layer(one).blobs[0] for one in (f"{name}_v", name))
        assert (row.learned, row.fixed) == (second.size, first.size)
        if name == "ip1":
            first, second = first.T, second.T
        product = second.reshape(len(second), -1) @ first.reshape(len(first), -1)
        weights = MODEL.layer(name).blobs[0]
        product = product.T if name == "ip1" else product.reshape(weights.shape)
        error = np.square(product - weights).sum() / np.square(weights).sum()
        assert row.error == pytest.approx(error, abs=1e-4)
        changed[name, 0] = np.ascontiguousarray(product, np.float32)
    images = {"data": RANDOM.normal(size=(2, 3, 6, 5)).astype(np.float32)}
    wanted = caffe_forward(NET, MODEL.with_blobs(changed), images)["ip2"]
    np.testing.assert_allclose(caffe_forward(net, model, images)["ip2"], wanted, atol=1e-4)


def test_inputs_without_places_are_refused() -> None:
    samples = drawn(NET, MODEL, "ip2", 0.5, 1)
    with pytest.raises(SurgeryError, match="layer 'ip2' reads 12 values an image, which have no"):
        place_kernel(NET, MODEL, "ip2", samples, 1.0)
    with pytest.raises(SurgeryError, match="layer 'ip2': a share of 1 of the inputs cannot"):
        drawn(NET, MODEL, "ip2", 1, 1)
    net = NetParameter()
    net.CopyFrom(NET)
    net.layer[0].input_param.Clear()
    with pytest.raises(SurgeryError, match="the blob 'conv' that layer 'ip1' reads is not known"):
        place_kernel(net, MODEL, "ip1", samples, 1.0)
    with pytest.raises(SurgeryError, match="the TEST net has no layer 'other'"):
        place_kernel(net, MODEL, "other", samples, 1.0)
