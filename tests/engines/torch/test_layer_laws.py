"""What holds for every layer without weights, whatever its settings."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pycaffe_prune.engines.torch.layers.base import Layer
from tests.engines.torch.layer_case import LAYERS, Case
from tests.engines.torch.layer_cases import CASES

# What passes a Filter has another shape in each run: `engines.torch.pack` takes none.
WITH_TOPS = sorted(set(CASES) - {"Filter", "Silence"})
BY_HAND = sorted(
    kind
    for kind, layer in LAYERS.items()
    # ContrastiveLoss has Caffe's gradient, which is not quite the derivative; Parameter's is none
    # of a bottom.
    if layer.backward is not Layer.backward and kind not in ("ContrastiveLoss", "Parameter")
)


def _diffs(case: Case) -> list[Tensor | None]:
    return [None if diff is None else torch.from_numpy(diff) for diff in case.top_diffs()]


def _params(case: Case) -> list[Tensor]:
    return [torch.from_numpy(param) for param in case.params]


def _variants(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Each tensor three times, with its values in other orders; labels stay labels."""
    return [torch.stack([tensor, tensor.flip(0), tensor.roll(1, 0)]) for tensor in tensors]


@pytest.mark.parametrize("kind", BY_HAND)
@settings(max_examples=25)
@given(data=st.data())
def test_a_gradient_by_hand_is_the_derivative(kind: str, data: st.DataObject) -> None:
    case = data.draw(CASES[kind]())
    layer = case.layer()
    _, saved = layer.forward_saving(case.tensors(), [])
    found = layer.backward(saved, _diffs(case), case.propagate, [])
    _, saved = Layer.forward_saving(layer, case.tensors(), [])
    wanted = Layer.backward(layer, saved, _diffs(case), case.propagate, [])
    for diff, derivative in zip(found, wanted, strict=True):
        assert (diff is None) == (derivative is None)
        if diff is not None and derivative is not None:
            torch.testing.assert_close(diff, derivative, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", WITH_TOPS)
@settings(max_examples=10)
@given(data=st.data())
def test_several_runs_at_once_give_what_each_gives(kind: str, data: st.DataObject) -> None:
    case = data.draw(CASES[kind]())
    layer, count = case.layer(), len(case.bottoms)
    weights = [diff for diff in _diffs(case) if diff is not None]

    def tops(*tensors: Tensor) -> tuple[Tensor, ...]:
        return layer.forward(tensors[:count], tensors[count:])

    def loss(*tensors: Tensor) -> Tensor:
        made = tops(*tensors)[: len(weights)]
        return torch.stack(
            [(top * weight).sum() for top, weight in zip(made, weights, strict=True)]
        ).sum()

    wanted = [*case.propagate, *(True for _ in case.params)]
    places = tuple(place for place, wants in enumerate(wanted) if wants)
    inputs = _variants([*case.tensors(), *_params(case)])
    functions = [tops] + ([torch.func.grad(loss, places)] if places else [])
    for function in functions:
        at_once = torch.func.vmap(function)(*inputs)
        for run in range(3):
            alone = function(*(tensor[run] for tensor in inputs))
            for several, one in zip(at_once, alone, strict=True):
                torch.testing.assert_close(several[run], one, equal_nan=True)


@pytest.mark.parametrize("kind", sorted(CASES))
@settings(max_examples=10)
@given(data=st.data())
def test_no_pass_writes_to_what_it_reads(kind: str, data: st.DataObject) -> None:
    case = data.draw(CASES[kind]().filter(lambda case: not case.in_place))
    layer, bottoms, diffs = case.layer(), case.tensors(), _diffs(case)
    layer.forward(bottoms, _params(case))
    tops, saved = layer.forward_saving(bottoms, _params(case))
    made = [top.clone() for top in tops]
    layer.backward(saved, diffs, case.propagate, [None] * len(case.params))
    for tensor, before in zip((*bottoms, *tops), (*case.tensors(), *made), strict=True):
        torch.testing.assert_close(tensor, before, rtol=0, atol=0, equal_nan=True)
    for diff, untouched in zip(diffs, _diffs(case), strict=True):
        assert diff is None or (untouched is not None and torch.equal(diff, untouched))


@pytest.mark.parametrize("kind", sorted(CASES))
@given(data=st.data())
@settings(max_examples=10)
def test_memory_of_a_bottom_is_not_given_away_to_be_overwritten(
    kind: str, data: st.DataObject
) -> None:
    case = data.draw(CASES[kind]().filter(lambda case: not case.in_place))
    layer, bottoms, params = case.layer(), case.tensors(), _params(case)
    read = {tensor.untyped_storage().data_ptr() for tensor in (*bottoms, *params)}
    for tops in (layer.forward(bottoms, params), layer.forward_saving(bottoms, params)[0]):
        if any(top.untyped_storage().data_ptr() in read for top in tops):
            assert layer.keeps_top


@pytest.mark.parametrize("kind", sorted(CASES))
@given(data=st.data())
@settings(max_examples=5)
def test_no_gradient_comes_from_none(kind: str, data: st.DataObject) -> None:
    case = data.draw(CASES[kind]())
    layer = case.layer()
    tops, saved = layer.forward_saving(case.tensors(), _params(case))
    param_diffs = [torch.zeros_like(param) for param in _params(case)]
    found = layer.backward(saved, [None] * len(tops), case.propagate, param_diffs)
    assert found == [None] * len(case.bottoms)
    assert not any(diff.any() for diff in param_diffs)
