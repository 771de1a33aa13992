"""Drawing where what draws is missing; the drawn graph itself is a twin."""

import sys
from pathlib import Path

import pytest

from pycaffe_prune.errors import PruneError
from pycaffe_prune.pycaffe.draw import draw_net_to_file, get_layer_lr_mult
from pycaffe_prune.pycaffe.proto import caffe_pb2
from tests.pycaffe.helpers import pydot_recorder


def test_without_pydot_one_sentence_and_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pydot", None)
    monkeypatch.setitem(sys.modules, "pydotplus", None)
    with pytest.raises(PruneError, match="pip install pydot"):
        draw_net_to_file(caffe_pb2.NetParameter(), tmp_path / "net.svg")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (FileNotFoundError(2, '"dot" not found in path.'), "dot .*not installed: `apt install"),
        (AssertionError("Format: 'none' not recognized"), "drew no none: Format: 'none' not"),
    ],
)
def test_without_graphviz_one_sentence_and_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, sentence: str
) -> None:
    def create(_dot: pydot_recorder.Dot, format: str) -> bytes:  # noqa: A002 (pydot's)
        raise error

    monkeypatch.setattr(pydot_recorder.Dot, "create", create)
    monkeypatch.setitem(sys.modules, "pydotplus", pydot_recorder)
    with pytest.raises(PruneError, match=sentence):
        draw_net_to_file(caffe_pb2.NetParameter(), tmp_path / "net.none")
    assert not list(tmp_path.iterdir())


def test_a_layer_of_three_rates_is_refused() -> None:
    param = [caffe_pb2.ParamSpec()] * 3
    layer = caffe_pb2.LayerParameter(name="fc", type="InnerProduct", param=param)
    with pytest.raises(PruneError, match="layer fc has 3 param"):
        get_layer_lr_mult(layer)
