"""The recurrent networks of Table 1, in small: both engines compute them, and they are pruned."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from google.protobuf import text_format

from pycaffe_prune.engines.caffe.engine import CaffeEngine
from pycaffe_prune.engines.torch.net import Net
from pycaffe_prune.engines.torch.solver import Solver
from pycaffe_prune.formats.caffe_pb2 import TEST, LayerParameter, NetParameter, SolverParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer, write_caffemodel
from pycaffe_prune.formats.prototxt import write_prototxt
from pycaffe_prune.formats.sharing import blob_owners
from pycaffe_prune.net.graph import NetState
from pycaffe_prune.net.shapes import infer_shapes
from pycaffe_prune.pruning.units import choose_units, delete_units, mask_units, prunable_layers

_SPEC = importlib.util.spec_from_file_location(
    "generate_recurrent", Path(__file__).parents[2] / "prototxt" / "generate_recurrent.py"
)
assert _SPEC is not None
assert _SPEC.loader is not None
generate = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(generate)

SMALL: dict[str, Callable[[], str]] = {
    "neural_talk": lambda: generate.neural_talk(3, 2, features=5, units=6, vocabulary=7),
    "deep_speech": lambda: generate.deep_speech(3, 2, bins=5, units=6, letters=4),
    "deep_speech_2": lambda: generate.deep_speech_2(3, 2, units=6, filters=2, layers=2, letters=4),
}
every_network = pytest.mark.parametrize("name", SMALL)


def small(name: str) -> NetParameter:
    return text_format.Parse(SMALL[name](), NetParameter())


def weights_for(net: NetParameter) -> Caffemodel:
    """Random ones, equal where they are shared; statistics that are some."""
    random = np.random.default_rng(0)
    owners = blob_owners(net.layer)
    drawn: dict[tuple[str, int], np.ndarray] = {}
    layers = []
    for layer, around in zip(net.layer, infer_shapes(net.layer), strict=True):
        blobs = [random.normal(0, 0.5, shape).astype(np.float32) for shape in around.params]
        if layer.type == "BatchNorm":
            blobs = [0.1 * blobs[0], 1 + np.abs(blobs[1]), np.ones(1, np.float32)]
        for index, blob in enumerate(blobs):
            owner = owners.get((layer.name, index), (layer.name, index))
            blobs[index] = drawn.setdefault(owner, blob)
        layers.append(Layer(layer, tuple(blobs)))
    return Caffemodel(tuple(layers))


def inputs_of(net: NetParameter) -> dict[str, np.ndarray]:
    random = np.random.default_rng(1)
    data = {
        layer.name: random.normal(size=layer.input_param.shape[0].dim).astype(np.float32)
        for layer in net.layer
        if layer.type == "Input"
    }
    if "words" in data:
        data["words"] = random.integers(0, 7, data["words"].shape).astype(np.float32)
        data["cont"] = np.ones_like(data["cont"])
        data["cont"][0] = 0
    return data


def by_caffe(folder: Path, python: Path, net: NetParameter, model: Caffemodel) -> np.ndarray:
    folder.mkdir()
    write_prototxt(folder / "net.prototxt", net)
    write_caffemodel(folder / "w.caffemodel", model)
    (found,) = CaffeEngine(python).forward(
        folder / "net.prototxt", folder / "w.caffemodel", inputs_of(net), ["prob"]
    )
    return found


@pytest.mark.real_caffe
@every_network
def test_units_that_are_deleted_are_as_good_as_masked(
    tmp_path: Path, caffe_python: Path, name: str
) -> None:
    net = small(name)
    model = weights_for(net)
    ratios = dict.fromkeys(prunable_layers(net, model), 0.34)
    kept = choose_units(net, model, ratios)
    assert {int(flags.sum()) for flags in kept.values()} == {4}
    smaller, weights = delete_units(net, model, kept)
    masked = by_caffe(tmp_path / "masked", caffe_python, net, mask_units(net, model, kept))
    deleted = by_caffe(tmp_path / "deleted", caffe_python, smaller, weights)
    np.testing.assert_allclose(deleted, masked, rtol=0, atol=1e-5)
    ours = Net(smaller, NetState(TEST))
    ours.copy_from(tmp_path / "deleted" / "w.caffemodel")
    for blob, values in inputs_of(net).items():
        ours.blobs[blob].data[...] = values
    np.testing.assert_allclose(ours.forward()["prob"], deleted, rtol=0, atol=1e-5)
    assert np.ptp(deleted, axis=0).max() > 1e-4  # the steps are told apart


def trained(net: NetParameter) -> NetParameter:
    """The net on constant and drawn data, with a loss in place of its end."""
    made = NetParameter(name=net.name, layer=net.layer)
    for layer in made.layer:
        if layer.type == "Input":
            layer.type = "DummyData"
            layer.dummy_data_param.shape.add().CopyFrom(layer.input_param.shape[0])
            drawn = "gaussian" if layer.name in ("image", "sound") else "constant"
            layer.dummy_data_param.data_filler.add(type=drawn, value=1)
            layer.ClearField("input_param")
    rows = infer_shapes(net.layer)[-1].bottoms[0]
    assert rows is not None
    end = made.layer[-1]
    labels = LayerParameter(name="labels", type="DummyData", top=["labels"])
    labels.dummy_data_param.shape.add(dim=rows[:-1])
    made.layer.insert(0, labels)
    made.layer[-1].CopyFrom(
        LayerParameter(
            name="loss", type="SoftmaxWithLoss", bottom=[end.bottom[0], "labels"], top=["loss"]
        )
    )
    made.layer[-1].softmax_param.axis = -1
    return made


@every_network
def test_masked_weights_stay_zero_while_the_rest_learns(name: str) -> None:
    net = small(name)
    made = trained(net)
    param = SolverParameter(base_lr=0.05, lr_policy="fixed", momentum=0.9, random_seed=1)
    solver = Solver(param, made, torch.device("cpu"))
    random = np.random.default_rng(2)
    keys = {
        (layer, index): blob.shape
        for layer, blobs in solver.net.params.items()
        for index, blob in enumerate(blobs)
        if len(blob.shape) > 1
    }
    owners = {key for key in keys if solver.net.owner(key) == key}
    solver.mask({key: random.random(keys[key]) < 0.5 for key in owners})
    solver.step(1)
    first = float(solver.net.blobs["loss"].data)
    before = solver.net.parameters.data.clone()
    solver.step(8)
    assert solver.revived() == 0
    assert (solver.net.parameters.data != before).any()
    assert float(solver.net.blobs["loss"].data) < first
    solver.close()
