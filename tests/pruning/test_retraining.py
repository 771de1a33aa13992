import math

import numpy as np
import pytest
from google.protobuf import text_format

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter, NetParameter, SolverParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer
from pycaffe_prune.pruning.retraining import (
    scaled_dropout,
    training_only,
    with_decay,
    with_rate,
)

NET = """
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 } param { lr_mult: 1 } }
layer { name: "ip1" type: "InnerProduct" bottom: "conv" top: "ip1"
  inner_product_param { num_output: 8 } param { lr_mult: 1 } param { lr_mult: 2 decay_mult: 3 } }
layer { name: "relu" type: "ReLU" bottom: "ip1" top: "ip1" }
layer { name: "drop" type: "Dropout" bottom: "ip1" top: "ip1"
  dropout_param { dropout_ratio: 0.6 } }
layer { name: "flat" type: "Flatten" bottom: "ip1" top: "flat" }
layer { name: "left" type: "InnerProduct" bottom: "flat" top: "left"
  inner_product_param { num_output: 4 } }
layer { name: "right" type: "InnerProduct" bottom: "flat" top: "right"
  inner_product_param { num_output: 2 } }
layer { name: "end" type: "Dropout" bottom: "right" top: "right" }
"""


def net() -> NetParameter:
    return text_format.Parse(NET, NetParameter())


def layer(name: str, *shapes: tuple[int, ...]) -> Layer:
    types = {one.name: one.type for one in net().layer}
    blobs = tuple(np.ones(shape, np.float32) for shape in shapes)
    return Layer(LayerParameter(name=name, type=types[name]), blobs)


MODEL = Caffemodel(
    (
        layer("conv", (4, 1, 3, 3), (4,)),
        layer("ip1", (8, 16), (8,)),
        layer("left", (4, 8), (4,)),
        layer("right", (2, 8), (2,)),
    )
)


def ratios(changed: NetParameter) -> dict[str, float]:
    return {
        one.name: one.dropout_param.dropout_ratio for one in changed.layer if one.type == "Dropout"
    }


def kept(shape: tuple[int, ...], count: int) -> np.ndarray:
    return (np.arange(math.prod(shape)) < count).reshape(shape)


def test_a_dropout_ratio_falls_with_the_root_of_what_is_left_of_the_layers_it_feeds() -> None:
    masks = {("left", 0): kept((4, 8), 6), ("right", 0): kept((2, 8), 6)}
    found = ratios(scaled_dropout(net(), MODEL, masks))
    assert found["drop"] == pytest.approx(0.6 * math.sqrt(12 / 48))
    assert found["end"] == 0.5  # feeds nothing


def test_what_is_pruned_before_the_dropout_does_not_count() -> None:
    assert ratios(scaled_dropout(net(), MODEL, {("ip1", 0): kept((8, 16), 1)})) == ratios(net())


def test_a_layer_without_a_mask_counts_as_whole() -> None:
    found = ratios(scaled_dropout(net(), MODEL, {("left", 0): kept((4, 8), 0)}))
    assert found["drop"] == pytest.approx(0.6 * math.sqrt(16 / 48))


def test_the_net_is_left_alone() -> None:
    before = net()
    scaled_dropout(before, MODEL, {("left", 0): kept((4, 8), 6)})
    training_only(before, ["ip1"], MODEL)
    assert before == net()


def test_only_chosen_layers_learn() -> None:
    changed = training_only(net(), ["ip1", "left"], MODEL)
    multipliers = {
        one.name: [(spec.lr_mult, spec.decay_mult) for spec in one.param] for one in changed.layer
    }
    assert multipliers["conv"] == multipliers["right"] == [(0, 0), (0, 0)]
    assert multipliers["ip1"] == [(1, 1), (2, 3)]
    assert multipliers["left"] == multipliers["relu"] == []


def test_layers_that_cannot_learn_alone_are_refused() -> None:
    with pytest.raises(SurgeryError, match="'relu' has no weights to train; those that have: conv"):
        training_only(net(), ["relu"], MODEL)
    sharing = net()
    for one in sharing.layer:
        if one.name in ("left", "right"):
            one.param.add(name="shared")
    with pytest.raises(SurgeryError, match="'left' and 'right' share weights"):
        training_only(sharing, ["left"], MODEL)
    assert training_only(sharing, ["left", "right"], MODEL)


def test_a_solver_gets_another_rate_or_penalty_and_nothing_else() -> None:
    solver = SolverParameter(base_lr=0.02, lr_policy="step", stepsize=10, weight_decay=0.1)
    slower = with_rate(solver, 0.1)
    assert slower.base_lr == pytest.approx(0.002)
    lasso = with_decay(solver, "L1", 0.25)
    assert (lasso.regularization_type, lasso.weight_decay) == ("L1", 0.25)
    for changed, fields in [
        (slower, ["base_lr"]),
        (lasso, ["regularization_type", "weight_decay"]),
    ]:
        for name in fields:
            changed.ClearField(name)
            assert solver.base_lr == pytest.approx(0.02)
        rest = SolverParameter()
        rest.CopyFrom(solver)
        for name in fields:
            rest.ClearField(name)
        assert changed == rest


@pytest.mark.parametrize("share", [0, -1, math.nan, math.inf])
def test_a_share_that_trains_nothing_is_refused(share: float) -> None:
    with pytest.raises(SurgeryError, match="a share of the learning rate"):
        with_rate(SolverParameter(base_lr=0.1), share)


@pytest.mark.parametrize(
    ("kind", "decay"), [("L3", 0.1), ("l1", 0.1), ("L1", -1), ("L2", math.nan)]
)
def test_a_penalty_that_caffe_has_not_is_refused(kind: str, decay: float) -> None:
    with pytest.raises(SurgeryError, match=r"regularization_type|weight_decay"):
        with_decay(SolverParameter(), kind, decay)
