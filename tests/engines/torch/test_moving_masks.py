"""Masks that change, in the solver itself: its rule on bits, history, nets with all that moves."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pycaffe_prune.engines.masking import DynamicSurgery, FewBits, GradualMagnitude
from pycaffe_prune.engines.torch import moving_masks
from pycaffe_prune.engines.torch.pack import pack_key
from pycaffe_prune.engines.torch.solver import Solver
from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.pruning.dynamic_surgery import surgery_mask
from pycaffe_prune.pruning.few_bits import level_rule, on_few_levels
from tests.engines.torch.training_nets import make_solver, small_net

SURGERY = DynamicSurgery.of({"conv": 0.2, "ip1": 0.5}, stop=9, gamma=0.05)
GRADUAL = GradualMagnitude.of({"conv": 0.5, "ip1": 0.9}, every=2, changes=4, initial=0.2)
FEW_BITS = FewBits.of({"conv": level_rule("3bits"), "ip1": level_rule("ternary")})
KINDS = {
    "SGD": 'momentum: 0.9 lr_policy: "fixed" iter_size: 2',
    "Adam": 'type: "Adam" momentum: 0.9 momentum2: 0.99 base_lr: 0.002 lr_policy: "fixed"',
    "clipped": 'momentum: 0.9 lr_policy: "fixed" clip_gradients: 0.5',
}
each = pytest.mark.parametrize(
    "masking", [SURGERY, GRADUAL, FEW_BITS], ids=["surgery", "gradual", "few bits"]
)


def solver_for(digits: Path, kind: str = "SGD") -> Solver:
    return make_solver(small_net(digits, normalized=True, dropout=True), KINDS[kind], seed=4)


floats = st.floats(-4, 4, width=32)


@settings(max_examples=50)
@given(arrays(np.float32, (4, 9), elements=floats), arrays(np.bool_, (4, 9)), floats, floats)
def test_the_rule_on_bits_is_that_on_numbers(weights, kept, one, other):
    limits = tuple(np.float32(limit) for limit in sorted((abs(one), abs(other))))
    dense, held = torch.from_numpy(weights), torch.from_numpy(kept).int()
    shown = dense.clone()
    for piece in moving_masks._pieces(dense, held, shown):
        lower, upper = (int(limit.view(np.int32)) - 1 for limit in limits)
        piece.operate(torch.tensor(upper, dtype=torch.int32), upper - lower)

    mask = surgery_mask(weights, kept, limits)
    np.testing.assert_array_equal(held.numpy(), mask)
    np.testing.assert_array_equal(shown.numpy(), np.where(mask, weights, np.float32(0)))


@each
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_in_parts_and_over_a_snapshot_is_the_run(kind, masking, digits, tmp_path):
    whole, parts, resumed = (solver_for(digits, kind) for _ in range(3))
    for solver in (whole, parts, resumed):
        solver.follow(masking, {})
    whole.step(12)
    parts.step(3)
    parts.step(2)
    parts.snapshot(tmp_path / "snapshot_iter_5")
    resumed.restore(tmp_path / "snapshot_iter_5.solverstate")
    for solver in (parts, resumed):
        solver.step(7)
        for mine, theirs in zip(
            [whole.net.parameters.data, *whole.update.history],
            [solver.net.parameters.data, *solver.update.history],
            strict=True,
        ):
            assert torch.equal(mine, theirs)
        for mine, theirs in zip(whole.moving.kept, solver.moving.kept, strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_layers_have_masked_weights_and_the_solver_dense_ones(digits, tmp_path):
    solver = solver_for(digits)
    solver.follow(SURGERY, {})
    solver.step(4)
    for key, mask in zip(SURGERY.keys, solver.moving.kept, strict=True):
        shown = solver.net.params[key[0]][key[1]].data
        dense = solver.net.parameters.view(solver.net.parameters.data, key).numpy()
        assert 0 < np.count_nonzero(~mask) < mask.size
        assert (dense != 0).all()
        np.testing.assert_array_equal(shown, np.where(mask, dense, np.float32(0)))
    assert solver.moving.revived() == 0
    statistics = solver.net.params["normal"][0].data.copy()
    solver.step(1)
    assert (statistics != solver.net.params["normal"][0].data).any()


def test_layers_have_few_levels_and_what_is_masked_is_no_level(digits):
    solver = solver_for(digits)
    kept = np.random.default_rng(3).random(solver.net.params["ip1"][0].shape) < 0.3
    solver.follow(FEW_BITS, {("ip1", 0): kept})
    solver.step(3)
    for blob, mask in zip(FEW_BITS.blobs, (None, kept), strict=True):
        shown = solver.net.params[blob.layer][0].data
        dense = solver.net.parameters.view(solver.net.parameters.data, blob.key).numpy()
        dense = dense.reshape(shown.shape)
        np.testing.assert_array_equal(shown, on_few_levels(dense, blob, mask))
        assert mask is None or not dense[~mask].any()
    assert solver.moving.revived() == 0


def test_what_a_gradual_mask_prunes_has_no_history(digits):
    solver = solver_for(digits, "Adam")
    solver.follow(GRADUAL, {})
    solver.step(9)
    flats = [solver.net.parameters.data, *solver.update.history]
    for key, mask, share in zip(GRADUAL.keys, solver.moving.kept, (0.5, 0.9), strict=True):
        assert np.count_nonzero(~mask) == round(share * mask.size)
        for flat in flats:
            view = solver.net.parameters.view(flat, key).numpy()
            assert not view[~mask].any()
            assert (view[mask] != 0).mean() > 0.9


@each
def test_runs_whose_masks_change_are_not_packed(masking, digits):
    solver = make_solver(small_net(digits))
    assert pack_key(solver)
    solver.follow(masking, {})
    assert pack_key(solver) is None


@each
def test_start_masks_that_do_not_fit_are_refused(masking, digits):
    with pytest.raises(SurgeryError, match="layer 'ip1', blob 0: the mask is 2x2, the weights"):
        solver_for(digits).follow(masking, {("ip1", 0): np.ones((2, 2), np.bool_)})
