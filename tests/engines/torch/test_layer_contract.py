"""What every layer owes the net, for those with weights, windows or statistics (`Layer`)."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from pycaffe_prune.engines.torch.layers.base import Layer
from pycaffe_prune.formats.caffe_pb2 import TEST, TRAIN
from tests.engines.torch.layer_case import Case
from tests.engines.torch.weighted_cases import CASES
from tests.parity.comparison import build_layer, require_close, run_by_autograd, run_by_hand

over_drawn_cases = settings(max_examples=6, suppress_health_check=[HealthCheck.too_slow])
every_kind = pytest.mark.parametrize("kind", sorted(CASES))
RUNS = 3


def _built(case: Case, phase: int) -> Layer:
    return build_layer(case.param, [bottom.shape for bottom in case.bottoms], phase)


def _doubles(case: Case) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Bottoms, parameters and gradients of the tops, in float64."""
    arrays = case.bottoms, case.params, case.top_diffs()
    bottoms, params, diffs = (
        [torch.tensor(array, dtype=torch.float64) for array in part] for part in arrays
    )
    return bottoms, params, diffs


@every_kind
@over_drawn_cases
@given(data=st.data(), phase=st.sampled_from([TRAIN, TEST]))
def test_the_backward_pass_is_the_derivative_of_forward(
    kind: str, data: st.DataObject, phase: int
) -> None:
    case = data.draw(CASES[kind]())
    doubles = [[np.float64(array) for array in part] for part in (case.bottoms, case.params)]
    bottoms, params = ([np.asarray(array) for array in part] for part in doubles)
    diffs = [np.asarray(diff, np.float64) for diff in case.top_diffs()]
    layer = _built(case, phase)
    ours = run_by_hand(layer, bottoms, params, diffs, case.propagate)
    pure = run_by_autograd(layer, bottoms, params, diffs, case.propagate)
    require_close(ours, replace(pure, params=ours.params), diffs, case.propagate, 1e-9)


@every_kind
@over_drawn_cases
@given(data=st.data(), phase=st.sampled_from([TRAIN, TEST]))
def test_gradients_of_parameters_are_added_and_only_wanted_ones_computed(
    kind: str, data: st.DataObject, phase: int
) -> None:
    case = data.draw(CASES[kind]())
    layer = _built(case, phase)
    bottoms, params, top_diffs = _doubles(case)
    once = [torch.zeros_like(param) for param in params]
    twice = [torch.ones_like(param) for param in params]
    with torch.no_grad():
        for targets in ([*once], [*twice], [*twice]):
            _, saved = layer.forward_saving(bottoms, [param.clone() for param in params])
            layer.backward(saved, top_diffs, case.propagate, targets)
        _, saved = layer.forward_saving(bottoms, [param.clone() for param in params])
        nothing = layer.backward(saved, top_diffs, [False] * len(bottoms), [None] * len(params))
        _, saved = layer.forward_saving(bottoms, [param.clone() for param in params])
        unreached = layer.backward(saved, [None] * len(top_diffs), case.propagate, [*once])
    assert nothing == unreached == [None] * len(bottoms)
    for place, (one, two) in enumerate(zip(once, twice, strict=True)):
        over = layer.overwrites and place == 0
        torch.testing.assert_close(two, one if over else 1 + 2 * one)


@every_kind
@over_drawn_cases
@given(data=st.data(), phase=st.sampled_from([TRAIN, TEST]))
def test_runs_side_by_side_are_those_one_after_another(
    kind: str, data: st.DataObject, phase: int
) -> None:
    case = data.draw(CASES[kind]())
    layer = _built(case, phase)
    bottoms, params, top_diffs = _doubles(case)
    runs = [
        # The indices of Embed, and the statistics of BatchNorm, are not free to vary.
        (
            bottoms if kind == "Embed" else [bottom + run for bottom in bottoms],
            params if kind == "BatchNorm" else [param - run for param in params],
        )
        for run in range(RUNS)
    ]

    def passes(
        held: list[Tensor], blobs: list[Tensor]
    ) -> tuple[tuple[Tensor, ...], list[Tensor], list[Tensor]]:
        tops, pull = torch.func.vjp(layer.forward, held, blobs)
        found_bottoms, found_params = pull(tuple(top_diffs))
        return tops, found_bottoms, found_params

    one_by_one = [passes(*run) for run in runs]
    stacked = [
        [torch.stack(parts) for parts in zip(*side, strict=True)]
        for side in zip(*runs, strict=True)
    ]
    at_once = torch.func.vmap(passes)(*stacked)
    for run, alone in enumerate(one_by_one):
        torch.testing.assert_close(
            [part[run] for group in at_once for part in group],
            [part for group in alone for part in group],
        )
