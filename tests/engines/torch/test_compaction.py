"""A solver that leaves out what is pruned goes where the dense one under the mask goes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pycaffe_prune.engines.masking import GradualMagnitude
from pycaffe_prune.engines.torch.layers.inner_product import InnerProduct
from pycaffe_prune.engines.torch.layers.kept_products import LiveProduct, SparseProduct
from pycaffe_prune.engines.torch.pack import Pack
from pycaffe_prune.engines.torch.products import Product
from pycaffe_prune.engines.torch.solver import Solver
from pycaffe_prune.engines.tying import Tying
from pycaffe_prune.errors import DataError
from tests.engines.torch.training_nets import make_solver, small_net

KINDS = {
    "SGD": 'momentum: 0.9 lr_policy: "fixed" iter_size: 2',
    "Adam": 'type: "Adam" momentum: 0.9 momentum2: 0.99 base_lr: 0.002 lr_policy: "fixed"',
    "clipped": 'momentum: 0.9 lr_policy: "inv" gamma: 0.01 power: 0.75 clip_gradients: 0.5',
    "AdaDelta": 'type: "AdaDelta" momentum: 0.95 base_lr: 1 delta: 1e-6 lr_policy: "fixed"',
}
each_kind = pytest.mark.parametrize("kind", KINDS)


def of_ways(**ways: str) -> list[Product]:
    return [Product(layer=name, way=way, milliseconds={}) for name, way in ways.items()]


def masks_for(solver: Solver, share: float, seed: int) -> dict:
    random, masks = np.random.default_rng(seed), {}
    for name in ("conv", "ip1", "ip2"):
        mask = random.random(solver.net.params[name][0].shape) >= share
        if name == "ip1":
            mask[random.random(len(mask)) < 0.3] = False  # dead units, and unread inputs
            mask[:, random.random(mask.shape[1]) < 0.3] = False
        masks[name, 0] = mask
    return masks


def masked(digits: Path, kind: str, share: float = 0.7, seed: int = 0, **ways: str) -> Solver:
    solver = make_solver(small_net(digits, dropout=True), KINDS[kind], seed=4)
    solver.mask(masks_for(solver, share, seed))
    solver.compute_by(of_ways(**ways))
    return solver


def flats(solver: Solver) -> list[torch.Tensor]:
    return [solver.net.parameters.data, *solver.update.history]


def assert_plus_zero_where_masked(solver: Solver) -> None:
    assert solver.masks is not None
    for flat in flats(solver):
        assert not flat.view(torch.int32)[solver.masks.bits == 0].any()


@each_kind
@settings(max_examples=3)
@given(
    share=st.floats(0, 1),
    seed=st.integers(0, 99),
    ways=st.tuples(*2 * [st.sampled_from(["dense", "live", "sparse"])]),
)
def test_the_run_is_that_of_dense_products_under_the_mask(kind, digits, share, seed, ways):
    dense = masked(digits, kind, share, seed)
    kept = masked(digits, kind, share, seed, ip1=ways[0], ip2=ways[1])
    for solver in (dense, kept):
        solver.step(2)
        solver.step(3)
    assert_plus_zero_where_masked(kept)
    for mine, theirs in zip(flats(kept), flats(dense), strict=True):
        scale = float(theirs.abs().max())
        torch.testing.assert_close(mine, theirs, rtol=0, atol=2e-5 * scale)
    loss = kept.net.blobs["loss"].data
    assert loss == pytest.approx(dense.net.blobs["loss"].data, rel=1e-4)
    for name, blobs in dense.net.params.items():  # layers read whole blobs again
        assert [blob.shape for blob in kept.net.params[name]] == [blob.shape for blob in blobs]


@each_kind
def test_a_run_in_parts_and_over_a_snapshot_is_the_run(kind, digits, tmp_path):
    ways = {"ip1": "sparse", "ip2": "live"}
    whole, parts, resumed = (masked(digits, kind, **ways) for _ in range(3))
    whole.step(9)
    parts.step(1)
    parts.step(3)
    parts.snapshot(tmp_path / "snapshot_iter_4")
    parts.step(5)
    resumed.step(2)  # whatever it was before
    resumed.restore(tmp_path / "snapshot_iter_4.solverstate")
    assert_plus_zero_where_masked(resumed)
    resumed.step(5)
    for solver in (parts, resumed):
        for mine, theirs in zip(flats(solver), flats(whole), strict=True):
            assert torch.equal(mine, theirs)


def test_only_while_it_steps_layers_compute_on_what_is_kept(digits):
    solver = masked(digits, "SGD", ip1="sparse", ip2="live")
    layers = {step.layer.param.name: step for step in solver.net.steps}
    seen = []
    solver.stepping.begin = lambda _: seen.append(
        [type(layers[name].layer) for name in ("ip1", "ip2")]
    )
    solver.step(1)
    assert seen == [[SparseProduct, LiveProduct]]
    assert {type(layers[name].layer) for name in ("ip1", "ip2")} == {InnerProduct}


def test_a_mask_that_leaves_nothing_of_a_layer(digits):
    solver = make_solver(small_net(digits), KINDS["SGD"])
    masks = {("ip1", 0): np.zeros(solver.net.params["ip1"][0].shape, np.bool_)}
    for way in ("live", "sparse"):
        solver.mask(masks)
        solver.compute_by(of_ways(ip1=way))
        solver.step(2)
        assert not solver.net.params["ip1"][0].data.any()
        assert np.isfinite(solver.net.blobs["loss"].data)


def test_an_error_leaves_blobs_whole(digits, monkeypatch):
    solver = masked(digits, "SGD", ip1="sparse")
    solver.step(2)
    before = [flat.clone() for flat in flats(solver)]

    def gone() -> None:
        raise DataError("the data are gone")

    monkeypatch.setattr(solver.net, "fetch", gone)
    with pytest.raises(DataError):
        solver.step(1)
    assert all(torch.equal(*pair) for pair in zip(flats(solver), before, strict=True))
    assert solver.net.params["ip1"][0].shape[0] == 20


def test_other_masks_and_masks_that_change_end_it(digits):
    gradual = GradualMagnitude.of({"ip1": 0.9}, every=2, changes=4, initial=0.2)
    ends = {
        "mask": lambda solver: solver.mask(masks_for(solver, 0.2, 5)),
        "follow": lambda solver: solver.follow(gradual, {}),
        "tie": lambda solver: solver.tie(Tying(blobs=(("ip2", 0),)), {}),
    }
    for end in ends.values():
        begun, alone = masked(digits, "SGD", ip1="sparse"), masked(digits, "SGD")
        for solver in (begun, alone):
            end(solver)
            solver.compute_by(of_ways(ip1="sparse") if solver.moving or solver.tied else ())
            solver.step(3)
        assert all(torch.equal(*pair) for pair in zip(flats(begun), flats(alone), strict=True))


def test_a_pack_takes_over_what_is_left_out_and_gives_it_back(digits):
    def made(seed: int) -> Solver:
        solver = make_solver(small_net(digits), KINDS["clipped"], seed=seed)
        solver.mask(masks_for(solver, 0.8, seed))
        solver.compute_by(of_ways(ip1="sparse", ip2="live"))
        return solver

    packed, alone = [made(1), made(2)], [made(1), made(2)]
    for solver in packed:
        solver.step(2)
    pack = Pack(packed)
    pack.step(4)
    pack.close()
    for solver, single in zip(packed, alone, strict=True):
        solver.step(2)
        single.step(8)
        assert_plus_zero_where_masked(solver)
        for mine, theirs in zip(flats(solver), flats(single), strict=True):
            scale = float(theirs.abs().max())
            torch.testing.assert_close(mine, theirs, rtol=0, atol=2e-5 * scale)
