"""From definitions to parts, and nothing left open where that fails."""

import pytest
import torch

from pycaffe_prune.engines.torch import build as rooms
from pycaffe_prune.engines.torch.build import build
from pycaffe_prune.errors import DataError, EngineError, PruneError, SurgeryError
from pycaffe_prune.formats.caffe_pb2 import TEST, TRAIN
from pycaffe_prune.net.graph import NetState
from tests.engines.torch.loss_nets import parse

CPU = torch.device("cpu")
NET = """
layer { name: "data" type: "DummyData" top: "data" top: "label" include { phase: TRAIN }
  dummy_data_param { shape { dim: 4 dim: 3 dim: 4 dim: 4 } shape { dim: 4 } } }
layer { name: "data" type: "Input" top: "data" top: "label" include { phase: TEST }
  input_param { shape { dim: 1 dim: 3 dim: 4 dim: 4 } shape { dim: 1 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "drop" type: "Dropout" bottom: "conv" top: "conv" }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
  param { lr_mult: 0 } inner_product_param { num_output: 5 } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy"
  include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" loss_weight: 0.5 }
"""


def steps(text: str, phase: int = TRAIN) -> dict:
    parts = build(parse(text), NetState(phase), CPU, seed=1)
    return {step.layer.param.name: step for step in parts.steps.values()}


def test_each_phase_has_its_layers_and_a_test_net_saves_nothing() -> None:
    train, test = steps(NET), steps(NET, TEST)
    assert list(train) == ["conv", "relu", "drop", "ip", "loss"]
    assert list(test) == ["conv", "relu", "drop", "ip", "accuracy", "loss"]
    assert all(step.saves for step in train.values())
    assert not any(step.saves for step in test.values())
    assert not any(diff is not None for step in test.values() for diff in step.param_diffs)
    assert [diff is not None for diff in train["ip"].param_diffs] == [False, True]


def test_only_what_nothing_else_needs_is_overwritten() -> None:
    train = steps(NET)
    in_place = {name for name, step in train.items() if step.layer.in_place}
    assert in_place == {"relu"}  # Dropout may not: ReLU reads its top again
    relu_on_data = NET.replace('bottom: "conv" top: "conv" }\nlayer { name: "drop"', "%s").replace(
        "%s", 'bottom: "data" top: "data" }\nlayer { name: "drop"', 1
    )
    assert not steps(relu_on_data)["relu"].layer.in_place  # the batch is the data layer's memory


def test_a_loss_without_a_top_has_one_with_its_weight() -> None:
    (diff,) = steps(NET)["loss"].loss_diffs.values()
    assert diff == 0.5


def test_gradients_add_up_in_the_one_flat_tensor() -> None:
    parts = build(parse(NET), NetState(TRAIN), CPU, seed=1)
    for step in parts.steps.values():
        for key, param, diff in zip(step.keys, step.params, step.param_diffs, strict=True):
            flat = parts.parameters
            assert param.data_ptr() == flat.view(flat.data, key).data_ptr()
            if diff is not None:
                assert diff.data_ptr() == flat.view(flat.diff, key).data_ptr()


@pytest.mark.parametrize(
    ("old", "new", "kind", "sentence"),
    [
        ("kernel_size: 3", "kernel_size: 9", SurgeryError, "layer 'conv'"),
        ('"ReLU"', '"Python"', EngineError, "'relu' is of type 'Python'.*--engine caffe"),
        (
            '"DummyData"',
            '"WindowData" window_data_param { batch_size: 2 }',
            DataError,
            "'data'.*no crop_size",
        ),
        ('bottom: "ip" bottom: "label"', 'bottom: "ip" bottom: "x"', SurgeryError, "'x'"),
        ("kernel_size: 3", 'kernel_size: 3 weight_filler { type: "mrsa" }', PruneError, "'mrsa'"),
    ],
)
def test_what_is_wrong_is_named_and_sources_are_closed(
    monkeypatch, old: str, new: str, kind: type[PruneError], sentence: str
) -> None:
    assert old in NET
    opened, closed = [], []
    make_source = rooms.make_source

    def watched(layer, *rest):
        source = make_source(layer, *rest)
        opened.append(layer.name)
        monkeypatch.setattr(source, "close", lambda: closed.append(layer.name))
        return source

    monkeypatch.setattr(rooms, "make_source", watched)
    with pytest.raises(kind, match=sentence):
        build(parse(NET.replace(old, new)), NetState(TRAIN), CPU, seed=1)
    assert opened == closed
    assert opened == ([] if "WindowData" in new else ["data"])
    steps(NET)
    assert len(opened) == len(closed) + 1


def test_a_layer_computes_in_its_own_phase_if_it_says_one() -> None:
    own = NET.replace('type: "Dropout"', 'type: "Dropout" phase: %s')
    ones = torch.ones(1, 8)
    for net_phase, phase in ((TRAIN, "TEST"), (TEST, "TRAIN")):
        (top,), _ = steps(own % phase, net_phase)["drop"].layer.forward_saving([ones.clone()], [])
        assert torch.equal(top, ones) == (phase == "TEST")
