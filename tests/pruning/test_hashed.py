"""Weights given to buckets: what a hashed training begins with."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer
from pycaffe_prune.formats.compressed.blobs import Hash
from pycaffe_prune.formats.hashed import bucket_values, buckets_and_signs
from pycaffe_prune.pruning.hashed import bucket_count, hash_weights, layer_seed

KEY = ("ip", 0)


def model_of(blob: np.ndarray) -> Caffemodel:
    layer = LayerParameter(name="ip", type="InnerProduct")
    return Caffemodel((Layer(layer, (blob.astype(np.float32), np.ones(3, np.float32))),))


@settings(max_examples=30)
@given(st.integers(1, 90), st.integers(0, 2**40), st.booleans())
def test_each_bucket_has_a_magnitude_of_its_own_near_its_first_weight(buckets, seed, coarse):
    random = np.random.default_rng(buckets)
    blob = random.normal(size=(9, 10)).astype(np.float32)
    blob = np.round(blob, 1) if coarse else blob  # many are equal, some are 0
    hashed = hash_weights(model_of(blob), {KEY: Hash(buckets, seed)}).layer("ip").blobs

    assert np.array_equal(hashed[1], np.ones(3))
    values = bucket_values(hashed[0], buckets, seed)
    assert values is not None
    places, signs = buckets_and_signs(90, buckets, seed)
    used, firsts = np.unique(places, return_index=True)
    assert len(np.unique(np.abs(values[used]))) == len(used)
    assert (values[used] != 0).all()
    assert np.abs(values[used] - (blob.reshape(-1) * signs)[firsts]).max() < 1e-5


def test_weights_of_one_magnitude_are_refused():
    with pytest.raises(SurgeryError, match="layer 'ip', blob 0: all weights are of one magnitude"):
        hash_weights(model_of(np.full((4, 5), 0.5)), {KEY: Hash(6, 1)})


def test_buckets_are_the_share_asked_for_and_seeds_differ_by_layer():
    assert bucket_count(235_200, 1 / 8) == 29_400
    assert bucket_count(3, 1 / 64) == 1
    assert len({layer_seed(seed, place) for seed in range(9) for place in range(9)}) == 81
