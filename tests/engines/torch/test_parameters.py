"""Every value has one place, equal multipliers lie together, sharing is Caffe's."""

import math

import pytest
import torch
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st

from pycaffe_prune.engines.torch.parameters import Learnable, Parameters, learnables
from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import NetParameter

CPU = torch.device("cpu")
shapes = st.lists(st.integers(1, 4), max_size=3).map(tuple)
multipliers = st.sampled_from([0.0, 1.0, 2.0])


@st.composite
def blobs(draw) -> list[Learnable]:
    count = draw(st.integers(1, 6))
    return [
        Learnable((f"l{n}", 0), draw(shapes), draw(multipliers), draw(multipliers))
        for n in range(count)
    ]


@given(blobs(), st.none() | st.integers(1, 3))
def test_each_value_belongs_to_one_blob_and_one_group(found, runs):
    parameters = Parameters(found, CPU, runs)
    flat = parameters.zeros()
    assert flat.shape == ((runs,) if runs else ()) + (parameters.count,)
    for view in parameters.views(flat):
        view.add_(1)
    assert torch.equal(flat, torch.ones_like(flat))
    for blob in found:
        assert parameters.view(flat, blob.key).shape == flat.shape[:-1] + blob.shape
        start, stop = parameters.place(blob.key)
        (group,) = (g for g in parameters.groups if g.start <= start and stop <= g.stop)
        assert (group.lr_mult, group.decay_mult) == (blob.lr_mult, blob.decay_mult)
    assert sum(group.stop - group.start for group in parameters.groups) == parameters.count
    kinds = [(group.lr_mult, group.decay_mult) for group in parameters.groups]
    assert len(kinds) == len(set(kinds))


def _net(*layers: str) -> list:
    text = "\n".join(f"layer {{ {layer} }}" for layer in layers)
    return list(text_format.Parse(text, NetParameter()).layer)


def test_a_shared_blob_is_its_owners_with_the_multiplier_that_either_states():
    layers = _net(
        'name: "a" type: "InnerProduct" param { name: "w" } param { lr_mult: 2 }',
        'name: "b" type: "InnerProduct" param { name: "w" lr_mult: 3 decay_mult: 0 }',
        'name: "n" type: "BatchNorm" param { lr_mult: 0 }',
    )
    found, owners = learnables(layers, [[(2, 3), (2,)], [(2, 3), (2,)], [(2,), (2,), (1,)]])
    assert owners == {("b", 0): ("a", 0)}
    assert [(blob.key, blob.lr_mult, blob.decay_mult) for blob in found] == [
        (("a", 0), 3.0, 0.0),
        (("a", 1), 2.0, 1.0),
        (("b", 1), 1.0, 1.0),
        (("n", 0), 0.0, 1.0),
        (("n", 1), 0.0, 1.0),
        (("n", 2), 0.0, 1.0),
    ]


@pytest.mark.parametrize(
    ("second", "shape", "match"),
    [
        ('name: "w"', (3, 2), "'b', blob 0 is 3x2 .* 'a', which is 2x3"),
        ('name: "w" share_mode: PERMISSIVE', (4, 2), "is 4x2"),
        ('name: "w" lr_mult: 3', (2, 3), "lr_mult 3 is not the owner's 2"),
    ],
)
def test_sharing_that_caffe_refuses_is_refused(second, shape, match):
    layers = _net(
        'name: "a" type: "InnerProduct" param { name: "w" lr_mult: 2 }',
        f'name: "b" type: "InnerProduct" param {{ {second} }}',
    )
    with pytest.raises(SurgeryError, match=match):
        learnables(layers, [[(2, 3)], [shape]])


def test_permissive_sharing_goes_by_the_count():
    layers = _net(
        'name: "a" type: "InnerProduct" param { name: "w" }',
        'name: "b" type: "InnerProduct" param { name: "w" share_mode: PERMISSIVE }',
    )
    found, _ = learnables(layers, [[(2, 3)], [(6, 1)]])
    assert [math.prod(blob.shape) for blob in found] == [6]
