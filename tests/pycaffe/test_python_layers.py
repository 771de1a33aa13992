"""Layers written in Python: what they see, when they are asked, and who runs them."""

import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from pycaffe_prune import pycaffe as caffe
from pycaffe_prune.engines.torch.net import Net as EngineNet
from pycaffe_prune.errors import PruneError
from pycaffe_prune.formats.prototxt import read_net
from pycaffe_prune.net.graph import NetState
from pycaffe_prune.pycaffe._caffe import Blob

NET = """
name: 'python' force_backward: true
layer {{ name: 'data' type: 'Input' top: 'data' input_param {{ shape {{ dim: 2 dim: 3 }} }} }}
layer {{ name: 'ip' type: 'InnerProduct' bottom: 'data' top: 'ip'
  inner_product_param {{ num_output: 4 weight_filler {{ type: 'xavier' }} }} }}
layer {{ name: 'own' type: 'Python' bottom: 'ip' top: '{top}'
  python_param {{ module: 'own_layers' layer: '{layer}' param_str: "told" }} }}
layer {{ name: 'tanh' type: 'TanH' bottom: '{top}' top: 'tanh' }}
"""
Blobs = Sequence[Blob]


class Plain(caffe.Layer):
    """Doubles; keeps what it was asked."""

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self.asked = ["setup"]

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        self.asked.append("reshape")
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        self.asked.append("forward")
        top[0].data[...] = 2 * bottom[0].data

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        self.asked.append("backward")
        bottom[0].diff[...] = 2 * top[0].diff


class Widening(Plain):
    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        top[0].reshape(bottom[0].num, 2 * bottom[0].channels)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        top[0].data[...] = np.tile(bottom[0].data, 2)


class Failing(Plain):
    def forward(self, bottom: Blobs, top: Blobs) -> None:
        raise ZeroDivisionError(self.param_str)


class Refusing(caffe.Layer):
    def setup(self, bottom: Blobs, top: Blobs) -> None:
        raise LookupError("not with me")


class NoLayer:
    def __init__(self, param: object) -> None:
        pass


@pytest.fixture(autouse=True)
def own_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("own_layers")
    for layer in (Plain, Widening, Failing, Refusing, NoLayer):
        setattr(module, layer.__name__, layer)
    monkeypatch.setitem(sys.modules, "own_layers", module)


def net_file(folder: Path, layer: str, top: str = "own") -> str:
    path = folder / "net.prototxt"
    path.write_text(NET.format(layer=layer, top=top))
    return str(path)


def made(folder: Path, layer: str, top: str = "own") -> caffe.Net:
    return caffe.Net(net_file(folder, layer, top), caffe.TEST)


def test_a_net_s_layer_is_the_script_s_own_object(tmp_path: Path) -> None:
    own = made(tmp_path, "Plain").layer_dict["own"]
    assert type(own) is Plain
    assert (own.type, own.phase, own.param_str) == ("Python", caffe.TEST, "told")
    assert len(own.blobs) == 0


def test_a_layer_is_reshaped_before_each_pass(tmp_path: Path) -> None:
    net = made(tmp_path, "Plain")
    net.forward()
    net.reshape()
    net.backward()
    assert net.layers[2].asked == [
        "setup", "reshape", "reshape", "forward", "reshape", "backward",
    ]  # fmt: skip


@pytest.mark.parametrize("top", ["own", "ip"])
def test_what_comes_after_reads_what_it_wrote(tmp_path: Path, top: str) -> None:
    net = made(tmp_path, "Plain", top)
    net.blobs["data"].data[...] = [[1, 2, 3], [-1, 0, 1]]
    net.forward()
    plain = net.blobs["data"].data @ net.params["ip"][0].data.T
    np.testing.assert_allclose(net.blobs["tanh"].data, np.tanh(2 * plain), rtol=1e-5)
    net.blobs["tanh"].diff[...] = 1
    net.backward()
    back = 2 * (1 - np.tanh(2 * plain) ** 2) @ net.params["ip"][0].data
    np.testing.assert_allclose(net.blobs["data"].diff, back, rtol=1e-4, atol=1e-6)


def test_its_top_may_change_its_shape(tmp_path: Path) -> None:
    net = made(tmp_path, "Widening")
    assert list(net.blobs["tanh"].shape) == [2, 8]
    net.blobs["data"].reshape(5, 3)
    net.forward()
    assert net.blobs["tanh"].data.shape == (5, 8)


def test_its_errors_come_through(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="not with me"):
        made(tmp_path, "Refusing")
    net = made(tmp_path, "Failing")
    with pytest.raises(ZeroDivisionError, match="told"):
        net.forward()


def test_other_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PruneError, match=r"layer 'own' \(Python\): own_layers.NoLayer is no caffe"):
        made(tmp_path, "NoLayer")


def test_the_engine_itself_runs_none(tmp_path: Path) -> None:
    with pytest.raises(PruneError, match="layer 'own' is of type 'Python'"):
        EngineNet(read_net(Path(net_file(tmp_path, "Plain"))), NetState())
