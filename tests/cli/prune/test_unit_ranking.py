"""``prune units`` by rankings over all layers, in steps, and by training images."""

import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from google.protobuf import text_format

from pycaffe_prune.cli.prune.command import prune
from pycaffe_prune.engines.caffe.engine import CaffeEngine
from pycaffe_prune.errors import PruneError
from pycaffe_prune.experiments.features.training_images import training_images
from pycaffe_prune.experiments.features.unit_states import entropy_scores
from pycaffe_prune.formats.caffe_pb2 import Datum, NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, read_caffemodel, write_caffemodel
from pycaffe_prune.formats.prototxt import read_net
from pycaffe_prune.pruning.unit_choice import UnitScores, weight_scores
from pycaffe_prune.pruning.unit_steps import lowest_in_steps
from pycaffe_prune.pruning.units import delete_units
from tests.pruning.random_nets import random_weights
from tests.pruning.test_verify_input import write_lmdb

SOURCE = """
layer {{ name: "data" type: "Data" top: "data" top: "label" include {{ phase: {phase} }}
  transform_param {{ scale: 0.01 }}
  data_param {{ source: "{phase}_lmdb" batch_size: 4 backend: LMDB }} }}
"""
BODY = """
layer { name: "fc1" type: "InnerProduct" bottom: "data" top: "fc1"
  inner_product_param { num_output: 12 } }
layer { name: "relu1" type: "ReLU" bottom: "fc1" top: "fc1" }
layer { name: "fc2" type: "InnerProduct" bottom: "fc1" top: "fc2"
  inner_product_param { num_output: 8 } }
layer { name: "relu2" type: "ReLU" bottom: "fc2" top: "fc2" }
layer { name: "fc3" type: "InnerProduct" bottom: "fc2" top: "fc3"
  inner_product_param { num_output: 3 } }
"""
INPUT = 'layer { name: "d" type: "Input" top: "data" input_param { shape { dim: [1, 1, 3, 4] } } }'


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, ...]:
    random = np.random.default_rng(0)
    for phase in ("TRAIN", "TEST"):
        images = [
            Datum(channels=1, height=3, width=4, data=random.bytes(12), label=place % 3)
            for place in range(40)
        ]
        write_lmdb(tmp_path / f"{phase}_lmdb", [image.SerializeToString() for image in images])
    sources = "".join(SOURCE.format(phase=phase) for phase in ("TRAIN", "TEST"))
    (tmp_path / "net.prototxt").write_text(sources + BODY)
    model = random_weights(text_format.Parse(INPUT + BODY, NetParameter()), 2)
    write_caffemodel(tmp_path / "a.caffemodel", model)
    return (
        *("--net", str(tmp_path / "net.prototxt")),
        *("--weights", str(tmp_path / "a.caffemodel")),
        *("--out", str(tmp_path / "out")),
    )


def run(files: tuple[str, ...], *arguments: str) -> Result:
    return CliRunner().invoke(prune, ["units", *files, *arguments])


def left(out: Path) -> dict[str, int]:
    model = read_caffemodel(out / "pruned.caffemodel")
    return {layer.name: len(layer.blobs[1]) for layer in model.layers if layer.blobs}


@pytest.mark.parametrize("steps", ["1", "4"])
@pytest.mark.parametrize("criterion", ["l1", "onorm", "random"])
def test_one_ranking_over_all_layers(
    files: tuple[str, ...], tmp_path: Path, criterion: str, steps: str
) -> None:
    arguments = ("--scope", "global", "--criterion", criterion, "--steps", steps)
    result = run(files, "--ratio", "0.6", *arguments)
    assert result.exit_code == 0, result.output
    counts = left(tmp_path / "out")
    assert counts["fc1"] + counts["fc2"] == 20 - 12
    assert counts["fc3"] == 3


def test_steps_choose_by_what_is_left(files: tuple[str, ...], tmp_path: Path) -> None:
    arguments = ("--ratio", "fc2=0.5", "--ratio", "fc1=0.75", "--criterion", "onorm")
    assert run(files, *arguments, "--steps", "3").exit_code == 0
    small = read_caffemodel(tmp_path / "out" / "pruned.caffemodel")
    net, model = read_net(tmp_path / "net.prototxt"), read_caffemodel(tmp_path / "a.caffemodel")

    def score(some: NetParameter, weights: Caffemodel) -> UnitScores:
        return weight_scores(some, weights, ["fc1", "fc2"], criterion="onorm")

    kept = lowest_in_steps(net, model, score, {"fc1": 0.75, "fc2": 0.5}, 3)
    wanted = delete_units(net, model, kept)[1]
    for name in ("fc1", "fc2", "fc3"):
        np.testing.assert_array_equal(small.layer(name).blobs[0], wanted.layer(name).blobs[0])
    assert left(tmp_path / "out") == {"fc1": 3, "fc2": 4, "fc3": 3}


@pytest.mark.real_caffe
def test_entropy_takes_the_training_images(
    files: tuple[str, ...], tmp_path: Path, caffe_python: Path
) -> None:
    told = ("--criterion", "entropy", "--data", str(tmp_path), "--images", "30")
    engine = ("--engine", "caffe", "--caffe-python", str(caffe_python))
    result = run(files, "--ratio", "fc1=0.5", *told, *engine, "--masked")
    assert result.exit_code == 0, result.output
    path, model = tmp_path / "net.prototxt", read_caffemodel(tmp_path / "a.caffemodel")
    net = read_net(path)
    source = training_images(net, path, tmp_path)
    caffe = CaffeEngine(caffe_python)
    scores = entropy_scores(net, path, model, ["fc1"], source, range(30), caffe)["fc1"]
    caffe.close()
    kept = np.sort(np.argsort(scores, kind="stable")[6:])
    small = read_caffemodel(tmp_path / "out" / "pruned.caffemodel")
    np.testing.assert_array_equal(small.layer("fc1").blobs[0], model.layer("fc1").blobs[0][kept])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--images", "5"], "--images goes with --criterion entropy and --method genetic"),
        (["--criterion", "l1", "--engine", "torch"], "--engine goes with --criterion entropy"),
        (["--method", "merge", "--steps", "2"], "--steps goes with --method rank"),
        (["--method", "merge", "--criterion", "onorm"], "--criterion goes with --method rank"),
        (["--method", "merge", "--scope", "global"], "--scope goes with --method rank or genetic"),
        (["--generations", "3"], "--generations goes with --method genetic"),
        (["--seed", "3"], "--seed goes with --criterion random and --method genetic"),
        (["--scope", "global", "--ratio", "fc1=0.2"], "--scope global takes one --ratio"),
    ],
)
def test_options_that_would_do_nothing_are_refused(
    files: tuple[str, ...], tmp_path: Path, arguments: list[str], message: str
) -> None:
    result = run(files, "--ratio", "0.5", *arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--images", "41"], "has no images 0 to 41"),
        (["--data", "nowhere"], "TRAIN_lmdb"),
        (["--ratio", "0.99", "--scope", "global", "--criterion", "l2"], "each layer keeps one"),
    ],
)
def test_what_cannot_be_done_is_said(
    files: tuple[str, ...], tmp_path: Path, arguments: list[str], message: str
) -> None:
    asked = [
        "--criterion",
        "entropy",
        "--data",
        str(tmp_path),
        "--engine",
        "torch",
        "--ratio",
        "0.5",
    ]
    if "global" in arguments:
        asked = []
    result = run(files, *asked, *arguments)
    assert isinstance(result.exception, PruneError)
    assert message in str(result.exception)
    assert not (tmp_path / "out").exists()


ENDS = """
layer { name: "acc" type: "Accuracy" bottom: "fc3" bottom: "label" top: "acc"
  include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc3" bottom: "label" top: "loss" }
"""


@pytest.mark.real_caffe
def test_a_genetic_search_is_judged_by_the_last_training_images(
    files: tuple[str, ...], tmp_path: Path, caffe_python: Path
) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(path.read_text() + ENDS)
    told = ("--method", "genetic", "--data", str(tmp_path), "--images", "25", "--seed", "3")
    engine = ("--engine", "caffe", "--caffe-python", str(caffe_python), "--generations", "4")
    result = run(files, "--ratio", "0.5", *told, *engine)
    assert result.exit_code == 0, result.output
    small = read_caffemodel(tmp_path / "out" / "pruned.caffemodel")
    assert left(tmp_path / "out") == {"fc1": 6, "fc2": 4, "fc3": 3}
    images = training_images(read_net(path), path, tmp_path).read(15, 25)
    values = images.images.reshape(25, -1)
    for name in ("fc1", "fc2", "fc3"):
        weights, bias = small.layer(name).blobs
        values = values @ weights.T + bias
        values = values if name == "fc3" else np.maximum(values, 0)
    accuracy = 100 * (values.argmax(axis=1) == images.labels).mean()
    first, last = map(float, re.findall(r"([0-9.]+) %", result.output)[:2])
    assert last == pytest.approx(accuracy)
    assert first <= last


def test_a_genetic_search_needs_layers_it_can_follow(
    files: tuple[str, ...], tmp_path: Path
) -> None:
    asked = ("--ratio", "0.5", "--method", "genetic", "--data", str(tmp_path), "--engine", "torch")
    result = run(files, *asked)
    assert "no Accuracy or SoftmaxWithLoss layer" in str(result.exception)
    path = tmp_path / "net.prototxt"
    path.write_text(path.read_text() + ENDS)
    assert "holds 40 images, not 41" in str(run(files, *asked, "--images", "41").exception)
    path.write_text(path.read_text().replace('type: "ReLU"', 'type: "BNLL"'))
    assert "layer 'relu1' (BNLL) is none of these" in str(run(files, *asked).exception)
