"""The name ``caffe`` is this package while the finder is installed, and no longer."""

import importlib
import sys
import types

import pytest

from pycaffe_prune import pycaffe
from pycaffe_prune.caffe_name.finder import installed
from pycaffe_prune.errors import PruneError


def test_both_names_give_the_same_modules() -> None:
    with installed():
        assert importlib.import_module("caffe") is pycaffe
        assert importlib.import_module("caffe.io") is pycaffe.io
        assert (
            importlib.import_module("caffe.proto.caffe_pb2")
            is sys.modules["pycaffe_prune.pycaffe.proto.caffe_pb2"]
        )
    assert pycaffe.__spec__ is not None
    assert pycaffe.__spec__.name == pycaffe.__name__ == "pycaffe_prune.pycaffe"


def test_the_name_goes_with_the_finder() -> None:
    with installed():
        importlib.import_module("caffe.io")
    assert not [name for name in sys.modules if name.split(".")[0] == "caffe"]


def test_a_module_that_is_not_there_is_not_found() -> None:
    with installed(), pytest.raises(ModuleNotFoundError, match=r"caffe\.nothing"):
        importlib.import_module("caffe.nothing")


def test_another_caffe_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "caffe", types.ModuleType("caffe"))
    with pytest.raises(PruneError, match="imported as caffe already"), installed():
        pass
