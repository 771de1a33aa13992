"""The order of an iteration: batches, passes, one update at Caffe's rate."""

import pytest
import torch

from pycaffe_prune.engines.torch.net import Net
from pycaffe_prune.engines.torch.stepping import Stepping
from pycaffe_prune.errors import DataError
from pycaffe_prune.formats.caffe_pb2 import TRAIN, SolverParameter
from pycaffe_prune.net.graph import NetState
from tests.engines.torch.loss_nets import parse

NET = parse("""
layer { name: "data" type: "DummyData" top: "data" dummy_data_param {
  shape { dim: 2 } data_filler { type: "gaussian" } } }
""")
HALVING = SolverParameter(lr_policy="step", stepsize=2, gamma=0.5, base_lr=0.5, iter_size=3)


def log_of(param: SolverParameter, *parts: int) -> list[object]:
    net = Net(NET, NetState(TRAIN))
    log: list[object] = []
    stepping = Stepping(
        param,
        net,
        lambda: log.append(float(net.value("data")[0])),
        lambda rate: log.append(("rate", float(rate))),
    )
    for part in parts:
        stepping.run(part)
    assert stepping.iteration == sum(parts)
    return log


def test_each_update_follows_iter_size_passes_over_new_batches() -> None:
    log = log_of(HALVING, 5)
    batches = [entry for entry in log if isinstance(entry, float)]
    assert len(set(batches)) == 15
    assert [place for place, entry in enumerate(log) if isinstance(entry, tuple)] == [
        3, 7, 11, 15, 19,
    ]  # fmt: skip
    assert [entry[1] for entry in log if isinstance(entry, tuple)] == [0.5, 0.5, 0.25, 0.25, 0.125]


def test_parts_are_the_whole() -> None:
    assert log_of(HALVING, 5) == log_of(HALVING, 1, 0, 3, 1)


def test_adams_rate_is_corrected_for_its_young_history() -> None:
    adam = SolverParameter(
        type="Adam", lr_policy="fixed", base_lr=0.01, momentum=0.9, momentum2=0.99
    )
    rates = [entry[1] for entry in log_of(adam, 3) if isinstance(entry, tuple)]
    wanted = [0.01 * (1 - 0.99**n) ** 0.5 / (1 - 0.9**n) for n in (1, 2, 3)]
    assert rates == pytest.approx(wanted)


def test_an_error_leaves_the_iterations_that_were_done() -> None:
    net = Net(NET, NetState(TRAIN))
    updates: list[float] = []

    def compute() -> None:
        if len(updates) == 2:
            raise DataError("the data are damaged")

    stepping = Stepping(HALVING, net, compute, lambda rate: updates.append(float(rate)))
    with pytest.raises(DataError, match="damaged"):
        stepping.run(5)
    assert (stepping.iteration, updates) == (2, [0.5, 0.5])
    assert not torch.is_inference_mode_enabled()
    assert torch.is_grad_enabled()
