"""What a solver keeps: masks exactly, its place over snapshots, frozen layers untouched."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pycaffe_prune.engines.torch.solver import Solver
from pycaffe_prune.errors import FormatError, SurgeryError
from pycaffe_prune.formats.prototxt import read_net, read_solver
from pycaffe_prune.formats.solverstate import read_solverstate

NET = """
layer {{ name: "data" type: "Data" top: "data" top: "label"
  transform_param {{ scale: 0.00390625 mirror: {mirror} }}
  data_param {{ source: "{source}" batch_size: {batch} backend: LMDB }} }}
layer {{ name: "ip1" type: "InnerProduct" bottom: "data" top: "ip1"
  inner_product_param {{ num_output: 12 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "relu1" type: "ReLU" bottom: "ip1" top: "ip1" }}
layer {{ name: "drop1" type: "Dropout" bottom: "ip1" top: "ip1"
  dropout_param {{ dropout_ratio: {ratio} }} }}
layer {{ name: "left" type: "InnerProduct" bottom: "ip1" top: "left" param {{ name: "w" }}
  inner_product_param {{ num_output: 12 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "right" type: "InnerProduct" bottom: "left" top: "right" param {{ name: "w" }}
  inner_product_param {{ num_output: 12 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "frozen" type: "InnerProduct" bottom: "right" top: "frozen"
  param {{ lr_mult: 0 }} param {{ lr_mult: 0 decay_mult: 0 }}
  inner_product_param {{ num_output: 12 weight_filler {{ type: "xavier" }}
    bias_filler {{ value: 0.5 }} }} }}
layer {{ name: "normal" type: "BatchNorm" bottom: "frozen" top: "normal" }}
layer {{ name: "ip2" type: "InnerProduct" bottom: "normal" top: "ip2"
  inner_product_param {{ num_output: 10 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }}
"""
KINDS = {
    "SGD": "momentum: 0.9 base_lr: 0.02",
    "Nesterov": "momentum: 0.9 base_lr: 0.02",
    "AdaGrad": "base_lr: 0.02",
    "RMSProp": "base_lr: 0.002 rms_decay: 0.98",
    "AdaDelta": "momentum: 0.95 base_lr: 1 delta: 1e-6",
    "Adam": "momentum: 0.9 momentum2: 0.999 base_lr: 0.002",
}
each_kind = pytest.mark.parametrize("kind", KINDS)
Make = Callable[..., Solver]


@pytest.fixture
def make(tmp_path: Path, digits: Path) -> Make:
    def make(
        kind: str = "SGD", settings: str = "", batch: int = 9, *, drawing: bool = False
    ) -> Solver:
        source = digits / "mnist_train_lmdb"
        net, solver = tmp_path / "net.prototxt", tmp_path / "solver.prototxt"
        mirror, ratio = ("true", 0.5) if drawing else ("false", 0)
        net.write_text(NET.format(source=source, batch=batch, mirror=mirror, ratio=ratio))
        solver.write_text(
            f'type: "{kind}" {KINDS[kind]} lr_policy: "multistep" stepvalue: 3 stepvalue: 6 '
            f"gamma: 0.5 weight_decay: 0.001 max_iter: 100 random_seed: 5 {settings}"
        )
        return Solver(read_solver(solver), read_net(net))

    return make


def state(solver: Solver) -> list[torch.Tensor]:
    return [solver.net.parameters.data, *solver.update.history]


def require_same(one: Solver, other: Solver) -> None:
    assert one.iter == other.iter
    assert one.stepping.policy.current_step == other.stepping.policy.current_step
    for mine, theirs in zip(state(one), state(other), strict=True):
        assert torch.equal(mine, theirs)


@each_kind
def test_a_run_in_parts_and_over_a_snapshot_is_the_run(kind: str, make: Make, tmp_path) -> None:
    whole, parts, resumed = (make(kind, "iter_size: 2", drawing=True) for _ in range(3))
    whole.step(9)
    parts.step(4)
    parts.snapshot(tmp_path / "s_iter_4")
    parts.step(5)
    require_same(parts, whole)
    resumed.step(1)  # whatever it was before
    resumed.restore(tmp_path / "s_iter_4.solverstate")
    assert resumed.iter == 4
    resumed.step(5)
    require_same(resumed, whole)
    assert resumed.net.blobs["loss"].data == whole.net.blobs["loss"].data


@each_kind
def test_what_has_no_rate_stays_and_statistics_move(kind: str, make: Make) -> None:
    solver = make(kind, "clip_gradients: 0.1")
    before = {name: [b.data.copy() for b in blobs] for name, blobs in solver.net.params.items()}
    solver.step(4)
    for name, blobs in solver.net.params.items():
        for index, blob in enumerate(blobs):
            same = np.array_equal(blob.data, before[name][index])
            assert same == (name == "frozen"), (name, index)
    assert solver.net.params["normal"][2].data == pytest.approx(sum(0.999**n for n in range(4)))


def test_two_half_batches_are_one_batch(make: Make) -> None:
    # But for BatchNorm, whose batches are halves then: it normalizes by what it has kept.
    def stepped(batch: int, settings: str) -> Solver:
        solver = make(settings=settings, batch=batch)
        net = solver.net.definition
        for layer in net.layer:
            if layer.type == "BatchNorm":
                layer.batch_norm_param.use_global_stats = True
                layer.batch_norm_param.eps = 1
        solver = Solver(solver.param, net)
        solver.step(5)
        return solver

    halves, wholes = stepped(8, "iter_size: 2"), stepped(16, "")
    for mine, theirs in zip(state(halves), state(wholes), strict=True):
        assert torch.allclose(mine, theirs, rtol=0, atol=1e-5 * float(theirs.abs().max()))


# Masks


def random_mask(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random(shape) < 0.3


@each_kind
def test_masked_weights_and_history_are_plus_zero(kind: str, make: Make) -> None:
    solver = make(kind, "clip_gradients: 0.1")
    weights = solver.net.params["ip1"][0].data
    weights[0, :3] = (np.nan, np.inf, -1)  # what masks multiplied would leave NaN or -0
    kept = random_mask(12, 784)
    kept[0] = False
    masks = {("ip1", 0): kept, ("ip2", 0): random_mask(10, 12)}
    solver.mask(masks)
    assert solver.masks
    for _ in range(4):
        solver.step(2)
        assert solver.masks.revived() == 0
        for (layer, index), mask in masks.items():
            start, stop = solver.net.parameters.place((layer, index))
            for flat in state(solver):
                pruned = flat[start:stop].view(mask.shape).numpy()[~mask]
                assert not pruned.view(np.int32).any()
    assert np.isfinite(solver.net.blobs["loss"].data)
    assert not np.array_equal(weights[kept], make(kind).net.params["ip1"][0].data[kept])


def test_clipping_measures_what_the_mask_leaves(make: Make) -> None:
    solver = make()
    solver.param.momentum = solver.param.weight_decay = 0
    solver.param.clip_gradients = 0.01
    solver = Solver(solver.param, solver.net.definition)
    solver.mask({("ip1", 0): random_mask(12, 784), ("ip2", 0): random_mask(10, 12)})
    data = solver.net.parameters.data
    learning = torch.cat(
        [data[g.start : g.stop] for g in solver.net.parameters.groups if g.lr_mult]
    )
    solver.step(1)
    after = torch.cat([data[g.start : g.stop] for g in solver.net.parameters.groups if g.lr_mult])
    assert float((after - learning).norm()) == pytest.approx(0.02 * 0.01, rel=1e-3)


def test_masks_of_a_shared_blob_count_together(make: Make) -> None:
    solver = make()
    left, right = random_mask(12, 12), ~random_mask(12, 12).T
    solver.mask({("left", 0): left, ("right", 0): right})
    solver.step(3)
    weights = solver.net.params["right"][0].data
    np.testing.assert_array_equal(weights, solver.net.params["left"][0].data)
    np.testing.assert_array_equal(weights != 0, left & right)


@pytest.mark.parametrize(
    ("key", "shape", "sentence"),
    [
        (("ip1", 0), (12, 783), "layer 'ip1', blob 0: the mask is 12x783, the weights are 12x784"),
        (("right", 0), (12,), "layer 'right', blob 0: the mask is 12, the weights are 12x12"),
        (("ip1", 2), (12,), "layer 'ip1' of the net has no blob 2"),
        (("relu1", 0), (12,), "layer 'relu1' of the net has no blob 0"),
        (("data", 0), (12,), "layer 'data' of the net has no blob 0"),
        (("ip9", 0), (12,), "no layer 'ip9'; its layers: data, ip1"),
    ],
)
def test_masks_that_do_not_fit_are_refused(make: Make, key, shape, sentence: str) -> None:
    with pytest.raises(SurgeryError, match=sentence):
        make().mask({key: np.ones(shape, bool)})


def test_revived_weights_are_counted(make: Make) -> None:
    solver = make()
    solver.mask({("ip2", 0): np.zeros((10, 12), bool)})
    solver.net.params["ip2"][0].data[2, :5] = 1
    assert solver.masks
    assert solver.masks.revived() == 5


@each_kind
def test_masked_weights_stay_zero_over_the_snapshot_of_a_run_without_masks(
    kind: str, make: Make, tmp_path: Path
) -> None:
    dense = make(kind)
    dense.step(3)
    dense.snapshot(tmp_path / "dense")
    solver, mask = make(kind), random_mask(12, 784)
    solver.mask({("ip1", 0): mask})
    solver.restore(tmp_path / "dense.solverstate")
    start, stop = solver.net.parameters.place(("ip1", 0))
    for _ in range(2):
        for flat in state(solver):
            values = flat[start:stop].view(mask.shape).numpy()
            assert not values[~mask].any()
            assert values[mask].any()
        solver.step(2)


# Snapshots


def test_a_snapshot_holds_history_in_the_nets_order(make: Make, tmp_path: Path) -> None:
    solver = make("Adam")
    solver.step(4)
    solver.snapshot(tmp_path / "a")
    found = read_solverstate(tmp_path / "a.solverstate")
    assert (found.iteration, found.current_step) == (4, 1)
    owners = [("ip1", 0), ("ip1", 1), ("left", 0), ("left", 1), ("right", 1), ("frozen", 0)]
    owners += [("frozen", 1), ("normal", 0), ("normal", 1), ("normal", 2), ("ip2", 0), ("ip2", 1)]
    assert [blob.key for blob in solver.net.parameters.blobs] == owners
    assert len(found.history) == 2 * len(owners)
    for number, flat in enumerate(solver.update.history):
        for place, key in enumerate(owners):
            stored = found.history[number * len(owners) + place]
            mine = solver.net.parameters.view(flat, key).numpy()
            np.testing.assert_array_equal(stored, mine)


def test_snapshots_of_other_solvers_and_nets_are_refused(make: Make, tmp_path: Path) -> None:
    make("Adam").snapshot(tmp_path / "a")
    with pytest.raises(SurgeryError, match="a history of 24 blobs, the solver needs 12"):
        make("SGD").restore(tmp_path / "a.solverstate")
    (tmp_path / "a.caffemodel").write_bytes(b"no weights")
    with pytest.raises(FormatError, match=r"a\.caffemodel"):
        make("Adam").restore(tmp_path / "a.solverstate")
