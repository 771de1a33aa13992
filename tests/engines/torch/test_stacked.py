"""Stacked runs: each as alone to rounding, and to the bit whichever others go with it."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from pycaffe_prune.engines.torch.pack import make_pack, pack_key
from pycaffe_prune.engines.torch.solver import Solver
from pycaffe_prune.engines.torch.stacked import StackedPack, can_be_stacked, is_sparse
from pycaffe_prune.errors import DataError
from pycaffe_prune.formats.prototxt import read_net, read_solver

NET = """
layer {{ name: "data" type: "Data" top: "data" top: "label"
  transform_param {{ scale: 0.00390625 }}
  data_param {{ source: "{source}" batch_size: 24 backend: LMDB }} }}
layer {{ name: "ip1" type: "InnerProduct" bottom: "data" top: "ip1"
  param {{ lr_mult: 1 }} param {{ lr_mult: 2 }}
  inner_product_param {{ num_output: 30 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "act" type: "ReLU" bottom: "ip1" top: "ip1" }}
layer {{ name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
  inner_product_param {{ num_output: 17 bias_term: false weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "act2" type: "TanH" bottom: "ip2" top: "tanh" }}
layer {{ name: "ip3" type: "InnerProduct" bottom: "tanh" top: "ip3"
  inner_product_param {{ num_output: 10 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip3" bottom: "label" top: "loss" }}
"""
SGD = "base_lr: 0.05 momentum: 0.9"
ADAM = 'type: "Adam" momentum: 0.9 momentum2: 0.99 base_lr: 0.001'

Make = Callable[..., Solver]


@pytest.fixture
def make(tmp_path: Path, digits: Path) -> Make:
    """A solver; ``kept`` is the share of weights that its masks keep."""

    def make(
        seed: int,
        kept: float | None = None,
        settings: str = SGD,
        change: tuple[str, str] = ("", ""),
    ) -> Solver:
        text = NET.format(source=digits / "mnist_train_lmdb")
        assert change[0] in text
        (tmp_path / "net.prototxt").write_text(text.replace(*change) if change[0] else text)
        (tmp_path / "solver.prototxt").write_text(
            'lr_policy: "inv" gamma: 0.01 power: 0.75 weight_decay: 0.0005 '
            f"max_iter: 100 random_seed: {seed} {settings}"
        )
        solver = Solver(
            read_solver(tmp_path / "solver.prototxt"), read_net(tmp_path / "net.prototxt")
        )
        if kept is not None:
            draw = np.random.default_rng(seed)
            shapes = {
                (layer, 0): solver.net.params[layer][0].shape for layer in ("ip1", "ip2", "ip3")
            }
            solver.mask({key: draw.random(shape) < kept for key, shape in shapes.items()})
        return solver

    return make


def tensors(solver: Solver) -> list[torch.Tensor]:
    return [solver.net.parameters.data, *solver.update.history]


def run_together(solvers: Sequence[Solver], iterations: int) -> None:
    pack = make_pack(solvers)
    assert isinstance(pack, StackedPack)
    pack.step(iterations)
    pack.close()


@pytest.mark.parametrize("settings", [SGD, ADAM])
@pytest.mark.parametrize("kept", [None, 0.5, 0.1])
def test_a_stacked_run_is_the_run_alone_to_rounding(make, kept, settings):
    stacked, alone = ([make(seed, kept, settings) for seed in (1, 2, 3)] for _ in "ab")
    for solver in stacked + alone:
        solver.step(2)  # a pack takes over what there is
    run_together(stacked, 10)
    run_together(stacked, 5)
    for solver, single in zip(stacked, alone, strict=True):
        single.step(15)
        assert solver.iter == single.iter
        for found, expected in zip(tensors(solver), tensors(single), strict=True):
            scale = expected.abs().max()
            assert scale > 0
            assert torch.allclose(found / scale, expected / scale, rtol=0, atol=2e-5)
        loss = solver.net.blobs["loss"].data
        assert loss == pytest.approx(single.net.blobs["loss"].data, rel=1e-4)
        assert solver.revived() == 0
        solver.step(1)  # and gives it back, its place in the data too
        single.step(1)
        assert torch.allclose(tensors(solver)[0], tensors(single)[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("kept", [None, 0.5, 0.1])
def test_a_stacked_run_has_the_same_bits_whichever_others_go_with_it(make, kept):
    seeds = (1, 2, 3, 4)
    together, alone, interrupted = ([make(seed, kept) for seed in seeds] for _ in "abc")
    run_together(together, 12)
    for solver in alone:
        run_together([solver], 12)
    run_together(interrupted[2:], 5)
    run_together(interrupted[2:][::-1], 7)
    for solver, single in zip(together, alone, strict=True):
        assert all(map(torch.equal, tensors(solver), tensors(single)))
    for solver, single in zip(interrupted[2:], alone[2:], strict=True):
        assert all(map(torch.equal, tensors(solver), tensors(single)))


def test_pruned_weights_are_left_out_where_few_are_left(make):
    assert is_sparse(make(1, 0.1))
    assert not is_sparse(make(1, 0.5))
    assert not is_sparse(make(1))
    assert pack_key(make(1, 0.1)) == pack_key(make(2, 0.1))
    assert pack_key(make(1, 0.5)) == pack_key(make(2))
    assert pack_key(make(1, 0.1)) != pack_key(make(1))


def test_a_layer_whose_weights_are_all_pruned_is_stacked(make):
    solvers = [make(seed, 0.1) for seed in (1, 2)]
    for solver in solvers:
        masks = {
            (layer, 0): np.zeros(solver.net.params[layer][0].shape, bool)
            for layer in ("ip1", "ip2", "ip3")
        }
        masks["ip1", 0][:, 300] = True
        solver.mask(masks)
    run_together(solvers, 3)
    for solver in solvers:
        assert not solver.net.params["ip2"][0].data.any()
        assert solver.net.params["ip3"][1].data.any()  # biases go on


@pytest.mark.parametrize(
    "change",
    [
        ('"TanH" bottom: "ip2"', '"TanH" bottom: "ip1"'),
        ('"ReLU"', '"Dropout"'),
        ("scale: 0.00390625", "scale: 0.00390625 mirror: true"),
        ("bias_term: false", "bias_term: false transpose: true"),
        ("param { lr_mult: 1 }", "param { lr_mult: 0 }"),
        ("param { lr_mult: 1 }", 'param { name: "shared" }'),
        ('top: "loss" }', 'top: "loss" loss_param { ignore_label: 3 } }'),
        ('name: "act" type: "ReLU"', 'name: "act" relu_param { negative_slope: 0.1 } type: "ReLU"'),
    ],
)
def test_other_nets_are_not_stacked(make, change):
    assert can_be_stacked(make(1))
    assert not can_be_stacked(make(1, change=change))


@pytest.mark.parametrize("settings", [f"{SGD} iter_size: 2", f"{SGD} clip_gradients: 1"])
def test_iterations_of_other_kinds_are_not_stacked(make, settings):
    assert not can_be_stacked(make(1, settings=settings))


def test_a_label_that_names_no_class_is_told(make):
    solvers = [make(seed, change=("num_output: 10", "num_output: 5")) for seed in (1, 2)]
    with pytest.raises(DataError, match="have 5 classes, from 0 on"):
        run_together(solvers, 3)
