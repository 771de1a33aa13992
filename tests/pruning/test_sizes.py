"""Sizes are those of the files and of the toolkit's counts, in any net."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import TEST, LayerParameter, NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer, write_caffemodel
from pycaffe_prune.formats.compressed.file import write_compressed
from pycaffe_prune.formats.prototxt import read_net
from pycaffe_prune.formats.sparse import write_sparse
from pycaffe_prune.net.counts import count_layers
from pycaffe_prune.net.graph import NetState, layers_in_state
from pycaffe_prune.pruning.dead import delete_dead
from pycaffe_prune.pruning.sizes import ModelSizes, model_sizes
from pycaffe_prune.share import share_root
from tests.pruning.random_nets import nets, random_weights, sparse_weights

PROTOTXT = share_root() / "prototxt"


def weights_of(net: NetParameter) -> Caffemodel:
    """Random weights of the deploy net."""
    deployed = NetParameter()
    deployed.CopyFrom(net)
    del deployed.layer[:]
    deployed.layer.extend(layers_in_state(net, NetState.of(net, TEST)))
    return random_weights(deployed, 0)


def with_zeros(model: Caffemodel, share: float) -> Caffemodel:
    """The model with so large a share of its weights gone."""
    random = np.random.default_rng(1)
    return model.with_blobs(
        {
            key: np.where(random.random(blob.shape) < share, np.float32(0), blob)
            for key, blob in model.blobs()
            if blob.ndim > 1
        }
    )


FORMS = {"caffemodel": write_caffemodel, "sparse": write_sparse, "compressed": write_compressed}


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(nets(), st.integers(0, 999))
def test_stored_bytes_are_those_of_the_files(tmp_path: Path, net: NetParameter, seed: int) -> None:
    model = sparse_weights(net, seed)
    found = model_sizes(net, model).whole.stored_bytes
    path = tmp_path / "model"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        for form, write in FORMS.items():
            write(path, model)
            assert found[form] == path.stat().st_size, form


@settings(max_examples=15)
@given(nets(), st.integers(0, 999))
def test_a_net_counts_as_its_definition_does_and_zeros_as_their_complement(
    net: NetParameter, seed: int
) -> None:
    whole, sparse = random_weights(net, seed), sparse_weights(net, seed)
    rest = whole.with_blobs(
        {
            key: np.where(sparse.layer(key[0]).blobs[key[1]] == 0, blob, 0).astype(np.float32)
            for key, blob in whole.blobs()
        }
    )
    layers = count_layers(net.layer)
    one, other = model_sizes(net, sparse).whole, model_sizes(net, rest).whole
    for size in (one, other):
        assert size.weights == sum(layer.weights for layer in layers)
        assert size.macs == sum(layer.macs or 0 for layer in layers)
        assert size.parameters == sum(
            layer.weights + layer.biases + layer.statistics for layer in layers
        )
    assert one.non_zero_weights + other.non_zero_weights == one.weights
    assert one.non_zero_macs is not None
    assert other.non_zero_macs is not None
    assert one.non_zero_macs + other.non_zero_macs == one.macs
    biases = one.parameters - one.weights
    assert one.kept_parameters == one.non_zero_weights + biases


@settings(max_examples=12)
@given(nets(), st.integers(0, 999))
def test_without_dead_units_it_is_as_large_as_the_net_that_prune_dead_writes(
    net: NetParameter, seed: int
) -> None:
    model = sparse_weights(net, seed)
    found, left = model_sizes(net, model), delete_dead(net, model)
    alone = model_sizes(left.net, left.model).whole
    assert found.alive is not None
    assert found.alive == alone.model_copy(update={"units": found.alive.units})
    assert found.alive.units == {name: int(keep.sum()) for name, keep in left.kept.items()}
    assert found.alive.weights <= found.whole.weights
    assert ModelSizes.model_validate_json(found.model_dump_json()) == found


def test_of_a_layer_that_lost_its_inputs_nothing_is_left_but_what_must_be() -> None:
    net = read_net(PROTOTXT / "lenet_300_100" / "deploy.prototxt")
    model = weights_of(net)
    model.layer("ip1").blobs[0][20:] = 0
    found = model_sizes(net, model)
    assert found.alive is not None
    assert found.whole.units == {"ip1": 300, "ip2": 100, "ip3": 10}
    assert found.alive.units == {"ip1": 20, "ip2": 100, "ip3": 10}
    assert found.alive.parameters == 20 * 785 + 100 * 21 + 10 * 101
    assert found.alive.macs == 20 * 784 + 100 * 20 + 10 * 100
    assert found.whole.macs == 784 * 300 + 300 * 100 + 100 * 10
    assert found.whole.non_zero_macs == 784 * 20 + 300 * 100 + 100 * 10


def test_images_of_a_database_have_the_size_that_is_told() -> None:
    whole, trained = (
        read_net(PROTOTXT / "lenet" / name) for name in ("deploy.prototxt", "train_val.prototxt")
    )
    model = with_zeros(weights_of(whole), 0.9)
    unknown = model_sizes(trained, model)
    assert (unknown.whole.macs, unknown.whole.non_zero_macs) == (None, None)
    assert unknown.whole.parameters == 431_080
    told = model_sizes(trained, model, {"data": (100, 1, 28, 28)})
    assert told == model_sizes(whole, model)
    assert told.whole.macs == 2_293_000


def test_where_the_images_lay_does_not_matter() -> None:
    net = read_net(PROTOTXT / "lenet_300_100" / "train_val.prototxt")
    model = weights_of(read_net(PROTOTXT / "lenet_300_100" / "deploy.prototxt"))
    data = LayerParameter(name="mnist", type="Data", top=["data", "label"])
    data.data_param.source = "/home/someone/mnist_train_lmdb"
    saved = replace(model, layers=(Layer(data), *model.layers))
    assert model_sizes(net, saved) == model_sizes(net, model)


def test_weights_that_no_unit_can_be_judged_by_are_counted_all_the_same() -> None:
    net = read_net(PROTOTXT / "lenet_300_100" / "deploy.prototxt")
    model = weights_of(net)
    model.layer("ip1").blobs[0][0, 0] = np.nan
    found = model_sizes(net, model)
    assert found.alive is None
    assert found.alive_problem is not None
    assert "layer 'ip1', blob 0" in found.alive_problem
    assert found.whole.non_zero_weights == 266_200


def test_weights_of_another_net_are_refused() -> None:
    net = read_net(PROTOTXT / "lenet_300_100" / "deploy.prototxt")
    model = weights_of(net)
    with pytest.raises(SurgeryError, match="ip1"):
        model_sizes(net, replace(model, layers=model.layers[1:]))
