"""Nets that can be trained, of every kind of connection: random nets with a loss at each end."""

from collections.abc import Callable

import numpy as np
import torch
from google.protobuf import text_format
from hypothesis import strategies as st
from torch import Tensor

from pycaffe_prune.engines.torch.net import Net
from pycaffe_prune.engines.torch.parameters import Learnable
from pycaffe_prune.engines.torch.pure_loss import pure_loss
from pycaffe_prune.formats.caffe_pb2 import TRAIN, LayerParameter, NetParameter
from pycaffe_prune.formats.caffemodel import BlobKey
from pycaffe_prune.net.graph import NetGraph, NetState
from pycaffe_prune.net.shapes import infer_shapes
from tests.pruning.random_nets import nets, random_weights

TOLERANCE = 2e-5
"""Relative to the largest gradient of a net: float32, added up in another order."""


@st.composite
def loss_nets(draw: st.DrawFn) -> NetParameter:
    """A random net with losses of several weights, some of its layers frozen."""
    net = draw(nets())
    graph = NetGraph(net.layer)
    ends = [net.layer[top.layer].top[top.number] for top in graph.tops() if not graph.readers(top)]
    shapes = {
        top: shape
        for layer, around in zip(net.layer, infer_shapes(net.layer), strict=True)
        for top, shape in zip(layer.top, around.tops, strict=True)
    }
    blobs = [len(around.params) for around in infer_shapes(net.layer)]
    for layer, count in zip(net.layer, blobs, strict=True):
        if layer.type == "Dropout":
            layer.type = "TanH"  # a function of its bottom
        if layer.type == "BatchNorm" and draw(st.booleans()):
            layer.batch_norm_param.use_global_stats = True
        if layer.type in ("Convolution", "InnerProduct") and not layer.param:
            for _ in range(count):
                layer.param.add(lr_mult=draw(st.sampled_from([0.0, 1.0, 1.0])))
    for top in ends:
        target = net.layer.add(name=f"wanted_{top}", type="DummyData", top=[f"wanted_{top}"])
        target.dummy_data_param.shape.add(dim=shapes[top])
        target.dummy_data_param.data_filler.add(type="gaussian")
        loss = net.layer.add(name=f"loss_{top}", type="EuclideanLoss", top=[f"loss_{top}"])
        loss.bottom.extend([top, target.name])
        loss.loss_weight.append(draw(st.sampled_from([1.0, 0.5, -2.0])))
    net.layer[0].type = "DummyData"
    net.layer[0].dummy_data_param.shape.add(dim=net.layer[0].input_param.shape[0].dim)
    net.layer[0].dummy_data_param.data_filler.add(type="gaussian")
    net.layer[0].ClearField("input_param")
    return net


def filled(definition: NetParameter, seed: int = 0, phase: int = TRAIN) -> Net:
    """The net with random weights and its first batch."""
    net = Net(definition, NetState(phase))
    for layer in random_weights(definition, seed).layers:
        for view, blob in zip(net.params[layer.name], layer.blobs, strict=True):
            view.data[...] = blob
    net.fetch()
    return net


def parse(text: str) -> NetParameter:
    return text_format.Parse(text, NetParameter())


def apart(definition: NetParameter) -> NetParameter:
    """The same net with a top of its own for each layer that is declared in place."""
    net = NetParameter()
    net.CopyFrom(definition)
    names: dict[str, str] = {}
    for layer in net.layer:
        own = LayerParameter()
        own.CopyFrom(layer)
        del layer.bottom[:], layer.top[:]
        layer.bottom.extend(names.get(bottom, bottom) for bottom in own.bottom)
        for top in own.top:
            names[top] = f"{top}_{layer.name}" if top in own.bottom else top
            layer.top.append(names[top])
    return net


def pure_gradients(
    net: Net, graded: Callable[[Learnable], bool] = lambda blob: blob.lr_mult != 0
) -> dict[BlobKey, Tensor]:
    """The gradients of the learnable blobs by autograd; zero for those that are not graded."""
    parameters = net.parameters
    values = {blob.key: parameters.view(parameters.data, blob.key) for blob in parameters.blobs}
    batch = [tensor.clone() for tensor in net.batch]

    def loss(blobs: dict[BlobKey, Tensor]) -> Tensor:
        return pure_loss(net, blobs, batch)[0]

    found = torch.func.grad(loss)({key: value.clone() for key, value in values.items()})
    return {blob.key: found[blob.key] * graded(blob) for blob in parameters.blobs}


def hand_gradients(net: Net) -> dict[BlobKey, Tensor]:
    parameters = net.parameters
    return {blob.key: parameters.view(parameters.diff, blob.key) for blob in parameters.blobs}


def require_equal(
    found: dict[BlobKey, Tensor], expected: dict[BlobKey, Tensor], tolerance: float = TOLERANCE
) -> None:
    assert found.keys() == expected.keys()
    largest = max((float(grad.abs().max()) for grad in expected.values()), default=0.0)
    for key, grad in expected.items():
        np.testing.assert_allclose(
            found[key].numpy(),
            grad.numpy(),
            rtol=0,
            # Where all gradients cancel (a bias before BatchNorm), what went into them was about 1.
            atol=tolerance * max(largest, 0.1),
            err_msg=str(key),
        )
