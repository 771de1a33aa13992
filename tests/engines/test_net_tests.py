"""Tests of all test nets of a solver: those that plain Caffe makes, and the same after a stop."""

import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from pycaffe_prune.engines import base
from pycaffe_prune.engines.base import TestMeans, TestScore, TrainResult
from pycaffe_prune.engines.job import Job, TrainRequest
from pycaffe_prune.engines.net_tests import untested_warnings
from pycaffe_prune.engines.prepare import prepare
from pycaffe_prune.engines.run import train
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.errors import FormatError

DATA = """layer {{ name: "d" type: "Data" top: "data" top: "label" include {{ phase: TEST {stage} }}
  transform_param {{ scale: 0.004 }}
  data_param {{ source: "mnist_{part}_lmdb" batch_size: {batch} backend: LMDB }} }}
"""
ROWS = """layer {{ name: "d" type: "HDF5Data" top: "data" top: "label" include {{ phase: {phase} }}
  hdf5_data_param {{ source: "list.txt" batch_size: {batch} }} }}
"""
DUMMY = """layer {{ name: "d" type: "DummyData" top: "data" top: "label" include {{ phase: TEST }}
  dummy_data_param {{ shape {{ dim: 3 dim: 1 dim: 28 dim: 28 }} shape {{ dim: 3 }}
    data_filler {{ {filler} }} data_filler {{ value: 4 }} }} }}
"""
MEMORY = """layer { name: "d" type: "MemoryData" top: "data" top: "label" include { phase: TEST }
  memory_data_param { batch_size: 1 channels: 1 height: 28 width: 28 } }
"""
INPUT = """layer { name: "d" type: "Input" top: "data" top: "label" include { phase: TEST }
  input_param { shape { dim: 1 dim: 28 } shape { dim: 1 } } }
"""
SCORES = """layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param {
  num_output: 10 weight_filler { type: "constant" value: 0.01 } } }
"""
LOSS = (
    'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" %s }\n'
)
HINGE = """layer { name: "hinge" type: "HingeLoss" bottom: "ip" bottom: "label" top: "hinge"
  loss_weight: 0.5 include { phase: TEST } }
"""
ACCURACY = 'layer { name: "acc" type: "Accuracy" bottom: "ip" bottom: "label" top: "acc" }\n'
SOLVER = (
    'net: "net.prototxt" base_lr: 0.1 momentum: 0.9 lr_policy: "fixed" max_iter: 5 random_seed: 1 '
    "solver_mode: CPU test_interval: 2 snapshot_after_train: false "
)
# Counted by LMDB and HDF5; not countable; two that judge nothing, of which one has whole epochs.
SEVERAL = (
    'test_net: "lmdb.prototxt" test_net: "rows.prototxt" test_net: "dummy.prototxt" '
    "test_iter: [3, 2, 2, 2, 4] test_state {} test_state {} test_state {} "
    'test_state { stage: "few" } test_state { stage: "many" }'
)
# What plain Caffe prints of a solver, in the folder of its data; skimage takes long to import.
PLAIN = """
import sys, types
sys.modules.update({name: types.ModuleType(name) for name in ("skimage", "skimage.transform")})
sys.modules["skimage.io"] = sys.modules["skimage"].io = types.ModuleType("skimage.io")
sys.modules["skimage.transform"].resize = None
import caffe
caffe.get_solver(sys.argv[1]).solve()
"""
_LINE = re.compile(r"Iteration (\d+), Testing net \(#(\d+)\)|Test net output #\d+: (\S+) = (\S+)")
_Means = dict[tuple[int, int], dict[str, list[float]]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> Path:
    """A folder with digits in LMDBs and HDF5 files, and nets that are trained and tested."""
    folder = tmp_path_factory.mktemp("nets")
    for part in ("train", "test"):
        shutil.copytree(digits / f"mnist_{part}_lmdb", folder / f"mnist_{part}_lmdb")
    random = np.random.default_rng(1)
    for part, rows in (("a", 5), ("b", 7)):
        with h5py.File(folder / f"{part}.h5", "w") as file:
            file["data"] = random.normal(size=(rows, 1, 28, 28)).astype(np.float32)
            file["label"] = random.integers(0, 10, rows).astype(np.float32)
    (folder / "list.txt").write_text(f"{folder / 'a.h5'}\n{folder / 'b.h5'}\n")
    judged = SCORES + LOSS % "" + ACCURACY
    nets = {
        "lmdb": DATA.format(stage="", part="test", batch=99) + judged,
        "rows": ROWS.format(phase="TEST", batch=6) + judged,
        "dummy": DUMMY.format(filler="value: 0.1") + SCORES + LOSS % "",
        "net": ROWS.format(phase="TRAIN", batch=5)
        + DATA.format(stage='stage: "few"', part="test", batch=40)
        + DATA.format(stage='stage: "many"', part="train", batch=70)
        + SCORES
        + LOSS % "include { phase: TRAIN }"
        + HINGE,
    }
    for name, text in nets.items():
        (folder / f"{name}.prototxt").write_text(text)
    return folder


def _request(place: Path, told: str, name: str = "solver") -> TrainRequest:
    solver = place / f"{name}.prototxt"
    solver.write_text(f"{SOLVER}{told}\n")
    return TrainRequest(solver, data=place)


@pytest.fixture(scope="module")
def plain(caffe_python: Path, place: Path) -> _Means:
    """The means that plain Caffe's tests print, by iteration and number of the net."""
    _request(place, SEVERAL)
    text = subprocess.run(
        [caffe_python, "-c", PLAIN, "solver.prototxt"],
        cwd=place,
        stderr=subprocess.PIPE,
        text=True,
        check=True,
        env=os.environ | {"GLOG_minloglevel": "0", "OPENBLAS_NUM_THREADS": "1"},
    ).stderr
    found: _Means = {}
    for iteration, number, name, value in _LINE.findall(text):
        if iteration:
            here = found.setdefault((int(iteration), int(number)), {})
        else:
            here.setdefault(name, []).append(float(value))
    return found


def _all(result: TrainResult) -> dict[tuple[int, int], TestScore | TestMeans]:
    tests = (*result.tests, *result.other_tests, *result.means)
    return {(test.iteration, test.test_net): test for test in tests}


@pytest.mark.real_caffe
def test_each_test_net_tells_what_plain_caffe_prints_and_a_stopped_run_the_same(
    place, plain, engine, tmp_path
):
    request = _request(place, SEVERAL)
    whole = train(request, tmp_path / "whole", engine, lambda _: None)
    tests = _all(whole)
    assert plain.keys() == {at for at in tests if at[0] != 5}  # ours ends with a test
    for at, outputs in plain.items():
        assert outputs.keys() == tests[at].outputs.keys()
        for name, values in outputs.items():
            assert tests[at].outputs[name] == pytest.approx(values, rel=2e-4, abs=1e-6), (at, name)
    parts = tmp_path / "parts"
    train(replace(request, max_iter=3), parts, engine, lambda _: None)
    again = train(request, parts, engine, lambda _: None)
    assert {at: test for at, test in _all(again).items() if at[0] != 3} == tests
    assert again.weights_sha256 == whole.weights_sha256
    assert [test.test_net_name for test in again.last_tests] == [
        "test net #0 (lmdb.prototxt)",
        "test net #1 (rows.prototxt)",
        "test net #2 (dummy.prototxt)",
        "test net #3 (few)",
        "test net #4 (many)",
    ]
    assert [test.images for test in whole.tests[:1] + whole.other_tests[:1]] == [297, 12]
    assert {test.batches for test in whole.means} == {2, 4}
    assert whole.loss_weights == (*[{"loss": 1.0}] * 3, *[{"hinge": 0.5}] * 2)


def test_the_first_test_net_is_the_headline_or_that_with_the_named_layer(place, tmp_path):
    for accuracy, headline, layers in (
        (None, 0, ["acc", "acc"]),
        ("loss", 0, ["loss", "loss"]),
    ):
        request = replace(_request(place, SEVERAL, "named"), accuracy=accuracy)
        job = prepare(request, RunFolder(tmp_path / str(accuracy)))
        assert job.headline == headline
        assert [test.plan.layer for test in job.tests if test.plan] == layers
    swapped = SEVERAL.replace("lmdb.p", "-").replace("dummy.p", "lmdb.p").replace("-", "dummy.p")
    request = _request(place, swapped.replace("3, 2, 2", "2, 2, 3"), "swapped")
    job = prepare(request, RunFolder(tmp_path / "swapped"))
    assert job.headline == 1
    assert job.tests[1].images == 12
    with pytest.raises(FormatError, match="'other' to judge by; there are: loss, acc"):
        prepare(replace(request, accuracy="other"), RunFolder(tmp_path / "other"))


@pytest.mark.parametrize(
    ("layer", "sentence"),
    [
        (DUMMY.format(filler="value: 0.1"), None),
        (DUMMY.format(filler='type: "gaussian"'), "'d' (DummyData).*draws its data at random"),
        (MEMORY, "'d' (MemoryData).*only a program feeds"),
        (INPUT, None),
    ],
)
def test_a_test_that_cannot_be_made_is_said_before_training(layer, sentence, place, tmp_path):
    name = f"{len(layer)}"
    (place / f"{name}.prototxt").write_text(layer + SCORES + HINGE)
    job = prepare(
        _request(place, f'test_net: "{name}.prototxt" test_iter: 2', f"solver{name}"),
        RunFolder(tmp_path / "run"),
    )
    told = [event.message for event in untested_warnings(job)]
    assert len(told) == (sentence is not None)
    assert not told or re.search(re.sub(r"([()])", r"\\\1", sentence), told[0])


def test_a_test_of_no_batch_is_said_not_to_be_made(place, tmp_path):
    told = 'test_net: "dummy.prototxt" test_iter: 0'
    (test,) = prepare(_request(place, told, "none"), RunFolder(tmp_path / "run")).tests
    assert "0 test_iter" in (test.untested or "")


def test_results_and_logs_of_before_there_were_several_test_nets_are_read(tmp_path):
    score = '"iteration":5,"images":3,"correct":1,"accuracy":0.3,"loss":null,"finite":true'
    log = RunFolder(tmp_path).log
    log.write_text(f'{{"event":"test",{score}}}\n')
    (read,) = base.tests_in_log(RunFolder(tmp_path), 5)
    result = TrainResult.model_validate_json(
        '{"engine":"caffe","versions":{},"seed":1,"iterations":5,"weights_sha256":"","revived":0,'
        f'"seconds":1,"tests":[{{{score}}}]}}'
    )
    assert result.last_tests == (read,)
    assert (read.test_net, read.test_net_name) == (0, "")


def test_the_job_of_an_older_version_is_judged_by_its_one_test(place, tmp_path):
    told = 'test_net: "lmdb.prototxt" test_iter: 3'
    job = prepare(_request(place, told, "one"), RunFolder(tmp_path / "run"))
    older = job.model_dump(exclude={"tests", "headline"})
    (test,) = job.tests
    read = Job.model_validate({**older, "test": test.plan.model_dump(), "test_images": 297})
    assert (read.accuracy, read.tests[0].images, read.differences(job)) == ("acc", 297, [])
    other = job.model_copy(update={"tests": (test.model_copy(update={"plan": None}),)})
    assert (other.accuracy, other.differences(job)) == (None, [])
