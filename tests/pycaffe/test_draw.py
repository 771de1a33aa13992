"""Drawing where what draws is missing; the drawn graph itself is a twin."""

import sys
from pathlib import Path

import pytest

from pycaffe_prune.errors import PruneError
from pycaffe_prune.pycaffe.draw import draw_net_to_file, get_layer_lr_mult
from pycaffe_prune.pycaffe.proto import caffe_pb2


def test_without_pydot_one_sentence_and_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pydot", None)
    monkeypatch.setitem(sys.modules, "pydotplus", None)
    with pytest.raises(PruneError, match="pip install pydot"):
        draw_net_to_file(caffe_pb2.NetParameter(), tmp_path / "net.svg")
    assert not list(tmp_path.iterdir())


def test_a_layer_of_three_rates_is_refused() -> None:
    param = [caffe_pb2.ParamSpec()] * 3
    layer = caffe_pb2.LayerParameter(name="fc", type="InnerProduct", param=param)
    with pytest.raises(PruneError, match="layer fc has 3 param"):
        get_layer_lr_mult(layer)
