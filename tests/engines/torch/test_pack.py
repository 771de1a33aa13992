"""Runs that step together end where each would alone, to rounding."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pycaffe_prune.engines.torch import pack as packing
from pycaffe_prune.engines.torch.pack import Pack, Rendezvous, pack_key
from pycaffe_prune.engines.torch.solver import Solver
from pycaffe_prune.errors import DataError
from pycaffe_prune.formats.prototxt import read_net, read_solver

# Padding meets Convolution, Pooling and what flattens: a filter is a block of columns behind it.
CONVOLUTIONAL = """
layer {{ name: "data" type: "Data" top: "data" top: "label"
  transform_param {{ scale: 0.00390625 }}
  data_param {{ source: "{source}" batch_size: 32 backend: LMDB }} }}
layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv" {conv}
  convolution_param {{ num_output: {filters} kernel_size: 5 stride: 3
    weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "pool" type: "Pooling" bottom: "conv" top: "pool"
  pooling_param {{ kernel_size: 2 stride: 2 }} }}
layer {{ name: "sigmoid" type: "Sigmoid" bottom: "pool" top: "pool" }}
layer {{ name: "ip1" type: "InnerProduct" bottom: "pool" top: "ip1" {ip1}
  inner_product_param {{ num_output: {units} weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "relu" type: "ReLU" bottom: "ip1" top: "ip1" }}
layer {{ name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
  inner_product_param {{ num_output: 10 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" {loss} }}
"""

Make = Callable[..., Solver]


@pytest.fixture
def make(tmp_path: Path, digits: Path) -> Make:
    """A solver of the convolutional net, with some of its weights masked."""

    def make(
        seed: int, filters: int = 6, units: int = 20, settings: str = "", **layers: str
    ) -> Solver:
        source = digits / "mnist_train_lmdb"
        net = tmp_path / "net.prototxt"
        net.write_text(
            CONVOLUTIONAL.format(
                source=source,
                filters=filters,
                units=units,
                **{"conv": "", "ip1": "", "loss": "", **layers},
            )
        )
        solver = tmp_path / "solver.prototxt"
        solver.write_text(
            'lr_policy: "inv" gamma: 0.01 power: 0.75 weight_decay: 0.0005 '
            f"max_iter: 100 random_seed: {seed} {settings or 'base_lr: 0.1 momentum: 0.9'}"
        )
        made = Solver(read_solver(solver), read_net(net))
        shape = made.net.params["ip1"][0].shape
        made.mask({("ip1", 0): np.random.default_rng(seed).random(shape) < 0.5})
        return made

    return make


def assert_same(solver: Solver, alone: Solver) -> None:
    assert solver.iter == alone.iter
    assert solver.masks
    assert solver.masks.revived() == 0
    pairs = [(solver.net.parameters.data, alone.net.parameters.data)]
    pairs += zip(solver.update.history, alone.update.history, strict=True)
    for found, expected in pairs:
        scale = expected.abs().max()
        assert scale > 0
        assert torch.allclose(found / scale, expected / scale, rtol=0, atol=2e-5)
    loss = solver.net.blobs["loss"].data
    assert loss == pytest.approx(alone.net.blobs["loss"].data, rel=1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        "",
        "base_lr: 0.1 momentum: 0.9 clip_gradients: 0.5 iter_size: 2",
        'type: "Adam" momentum: 0.9 momentum2: 0.99 base_lr: 0.001',
    ],
)
def test_a_packed_run_is_the_run_alone(make, settings):
    sizes = [(1, 6, 20), (2, 6, 20), (3, 3, 20), (4, 4, 7)]
    packed = [make(*size, settings) for size in sizes]
    alone = [make(*size, settings) for size in sizes]
    for solver in packed + alone:
        solver.step(3)  # a pack takes over what there is
    pack = Pack(packed)
    pack.step(10)
    pack.step(7)
    pack.close()
    for solver, single in zip(packed, alone, strict=True):
        single.step(17)
        assert_same(solver, single)
        solver.step(2)  # and gives it back
        single.step(2)
        assert_same(solver, single)


@pytest.mark.parametrize(
    "layers",
    [
        {"ip1": "propagate_down: false"},
        {"conv": "param { lr_mult: 0 }", "loss": "loss_weight: 0.5"},
        {"conv": "param { lr_mult: 0 } param { lr_mult: 0 }", "ip1": "param { lr_mult: 0 }"},
    ],
)
@pytest.mark.parametrize(
    "settings",
    [
        "base_lr: 0.1 momentum: 0.9 clip_gradients: 0.5",
        'type: "AdaGrad" base_lr: 0.01',
    ],
)
def test_what_gets_no_gradient_alone_gets_none_in_a_pack(make, layers, settings):
    packed, alone = ([make(seed, settings=settings, **layers) for seed in (1, 2)] for _ in "ab")
    pack = Pack(packed)
    pack.step(10)
    pack.close()
    for solver, single in zip(packed, alone, strict=True):
        single.step(10)
        assert_same(solver, single)


def test_runs_with_other_numbers_of_units_can_be_packed_and_others_not(make, tmp_path):
    first = make(1)
    assert pack_key(first) == pack_key(make(2, filters=3, units=5))
    assert pack_key(first) != pack_key(make(1, settings="base_lr: 0.1 momentum: 0.5"))
    later = make(1)
    later.step(1)
    assert pack_key(first) != pack_key(later)
    net = (tmp_path / "net.prototxt").read_text()
    classes = net.replace("num_output: 10", "num_output: 11")
    (tmp_path / "net.prototxt").write_text(classes)
    solver = read_solver(tmp_path / "solver.prototxt")
    assert pack_key(Solver(solver, read_net(tmp_path / "net.prototxt"))) != pack_key(first)


def test_units_that_a_normalization_would_add_up_are_not_padded_after_a_sigmoid(make, tmp_path):
    normalized = """layer { name: "norm" type: "LRN" bottom: "pool" top: "norm" }
layer { name: "ip1" type: "InnerProduct" bottom: "norm" top: "ip1" """

    def key(filters: int, kind: str) -> str | None:
        make(1, filters)
        net = tmp_path / "net.prototxt"
        text = net.read_text().replace('"Sigmoid"', f'"{kind}"')
        old = 'layer { name: "ip1" type: "InnerProduct" bottom: "pool" top: "ip1" '
        assert old in text
        net.write_text(text.replace(old, normalized))
        return pack_key(Solver(read_solver(tmp_path / "solver.prototxt"), read_net(net)))

    assert key(6, "TanH") == key(3, "TanH")
    assert key(6, "Sigmoid") != key(3, "Sigmoid")
    assert key(6, "Sigmoid") == key(6, "Sigmoid")


@pytest.mark.parametrize(
    "change",
    [
        ("scale: 0.00390625", "scale: 0.00390625 mirror: true"),
        ('"Sigmoid" bottom: "pool" top: "pool"', '"Dropout" bottom: "pool" top: "pool"'),
        ('"Sigmoid" bottom: "pool" top: "pool"', '"BatchNorm" bottom: "pool" top: "normal"'),
    ],
)
def test_runs_that_draw_or_keep_statistics_cannot_be_packed(make, tmp_path, change):
    make(1)
    net = tmp_path / "net.prototxt"
    net.write_text(net.read_text().replace(*change))
    assert pack_key(Solver(read_solver(tmp_path / "solver.prototxt"), read_net(net))) is None


SCALE = 'layer { name: "scale" type: "Scale" bottom: "pool" top: "pool" }\n'


def with_scale(make, tmp_path, seed, settings):
    make(seed, settings=settings)
    net = tmp_path / "net.prototxt"
    sigmoid = 'layer { name: "sigmoid"'
    net.write_text(net.read_text().replace(sigmoid, SCALE + sigmoid))
    return Solver(read_solver(tmp_path / "solver.prototxt"), read_net(net))


def test_a_scale_is_packed_where_an_iteration_is_one_pass(make, tmp_path):
    settings = "base_lr: 0.1 momentum: 0.9"
    packed = [with_scale(make, tmp_path, seed, settings) for seed in (1, 2)]
    alone = [with_scale(make, tmp_path, seed, settings) for seed in (1, 2)]
    assert pack_key(packed[0]) == pack_key(packed[1]) is not None
    pack = Pack(packed)
    pack.step(8)
    pack.close()
    for solver, single in zip(packed, alone, strict=True):
        single.step(8)
        found, expected = (one.net.params["scale"][0].data for one in (solver, single))
        assert abs(expected - 1).max() > 1e-3
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert pack_key(with_scale(make, tmp_path, 1, f"{settings} iter_size: 2")) is None


def test_runs_in_threads_step_together_whatever_each_asks_for(make, monkeypatch):
    asks = [[5, 9, 2], [16], [1] * 16, [4, 4]]
    made, closed = [], []

    class Watched(Pack):
        def __init__(self, solvers: list[Solver]) -> None:
            super().__init__(solvers)
            made.append(self)

        def close(self) -> None:
            super().close()
            closed.append(self)

    monkeypatch.setattr(packing, "Pack", Watched)
    solvers = [make(seed) for seed in range(len(asks))]
    meeting = Rendezvous(solvers)

    def lead(solver: Solver, numbers: list[int]) -> None:
        with meeting.of(solver) as step:
            for number in numbers:
                before = solver.iter
                step(number)
                assert solver.iter == before + number

    threads = [threading.Thread(target=lead, args=pair) for pair in zip(solvers, asks, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for seed, (solver, numbers) in enumerate(zip(solvers, asks, strict=True)):
        alone = make(seed)
        alone.step(sum(numbers))
        assert_same(solver, alone)
    assert closed == made
    with pytest.raises(DataError, match="closed"):
        made[0].step(1)


def test_an_error_reaches_every_run(make, monkeypatch):
    solvers = [make(1), make(2)]
    meeting = Rendezvous(solvers)
    heard: list[str] = []

    def gone(_: Pack, __: int) -> None:
        raise DataError("the data are gone")

    monkeypatch.setattr(Pack, "step", gone)

    def lead(solver: Solver) -> None:
        try:
            with meeting.of(solver) as step:
                step(1)
        except DataError as error:
            heard.append(str(error))

    threads = [threading.Thread(target=lead, args=(solver,)) for solver in solvers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert heard == ["the data are gone"] * 2
