"""Second derivatives of the loss: LeCun's recursion, and what it is where it is exact."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from pycaffe_prune.engines.torch.build import Step
from pycaffe_prune.engines.torch.curvature import (
    curvature_net,
    fisher_diagonal,
    hessian_diagonal,
    require_reached,
)
from pycaffe_prune.engines.torch.net import Net
from pycaffe_prune.engines.torch.pure_loss import pure_loss
from pycaffe_prune.errors import EngineError, SurgeryError
from pycaffe_prune.formats.caffe_pb2 import TRAIN
from pycaffe_prune.formats.caffemodel import BlobKey
from pycaffe_prune.net.graph import NetState
from tests.engines.torch.loss_nets import parse
from tests.pruning.random_nets import random_weights

DATA = """
layer {{ name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {{
  shape {{ dim: {batch} dim: 2 dim: 5 dim: 5 }} shape {{ dim: {batch} }}
  data_filler {{ type: "gaussian" }} data_filler {{ type: "uniform" min: 0 max: 3.99 }} }} }}
"""
ONE = """
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 4 } }
"""
LOSS = """
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" %s }
"""
TWO = """
layer { name: "hidden" type: "InnerProduct" bottom: "data" top: "hidden"
  inner_product_param { num_output: 8 } }
layer { name: "relu" type: "ReLU" bottom: "hidden" top: "hidden"
  relu_param { negative_slope: 0.25 } }
layer { name: "drop" type: "Dropout" bottom: "hidden" top: "hidden" }
""" + ONE.replace('bottom: "data"', 'bottom: "hidden"')
CONVOLUTIONS = """
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 pad: 1 stride: 2 group: 2 } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "max" type: "Pooling" bottom: "conv" top: "max"
  pooling_param { pool: MAX kernel_size: 2 stride: 1 } }
layer { name: "mean" type: "Pooling" bottom: "data" top: "mean"
  pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 } }
layer { name: "of_mean" type: "Convolution" bottom: "mean" top: "of_mean"
  convolution_param { num_output: 3 kernel_size: 2 bias_term: false } }
layer { name: "mean2" type: "Pooling" bottom: "of_mean" top: "mean2"
  pooling_param { pool: AVE kernel_size: 2 stride: 2 pad: 1 } }
layer { name: "flat" type: "Flatten" bottom: "max" top: "flat" }
layer { name: "ip" type: "InnerProduct" bottom: "flat" top: "ip"
  inner_product_param { num_output: 4 transpose: true } }
layer { name: "side" type: "InnerProduct" bottom: "mean2" top: "side"
  inner_product_param { num_output: 4 } }
layer { name: "side_loss" type: "SoftmaxWithLoss" bottom: "side" bottom: "label" top: "side_loss"
  loss_weight: 0.3 }
layer { name: "again" type: "InnerProduct" bottom: "flat" top: "again"
  inner_product_param { num_output: 4 } }
layer { name: "again_loss" type: "SoftmaxWithLoss" bottom: "again" bottom: "label" top: "again_loss"
  loss_weight: 2 }
"""


def made(text: str, batch: int = 6) -> Net:
    definition = curvature_net(parse(DATA.format(batch=batch) + text))
    net = Net(definition, NetState(TRAIN))
    for layer in random_weights(definition, 1).layers:
        for view, blob in zip(net.params[layer.name], layer.blobs, strict=True):
            view.data[...] = blob
    return net


def values(net: Net) -> dict[BlobKey, Tensor]:
    return {
        blob.key: net.parameters.view(net.parameters.data, blob.key).double()
        for blob in net.parameters.blobs
    }


def second_differences(net: Net, batches: int) -> dict[BlobKey, Tensor]:
    """Of the mean loss over the net's first batches, in float64."""
    net.seek(0)
    held = []
    for _ in range(batches):
        net.fetch()
        held.append([tensor.double() for tensor in net.batch])
    blobs = values(net)

    def loss() -> float:
        return float(sum(pure_loss(net, blobs, batch)[0] for batch in held)) / batches

    step, middle = 1e-3, loss()
    found = {}
    for key, blob in blobs.items():
        flat, seconds = blob.reshape(-1), torch.zeros(blob.numel(), dtype=torch.float64)
        for place in range(flat.numel()):
            value = float(flat[place])
            flat[place] = value + step
            above = loss()
            flat[place] = value - step
            seconds[place] = (above - 2 * middle + loss()) / step**2
            flat[place] = value
        found[key] = seconds.view(blob.shape)
    net.seek(0)
    return found


def require_close(found: Tensor, expected: Tensor, tolerance: float = 2e-5) -> None:
    scale = float(expected.abs().max())
    assert scale > 0
    assert float((found.double() - expected).abs().max()) <= tolerance * scale


@pytest.mark.parametrize(
    "settings",
    ["", "loss_weight: 3", "loss_param { ignore_label: 2 }", "loss_param { normalization: NONE }"],
)
def test_it_is_exact_for_one_layer(settings: str) -> None:
    net = made(ONE + LOSS % settings)
    expected = second_differences(net, 3)
    for key, found in hessian_diagonal(net, 3).items():
        require_close(found, expected[key])


def test_it_is_exact_where_each_hidden_unit_feeds_one_class() -> None:
    net = made(TWO + LOSS % "")
    feeds = torch.zeros(4, 8)
    feeds[torch.arange(8) % 4, torch.arange(8)] = 1
    net.params["ip"][0].tensor.mul_(feeds)
    expected = second_differences(net, 2)
    for key, found in hessian_diagonal(net, 2).items():
        require_close(found, expected[key])


def test_of_two_layers_the_last_is_exact_and_the_first_ranks_alike() -> None:
    net = made(TWO + LOSS % "")
    expected, found = second_differences(net, 4), hessian_diagonal(net, 4)
    require_close(found["ip", 0], expected["ip", 0])
    ranks = [blob["hidden", 0].flatten().argsort().argsort() for blob in (found, expected)]
    assert np.corrcoef(*(rank.numpy() for rank in ranks))[0, 1] > 0.85


def squared_jacobian(function: Callable[[Tensor], Tensor], at: Tensor, seconds: Tensor) -> Tensor:
    jacobian = torch.autograd.functional.jacobian(function, at)
    return (jacobian.reshape(seconds.numel(), -1).square().t() @ seconds.flatten()).view(at.shape)


def through(step: Step, bottoms: list[Tensor], above: Tensor) -> list[Tensor]:
    """By the first bottom, then by each blob."""
    if step.layer.param.type == "SoftmaxWithLoss":
        scores, labels = bottoms
        hessian = torch.autograd.functional.hessian(
            lambda x: step.layer.forward([x, labels], [])[0], scores
        )
        diagonal = hessian.reshape(scores.numel(), -1).diagonal().view(scores.shape)
        return [step.loss_diffs[step.flow.tops[0]] * diagonal]
    inputs = [bottoms[0], *step.params]

    def at(place: int) -> Callable[[Tensor], Tensor]:
        return lambda x: step.layer.forward(
            [x if place == 0 else inputs[0]],
            [x if place == index else blob for index, blob in enumerate(step.params, 1)],
        )[0]

    return [squared_jacobian(at(place), blob, above) for place, blob in enumerate(inputs)]


def by_jacobians(net: Net) -> dict[BlobKey, Tensor]:
    """The recursion as it is stated: through every layer by its squared derivatives."""
    net.fetch()
    slots = dict(zip(net.batch_slots, net.batch, strict=True))
    for step in net.steps:
        bottoms = [slots[slot] for slot in step.flow.bottoms]
        slots.update(zip(step.flow.tops, step.layer.forward(bottoms, step.params), strict=True))
    seconds = {slot: torch.zeros_like(value) for slot, value in slots.items()}
    found: dict[BlobKey, Tensor] = {}
    for step in reversed(net.steps):
        bottoms = [slots[slot] for slot in step.flow.bottoms]
        below, *blobs = through(step, bottoms, seconds[step.flow.tops[0]])
        seconds[step.flow.bottoms[0]] += below
        found |= dict(zip(step.keys, blobs, strict=True))
    net.seek(0)
    return found


@pytest.mark.parametrize("text", [TWO, CONVOLUTIONS], ids=["fully connected", "convolutions"])
def test_derivatives_go_back_squared_through_every_layer(text: str) -> None:
    net = made(text + LOSS % "", batch=3)
    expected = by_jacobians(net)
    for key, found in hessian_diagonal(net, 1).items():
        require_close(found, expected[key])


def test_a_blob_that_two_layers_share_gets_both_parts() -> None:
    def text(name: str) -> str:
        return "".join(
            f'layer {{ name: "{side}" type: "InnerProduct" bottom: "data" top: "{side}" '
            f"{name} inner_product_param {{ num_output: 4 bias_term: false }} }}"
            f'layer {{ name: "{side}_loss" type: "SoftmaxWithLoss" bottom: "{side}" '
            f'bottom: "label" top: "{side}_loss" }}'
            for side in ("left", "right")
        )

    shared, apart = made(text('param { name: "w" }')), made(text(""))
    for side in ("left", "right"):
        apart.params[side][0].tensor.copy_(shared.params["left"][0].tensor)
    parts = hessian_diagonal(apart, 2)
    (both,) = hessian_diagonal(shared, 2).values()
    torch.testing.assert_close(both, parts["left", 0] + parts["right", 0])


def test_layers_that_do_not_learn_are_measured_too() -> None:
    frozen = ONE.replace("inner_product_param", "param { lr_mult: 0 } inner_product_param")
    found, expected = (hessian_diagonal(made(text + LOSS % ""), 1) for text in (frozen, ONE))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("text", [TWO, CONVOLUTIONS], ids=["fully connected", "convolutions"])
def test_the_fisher_estimate_is_the_mean_square_of_single_images_gradients(text: str) -> None:
    net = made(text + LOSS % "", batch=1)
    images = 70  # more than are held at a time
    expected = net.parameters.zeros()
    for _ in range(images):
        net.fetch()
        net.parameters.diff.zero_()
        net.compute()
        expected += net.parameters.diff.square()
    net.seek(0)
    for key, found in fisher_diagonal(net, images).items():
        require_close(found, net.parameters.view(expected, key) / images)


@pytest.mark.parametrize(
    ("layer", "named"),
    [
        ('type: "LRN"', r"'between' \(LRN\)"),
        ('type: "Eltwise" bottom: "hidden"', r"'between' \(Eltwise\)"),
        ('type: "Pooling" pooling_param { kernel_size: 3 pad: 2 }', r"'between' \(Pooling\)"),
    ],
)
def test_other_layers_on_the_way_to_the_loss_are_refused_by_name(layer: str, named: str) -> None:
    text = """
layer { name: "hidden" type: "Convolution" bottom: "data" top: "hidden"
  convolution_param { num_output: 2 kernel_size: 2 } }
layer { name: "between" bottom: "hidden" top: "between" %s }
"""
    net = made(text % layer + ONE.replace('"data"', '"between"') + LOSS % "")
    with pytest.raises(EngineError, match=f"layer {named}: second derivatives are not carried"):
        hessian_diagonal(net, 1)
    assert all(bool(blob.isfinite().all()) for blob in fisher_diagonal(made_alone(net), 2).values())


def made_alone(net: Net) -> Net:
    """The same net, an image at a time."""
    for shape in net.definition.layer[0].dummy_data_param.shape:
        shape.dim[0] = 1
    return Net(net.definition, NetState(TRAIN))


def test_what_leads_to_no_loss_cannot_be_judged() -> None:
    aside = ONE.replace('"ip"', '"aside"')
    net = made(ONE + aside + LOSS % "")
    require_reached(net, [("ip", 0)])
    with pytest.raises(SurgeryError, match="layer 'aside': in the phase TRAIN no gradient"):
        require_reached(net, [("ip", 0), ("aside", 0)])


def test_batch_norm_has_its_stored_statistics_or_is_refused() -> None:
    layer = """
layer { name: "norm" type: "BatchNorm" bottom: "data" top: "norm" batch_norm_param { %s } }
"""
    text = layer + ONE.replace('"data"', '"norm"') + LOSS % ""
    found = [fisher_diagonal(made(text % told, 1), 3) for told in ("", "use_global_stats: true")]
    for key, expected in found[1].items():
        torch.testing.assert_close(found[0][key], expected)
    assert bool(found[0]["ip", 0].any())
    with pytest.raises(EngineError, match=r"'norm' \(BatchNorm\): with use_global_stats: false"):
        made(text % "use_global_stats: false")
