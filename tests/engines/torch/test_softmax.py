import math

import pytest
import torch
from torch import Tensor

from pycaffe_prune.engines.torch.layers.base import Layer, LayerSetup
from pycaffe_prune.engines.torch.layers.softmax import SoftmaxWithLoss
from pycaffe_prune.errors import DataError
from pycaffe_prune.formats.caffe_pb2 import TRAIN, LayerParameter

SCORES = torch.tensor([[1.0, 2.0, 0.5], [0.0, -1.0, 300.0]])
LABELS = torch.tensor([1.0, 0.0])
FLT_MIN = torch.finfo(torch.float32).tiny


def _loss(tops: int = 1, ignored: int | None = None) -> SoftmaxWithLoss:
    param = LayerParameter(name="loss", type="SoftmaxWithLoss")
    if ignored is not None:
        param.loss_param.ignore_label = ignored
    return SoftmaxWithLoss(LayerSetup(param, ((2, 3), (2,)), ((), (2, 3))[:tops], TRAIN))


def _both(layer: SoftmaxWithLoss, labels: Tensor) -> list[tuple[tuple[Tensor, ...], Tensor | None]]:
    """Tops and gradient, by autograd and by hand."""
    found = []
    for kind in (Layer, SoftmaxWithLoss):
        tops, saved = kind.forward_saving(layer, [SCORES, labels], [])
        diffs = [torch.ones(()), *(torch.full_like(top, 9) for top in tops[1:])]
        if kind is Layer:
            diffs[1:] = [None] * (len(tops) - 1)
        found.append((tops, kind.backward(layer, saved, diffs, [True, False], [])[0]))
    return found


def test_a_hopeless_label_has_a_bounded_loss_and_its_whole_gradient() -> None:
    probabilities = SCORES.softmax(1)
    wanted = (-math.log(FLT_MIN) - math.log(probabilities[0, 1])) / 2
    one_hot = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    for (loss,), diff in _both(_loss(), LABELS):
        assert float(loss) == pytest.approx(wanted, rel=1e-6)
        torch.testing.assert_close(diff, (probabilities - one_hot) / 2)


def test_the_second_top_has_the_probabilities_and_gives_no_gradient() -> None:
    (_, without), *_ = _both(_loss(), LABELS)
    for tops, diff in _both(_loss(tops=2), LABELS):
        torch.testing.assert_close(tops[1], SCORES.softmax(1))
        torch.testing.assert_close(diff, without)


def test_nothing_but_ignored_labels() -> None:
    for (loss,), diff in _both(_loss(ignored=255), torch.tensor([255.0, 255.0])):
        assert float(loss) == 0
        assert diff is not None
        assert not diff.any()


def test_an_ignored_place_may_be_nan() -> None:
    scores = SCORES.clone()
    scores[0] = math.nan
    layer = _loss(ignored=1)
    for (loss,) in (
        layer.forward([scores, LABELS], []),
        layer.forward_saving([scores, LABELS], [])[0],
    ):
        assert math.isfinite(loss)


@pytest.mark.parametrize("label", [3, -1])
def test_a_label_without_a_class_is_named(label: int) -> None:
    labels = torch.tensor([0.0, float(label)])
    for run in (_loss().forward, _loss().forward_saving):
        with pytest.raises(DataError, match=rf"'loss'.*label {label},.*2x3.*3 classes"):
            run([SCORES, labels], [])
