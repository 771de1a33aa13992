"""What a GPU replays is what would be computed: with a stand-in for CUDA graphs, on this CPU.

What only a GPU can tell is in test_cuda.py.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pycaffe_prune.engines.torch import stepping, updates
from pycaffe_prune.engines.torch.pack import Pack
from pycaffe_prune.engines.torch.solver import Solver
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.prototxt import read_net
from pycaffe_prune.share import share_root
from tests.engines.torch.layer_cases import CASES
from tests.engines.torch.recording import recorded
from tests.engines.torch.training_nets import make_solver, small_net, solver_of
from tests.engines.torch.weighted_cases import CASES as WEIGHTED_CASES
from tests.parity.comparison import build_layer

Record = Callable[[Solver], Solver]


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch) -> Record:
    """Let a solver record its iterations, as on a GPU."""
    monkeypatch.setattr(stepping, "_recorded", recorded)
    monkeypatch.setattr(updates, "FusedSGD", updates.SGD)  # as on a GPU

    def record(solver: Solver) -> Solver:
        solver.stepping._records = True
        solver.stepping.renew()
        return solver

    return record


def masks(solver: Solver, seed: int) -> dict[tuple[str, int], np.ndarray]:
    shape = solver.net.params["ip1"][0].shape
    return {("ip1", 0): np.random.default_rng(seed).random(shape) < 0.5}


def assert_equal(solver: Solver, eager: Solver) -> None:
    assert torch.equal(solver.net.parameters.data, eager.net.parameters.data)
    for ours, theirs in zip(solver.history, eager.history, strict=True):
        assert torch.equal(ours, theirs)
    assert np.array_equal(solver.net.blobs["loss"].data, eager.net.blobs["loss"].data)


@pytest.mark.parametrize(
    "told",
    [
        'lr_policy: "inv" gamma: 0.01 power: 0.75 base_lr: 0.1 type: "Nesterov" momentum: 0.9',
        'lr_policy: "fixed" base_lr: 0.1 momentum: 0 clip_gradients: 0.5 iter_size: 2',
        'lr_policy: "fixed" base_lr: 0.001 type: "Adam" momentum: 0.9 momentum2: 0.99',
    ],
)
@pytest.mark.parametrize("normalized", [False, True])
def test_replays_are_iterations(record: Record, digits: Path, told: str, normalized: bool) -> None:
    net = small_net(digits, normalized=normalized)
    solver, eager = (make_solver(net, told) for _ in range(2))
    record(solver)
    for one in (solver, eager):
        one.step(12)
    assert isinstance(solver.stepping._compute, stepping._Recorded)
    assert solver.stepping._compute._graph is not None
    assert_equal(solver, eager)


def test_blobs_are_those_of_the_last_iteration_after_a_pass_of_ones_own(
    record: Record, digits: Path
) -> None:
    solver, eager = record(make_solver(small_net(digits))), make_solver(small_net(digits))
    for one in (solver, eager):
        one.step(6)
        one.net.forward()
        one.step(1)
    assert_equal(solver, eager)


def test_masks_that_come_later_hold(record: Record, digits: Path) -> None:
    solver, eager = record(make_solver(small_net(digits))), make_solver(small_net(digits))
    for one in (solver, eager):
        one.step(6)
        for seed in (1, 2):
            one.mask(masks(one, seed))
            one.step(6)
            assert one.masks.revived() == 0
    assert_equal(solver, eager)


def test_what_cannot_be_recorded_is_computed_and_said_once(
    record: Record, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(body: Callable[[], None], device: torch.device) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    solver, eager = record(make_solver(small_net(digits))), make_solver(small_net(digits))
    monkeypatch.setattr(stepping, "_recorded", refuse)
    with pytest.warns(UserWarning, match="not recorded as a CUDA graph") as said:
        solver.step(8)
    assert len(said) == 2  # the pass, and the update
    eager.step(8)
    assert_equal(solver, eager)


def test_a_pack_is_replayed(record: Record, digits: Path) -> None:
    def runs() -> list[Solver]:
        return [make_solver(small_net(digits), seed=seed) for seed in (1, 2, 3)]

    packed, eager = runs(), runs()
    pack, other = Pack(packed), Pack(eager)
    pack._stepping._records = True
    pack._stepping.renew()
    for one in (pack, other):
        one.step(5)
        one.step(4)
    assert pack._stepping._compute._graph is not None
    for pair in zip(packed, eager, strict=True):
        assert_equal(*pair)


class NoWaiting(TorchDispatchMode):
    """Refuses what would make the host wait for a device, or copy between both.

    The device is PyTorch's ``meta``, which has shapes only: what asks for a value fails by itself.
    """

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        outputs = func(*args, **(kwargs or {}))
        leaves = tree_leaves((args, kwargs, outputs))
        devices = {one.device.type for one in leaves if isinstance(one, Tensor)}
        assert len(devices) < 2, func
        return outputs


def caffenet() -> NetParameter:
    net = read_net(share_root() / "prototxt" / "caffenet" / "deploy.prototxt")
    made = NetParameter(name=net.name)
    made.layer.extend(
        layer for layer in net.layer if layer.type not in ("Input", "Dropout", "Softmax")
    )
    made.layer.add(name="loss", type="SoftmaxWithLoss", bottom=["fc8", "label"], top=["loss"])
    return made


def network(name: str) -> NetParameter:
    if name == "caffenet":
        return caffenet()
    net = read_net(share_root() / "prototxt" / name / "train_val.prototxt")
    return NetParameter(layer=[layer for layer in net.layer if layer.type != "Data"])


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("lenet_300_100", (64, 1, 28, 28)),
        ("lenet", (64, 1, 28, 28)),
        ("caffenet", (2, 3, 227, 227)),
    ],
)
@pytest.mark.parametrize(
    "told",
    [
        'lr_policy: "fixed" momentum: 0.9 clip_gradients: 1 iter_size: 2',
        'lr_policy: "fixed" type: "Adam" momentum2: 0.99 regularization_type: "L1"',
    ],
)
def test_an_iteration_neither_waits_for_a_gpu_nor_copies_to_it(
    name: str, shape: tuple[int, ...], told: str
) -> None:
    net = network(name)
    data = net.layer.add(name="data", type="DummyData", top=["data", "label"])
    for extents in (shape, shape[:1]):
        data.dummy_data_param.shape.add().dim.extend(extents)
    ordered = NetParameter(layer=[net.layer[-1], *net.layer[:-1]])
    param = solver_of(told)
    solver = Solver(param, ordered, torch.device("meta"))
    solver.net.fetch()
    rate = torch.zeros((), device="meta")
    with NoWaiting(), torch.no_grad():
        solver.net.compute()
        solver.update.apply(rate)


ALL_CASES = {**CASES, **WEIGHTED_CASES}


# How many images pass a Filter is known when the device has counted them.
@pytest.mark.parametrize("kind", sorted(ALL_CASES.keys() - {"Dropout", "Filter"}))
@settings(max_examples=5)
@given(data=st.data())
def test_no_layer_waits_for_a_gpu_nor_copies_to_it(kind: str, data: st.DataObject) -> None:
    case = data.draw(ALL_CASES[kind]())
    layer = build_layer(case.param, [bottom.shape for bottom in case.bottoms])
    arrays = case.bottoms, case.params, case.top_diffs()
    bottoms, params, diffs = (
        [None if array is None else torch.from_numpy(array).to("meta") for array in part]
        for part in arrays
    )
    with torch.no_grad():
        layer.forward_saving(bottoms, params)  # the first pass may fetch what it keeps
        with NoWaiting():
            _, saved = layer.forward_saving(bottoms, params)
            layer.backward(saved, diffs, case.propagate, [torch.zeros_like(one) for one in params])
