from pathlib import Path

import pytest
import torch

from pycaffe_prune.engines.torch.layers.base import LayerSetup
from pycaffe_prune.engines.torch.layers.losses import InfogainLoss, MultinomialLogisticLoss
from pycaffe_prune.errors import EngineError, FormatError
from pycaffe_prune.formats.caffe_pb2 import TRAIN, BlobProto, LayerParameter

SCORES, LABELS = torch.randn(4, 3), torch.tensor([2.0, 0.0, 1.0, 2.0])
GAINS = torch.arange(9.0).reshape(3, 3)


def _infogain(source: Path | None, *more: tuple[int, ...]) -> InfogainLoss:
    param = LayerParameter(name="gain", type="InfogainLoss")
    if source:
        param.infogain_loss_param.source = str(source)
    return InfogainLoss(LayerSetup(param, ((4, 3), (4,), *more), ((),), TRAIN))


def _write(path: Path, values: list[float]) -> Path:
    blob = BlobProto(num=1, channels=1, height=1, width=len(values), data=values)
    path.write_bytes(blob.SerializeToString())
    return path


def test_gains_of_a_file_are_those_of_a_bottom(tmp_path: Path) -> None:
    source = _write(tmp_path / "gains.binaryproto", GAINS.flatten().tolist())
    (found,) = _infogain(source).forward([SCORES, LABELS], [])
    (wanted,) = _infogain(None, (3, 3)).forward([SCORES, LABELS, GAINS], [])
    assert torch.equal(found, wanted)
    assert float(found) > 0


def test_gains_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    source = _write(tmp_path / "gains.binaryproto", [1.0] * 4)
    with pytest.raises(EngineError, match=r"gains.binaryproto: .*1x1x1x4.*'gain'.*3x3.*4x3"):
        _infogain(source)


def test_missing_gains_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"'gain'.*no gains.*source.*third bottom"):
        _infogain(None)
    with pytest.raises(FormatError, match=r"none\.binaryproto"):
        _infogain(tmp_path / "none.binaryproto")


def test_a_probability_of_0_has_a_finite_loss_and_caffes_gradient() -> None:
    param = LayerParameter(name="loss", type="MultinomialLogisticLoss")
    layer = MultinomialLogisticLoss(LayerSetup(param, ((1, 2), (1,)), ((),), TRAIN))
    (_,), saved = layer.forward_saving([torch.tensor([[0.0, 1.0]]), torch.zeros(1)], [])
    diff, _ = layer.backward(saved, [torch.ones(())], [True, False], [])
    torch.testing.assert_close(diff, torch.tensor([[-1e20, 0.0]]))
