"""The third experiment whole, with its own net at a fraction of its width, on few small images."""

import json

import numpy as np
import pytest
from rich.console import Console

from data_prep.dataset import Content, Recipe, build_data_set, in_batches
from data_prep.flowers102 import LMDB_NAMES
from pycaffe_prune.engines.caffe.engine import CaffeEngine
from pycaffe_prune.engines.torch.engine import TorchEngine
from pycaffe_prune.experiments.plan import make_plan, solver_path
from pycaffe_prune.experiments.pretrained import find_weights
from pycaffe_prune.experiments.reproduce import assemble
from pycaffe_prune.experiments.result import DataSet, read_result, write_result
from pycaffe_prune.experiments.scheduler import run_stages
from pycaffe_prune.experiments.spec import read_experiment
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer, read_caffemodel, write_caffemodel
from pycaffe_prune.formats.files import sha256_of
from pycaffe_prune.formats.prototxt import read_net, write_prototxt
from pycaffe_prune.net.shapes import infer_shapes
from pycaffe_prune.share import share_root

TOML = """
name = "narrow"
preset = "test"
title = "CaffeNet"
solver = "solver.prototxt"
data = "flowers102"
layers = ["fc6", "fc7", "fc8_oxford_102"]
[net]
units = { fc6 = 24, fc7 = 16 }
[baseline]
seeds = [1]
iterations = 2
[[methods]]
kind = "connections"
alphas = [1.0]
rounds = 2
iterations = 1
[[methods]]
kind = "units"
layers = ["fc6", "fc7"]
ratios = [0.5]
iterations = 1
"""
_BATCH, _TRAIN, _TEST = 3, 7, 5


def _thin(net: NetParameter) -> NetParameter:
    """The net with a sixteenth of its filters."""
    for layer in net.layer:
        if layer.type == "Convolution":
            layer.convolution_param.num_output //= 16
        if layer.type == "Data":
            layer.data_param.batch_size = _BATCH
    return net


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The TOML file with solver and net beside it, the LMDBs, and weights to begin with."""
    folder = tmp_path_factory.mktemp("narrow")
    shipped = share_root() / "prototxt"
    write_prototxt(
        folder / "net.prototxt", _thin(read_net(shipped / "caffenet_oxford102/train_val.prototxt"))
    )
    solver = (share_root() / "solvers" / "caffenet_oxford102.prototxt").read_text()
    net = 'net: "prototxt/caffenet_oxford102/train_val.prototxt"'
    assert net in solver
    (folder / "solver.prototxt").write_text(solver.replace(net, 'net: "net.prototxt"'))
    (folder / "narrow.toml").write_text(TOML)
    _build(folder / "data")
    _write_zoo_weights(folder / "zoo.caffemodel", read_net(shipped / "caffenet/deploy.prototxt"))
    return folder


def _build(out) -> None:
    random = np.random.default_rng(1)

    def load() -> Content:
        return Content(
            {
                split: in_batches(
                    random.integers(0, 256, (count, 3, 256, 256), np.uint8),
                    random.integers(0, 102, count),
                )
                for split, count in (("train", _TRAIN), ("test", _TEST))
            }
        )

    recipe = Recipe(
        name="flowers102",
        source="noise",
        is_sample=True,
        lmdbs=LMDB_NAMES,
        counts={"train": _TRAIN, "test": _TEST},
        shape=(3, 256, 256),
        load=load,
    )
    build_data_set(out, recipe, force=False, console=Console(quiet=True))


def _write_zoo_weights(path, deploy: NetParameter) -> None:
    """Random weights of the Model Zoo's net of a thousand classes, as thin as ours."""
    _thin(deploy)
    for layer in deploy.layer:
        if layer.name in ("fc6", "fc7"):
            layer.inner_product_param.num_output = {"fc6": 24, "fc7": 16}[layer.name]
    random = np.random.default_rng(2)
    layers = tuple(
        Layer(
            layer,
            tuple(random.normal(0, 0.05, shape).astype(np.float32) for shape in around.params),
        )
        for layer, around in zip(deploy.layer, infer_shapes(deploy.layer), strict=True)
    )
    write_caffemodel(path, Caffemodel(layers, NetParameter(name=deploy.name)))


@pytest.fixture(params=[pytest.param("caffe", marks=pytest.mark.real_caffe), "torch"])
def engine(request):
    if request.param == "caffe":
        engine = CaffeEngine(request.getfixturevalue("caffe_python"))
    else:
        engine = TorchEngine()
    yield engine
    engine.close()


def test_the_third_experiment_runs_whole_from_the_weights_of_another_task(folder, tmp_path, engine):
    toml = folder / "narrow.toml"
    spec = read_experiment(toml)
    data = DataSet(
        name="noise",
        is_sample=True,
        train_images=_TRAIN,
        test_images=_TEST,
        train_sha256="1" * 64,
        test_sha256="2" * 64,
    )
    pretrained = find_weights(spec.weights, toml, folder / "zoo.caffemodel")
    solver = solver_path(spec, toml)
    plan = make_plan(
        spec, solver, tmp_path, folder / "data", data, engine.name, pretrained=pretrained
    )
    run_stages(plan.stages, engine, 1, lambda *_: None)
    result = assemble(spec, plan, data, engine.name, 1)
    write_result(tmp_path / "result.json", result)
    assert read_result(tmp_path / "result.json") == result
    assert result.pretrained_sha256 == sha256_of(folder / "zoo.caffemodel")

    assert [len(result.select(method)) for method in ("connections", "units", "small")] == [1, 1, 0]
    assert result.select("units")[0].units == {"fc6": 12, "fc7": 8}
    for point in result.points:
        for part in point.rounds:
            for score in (part.before, part.after):
                _require_cycled(score)
    _require_begun_with(folder / "zoo.caffemodel", plan.baselines[0].folder)
    assert result.prediction is not None
    (foreseen,) = result.prediction.rates
    # So few iterations hardly shrink anything.
    assert result.prediction.shrink == pytest.approx(1, abs=1e-4)
    (first, _) = result.select("connections")[0].rounds
    assert foreseen.reduction == pytest.approx(first.reduction, abs=1e-3)
    assert not list(tmp_path.glob("stages/*/pr*.caffemodel"))


def _require_cycled(score) -> None:
    """124 batches of 3, from the first of the 5 images on."""
    assert (score.images, score.cycled_images) == (_TEST, 124 * _BATCH)
    right = round(score.cycled * score.cycled_images)
    whole, rest = divmod(124 * _BATCH, _TEST)
    assert whole * score.correct <= right <= whole * score.correct + min(rest, score.correct)


def _require_begun_with(zoo, folder) -> None:
    """Two iterations at the recipe's rate leave the weights near where they began."""
    before, after = read_caffemodel(zoo), read_caffemodel(folder.training.final_weights)
    for name in ("conv1", "conv5", "fc6", "fc7"):
        for old, new in zip(before.layer(name).blobs, after.layer(name).blobs, strict=True):
            np.testing.assert_allclose(new, old, atol=0.02)
    assert after.layer("fc8_oxford_102").blobs[0].std() == pytest.approx(0.01, abs=0.003)
    assert json.loads(folder.output.read_text())["kept"]["fc8_oxford_102"] == 102 * 16
