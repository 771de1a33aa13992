from functools import partial

import numpy as np
import pytest
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter, NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer
from pycaffe_prune.pruning.model_sharing import share_within, shared_model, sharing_error
from pycaffe_prune.pruning.shared_weights import share, with_shared
from pycaffe_prune.pruning.sharing import shared_blobs


def drawn(seed: int, zeros: float = 0.5) -> np.ndarray:
    draws = np.random.default_rng(seed)
    weights = draws.standard_normal((20, 30)).astype(np.float32)
    weights[draws.random(weights.shape) < zeros] = 0
    return weights


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), error=st.sampled_from([0.0, 0.01, 0.05, 0.2, 1.0]))
def test_the_fewest_bits_within_the_error_are_taken(seed: int, error: float) -> None:
    weights = drawn(seed)
    sharing = share_within(weights, error)
    assert sharing_error(weights, with_shared(weights, sharing)) <= error
    bits = max(1, int(sharing.codebook.size - 1).bit_length())
    if bits > 1:
        fewer = with_shared(weights, share(weights, bits - 1))
        assert sharing_error(weights, fewer) > error


def test_the_error_is_the_root_of_the_shares_of_squares() -> None:
    weights = np.array([3, 4, 0], np.float32)
    assert sharing_error(weights, weights) == 0
    assert sharing_error(weights, np.array([3, 4.5, 0], np.float32)) == pytest.approx(0.1)
    assert sharing_error(weights, 0 * weights) == 1
    assert sharing_error(0 * weights, 0 * weights) == 0


NET = """
layer { name: "a" type: "InnerProduct" top: "a" param { name: "w" } }
layer { name: "b" type: "InnerProduct" top: "b" param { name: "w" } }
"""


def model(first: np.ndarray, second: np.ndarray) -> Caffemodel:
    return Caffemodel(
        tuple(
            Layer(LayerParameter(name=name, type="InnerProduct"), (blob,))
            for name, blob in (("a", first), ("b", second))
        )
    )


def test_layers_that_share_a_blob_stay_equal_and_others_stay_as_they_are() -> None:
    shared = shared_blobs(text_format.Parse(NET, NetParameter()))
    weights = drawn(3)
    wish = {("b", 0): partial(share, bits=2)}
    found = dict(shared_model(model(weights, weights), wish, shared).blobs())
    assert np.unique(found["b", 0]).size == 5  # 2^2 and zero
    assert found["a", 0].tobytes() == found["b", 0].tobytes()
    alone = dict(shared_model(model(weights, weights), wish, {}).blobs())
    assert alone["a", 0].tobytes() == weights.tobytes()
    with pytest.raises(SurgeryError, match="different"):
        shared_model(model(weights, drawn(4)), wish, shared)


def test_a_weight_that_is_not_finite_is_refused_with_its_layer() -> None:
    weights = drawn(3)
    weights[1, 1] = np.nan
    with pytest.raises(SurgeryError, match=r"^layer 'a', blob 0: a weight is NaN"):
        shared_model(model(weights, weights), {("a", 0): partial(share, bits=2)}, {})
