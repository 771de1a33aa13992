"""Where Caffe ends the process for want of a gradient, ours raises with its words."""

from pathlib import Path

import pytest

from pycaffe_prune.errors import PruneError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter
from pycaffe_prune.pycaffe import TEST, Net, NetSpec
from pycaffe_prune.pycaffe import layers as L  # noqa: N812 (NetSpec's own habit)
from pycaffe_prune.pycaffe.no_gradient import require_gradients


@pytest.mark.parametrize("kind", ["Accuracy", "ArgMax", "Threshold"])
def test_force_backward_through_a_layer_without_one(tmp_path: Path, kind: str) -> None:
    spec = NetSpec()
    spec.data, label = L.Input(shape=[{"dim": [2, 3]}, {"dim": [2]}], ntop=2)
    spec.last = getattr(L, kind)(spec.data, *([label] if kind == "Accuracy" else []))
    proto = spec.to_proto()
    proto.force_backward = True
    (tmp_path / "net.prototxt").write_text(str(proto))
    net = Net(str(tmp_path / "net.prototxt"), TEST)
    net.forward()
    with pytest.raises(PruneError, match=rf"layer 'last' \({kind}\).*Not Implemented Yet"):
        net.backward()


@pytest.mark.parametrize(
    ("kind", "number", "words"),
    [
        ("SoftmaxWithLoss", 1, "cannot backpropagate to label inputs"),
        ("InfogainLoss", 2, "cannot backpropagate to infogain inputs"),
        ("Embed", 0, "Can't backpropagate to EmbedLayer input"),
        ("LSTM", 1, "Cannot backpropagate to sequence indicators"),
    ],
)
def test_a_bottom_without_a_gradient_is_named(kind: str, number: int, words: str) -> None:
    layer = LayerParameter(name="it", type=kind, bottom=["a", "b", "c"])
    propagate = [False, False, False]
    require_gradients(layer, propagate)
    propagate[number] = True
    with pytest.raises(PruneError, match=f"{words}.*bottom '{layer.bottom[number]}' depends"):
        require_gradients(layer, propagate)
