import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from google.protobuf import text_format

from data_prep.digits import build_digits
from pycaffe_prune.cli.prune.command import prune
from pycaffe_prune.cli.verify import engines as verify_engines
from pycaffe_prune.cli.verify.command import verify
from pycaffe_prune.engines.comparison.distances import Checkpoint, Difference, EngineComparison
from pycaffe_prune.errors import PruneError
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer, read_caffemodel, write_caffemodel
from pycaffe_prune.formats.hdf5 import write_hdf5_weights
from pycaffe_prune.formats.named_model import named_model

NET = """
name: "small"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 6 } } }
layer { name: "ip1" type: "InnerProduct" bottom: "data" top: "ip1"
  inner_product_param { num_output: 20 } }
layer { name: "relu1" type: "ReLU" bottom: "ip1" top: "ip1" }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
  inner_product_param { num_output: 4 } }
layer { name: "prob" type: "Softmax" bottom: "ip2" top: "prob" }
"""
SHAPES = {"ip1": ((20, 6), (20,)), "ip2": ((4, 20), (4,))}
JUDGES = ("caffe ", "torch ", "opencv ")
Put = Callable[..., Path]


def random_model(seed: int) -> Caffemodel:
    random = np.random.default_rng(seed)
    return Caffemodel(
        tuple(
            Layer(
                layer,
                tuple(
                    random.normal(size=shape).astype(np.float32)
                    for shape in SHAPES.get(layer.name, ())
                ),
            )
            for layer in text_format.Parse(NET, NetParameter()).layer
        ),
        NetParameter(name="small"),
    )


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Write a model into a folder of its own, as `prune` does."""

    def write(name: str, seed: int = 0, text: str = NET) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "net.prototxt").write_text(text)
        write_caffemodel(folder / "pruned.caffemodel", random_model(seed))
        return folder

    return write


def run(*arguments: object, judge: str = "opencv") -> Result:
    return CliRunner().invoke(verify, ["--judge", judge, *map(str, arguments)])


def rows(output: str) -> list[list[str]]:
    return [line.split() for line in output.splitlines() if line.startswith(JUDGES)]


def test_a_model_is_the_same_as_itself(put: Put) -> None:
    result = run(put("one"), put("again"), "--batch", 3)
    assert result.exit_code == 0, result.output
    assert [row[:3] for row in rows(result.stdout)] == [
        ["opencv", "ip2", "3x4"],
        ["opencv", "prob", "3x4"],
    ]
    assert all(row[-4:] == ["3", "of", "3", "same"] for row in rows(result.stdout))


def test_another_model_is_not(put: Put) -> None:
    result = run(put("one"), put("other", seed=1))
    assert result.exit_code == 1
    assert isinstance(result.exception, PruneError)
    sentence = str(result.exception)
    assert "blob 'ip2' differs by" in sentence
    assert "more than the tolerance 0.0001" in sentence
    assert "\n" not in sentence
    assert all(row[-1] == "DIFFERENT" for row in rows(result.stdout))
    assert run(put("first"), put("second", seed=1), "--tolerance", 100).exit_code == 0


@pytest.mark.real_caffe
def test_all_judges_are_asked_where_all_are_here(put: Put, caffe_python: Path) -> None:
    result = run(put("one"), put("two"), "--caffe-python", caffe_python, judge="all")
    assert result.exit_code == 0, result.output
    judges = [judge.strip() for judge in JUDGES for _ in range(2)]
    assert [row[0] for row in rows(result.stdout)] == judges


def test_a_judge_that_is_not_here_is_named(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAFFE_PYTHON", "/nowhere/python")
    monkeypatch.setitem(sys.modules, "torch", None)
    models = put("one"), put("two")
    result = run(*models, judge="all")
    assert result.exit_code == 0
    assert {row[0] for row in rows(result.stdout)} == {"opencv"}
    assert "not asked: $CAFFE_PYTHON: /nowhere/python" in result.stderr
    assert "not asked: the engine torch needs PyTorch" in result.stderr
    result = run(*models, judge="caffe")
    assert isinstance(result.exception, PruneError)
    monkeypatch.delattr(cv2.dnn, "readNetFromCaffe")
    result = run(*models, judge="all")
    assert isinstance(result.exception, PruneError)
    assert "/nowhere/python" in str(result.exception)
    assert "pip install 'opencv-python-headless<5'" in str(result.exception)


@pytest.mark.real_caffe
def test_a_net_that_opencv_does_not_know_is_judged_by_the_others(
    put: Put, caffe_python: Path
) -> None:
    text = NET.replace('"ReLU" bottom: "ip1" top: "ip1"', '"Threshold" bottom: "ip1" top: "ip1"')
    models = put("one", text=text), put("two", text=text)
    result = run(*models, "--caffe-python", caffe_python, judge="all")
    assert result.exit_code == 0, result.output
    assert {row[0] for row in rows(result.stdout)} == {"caffe", "torch"}
    assert "does not know layer 'relu1' (Threshold)" in result.stderr
    assert isinstance(run(*models, judge="opencv").exception, PruneError)


def test_json_tells_all_that_the_table_does(put: Put) -> None:
    result = run(put("one"), put("other", seed=1), "--json")
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert told["same"] is False
    assert told["tolerance"] == 1e-4
    (verdict,) = told["judged"]
    assert verdict["judge"] == "opencv"
    assert [blob["blob"] for blob in verdict["blobs"]] == ["ip2", "prob"]
    for blob in verdict["blobs"]:
        assert blob["shape"] == [4, 4]
        assert blob["relative_difference"] == blob["max_difference"] / blob["largest"] > 1e-4
        assert blob["same"] is False
        assert blob["finite"] is True


def test_json_has_null_where_a_value_is_not_finite(put: Put) -> None:
    folder = put("large")
    model = random_model(0)
    large = {key: blob * np.float32(1e30) for key, blob in model.blobs()}
    write_caffemodel(folder / "pruned.caffemodel", model.with_blobs(large))
    result = run(folder, folder, "--json")
    assert result.exit_code == 1
    blob = json.loads(result.stdout)["judged"][0]["blobs"][0]
    assert (blob["finite"], blob["same"]) == (False, False)
    assert blob["largest"] is blob["max_difference"] is blob["relative_difference"] is None
    assert "holds NaN or infinite values" in str(result.exception)


def test_seed_and_scale_make_the_input(put: Put) -> None:
    models = put("one"), put("other", seed=1)

    def largest(*options: object) -> float:
        told = json.loads(run(*models, "--json", *options).stdout)
        return told["judged"][0]["blobs"][0]["largest"]

    assert largest() == largest("--seed", 0)
    assert largest() != largest("--seed", 1)
    assert largest("--scale", 1000) > 100 * largest()


def test_an_array_can_be_given(put: Put, tmp_path: Path) -> None:
    np.save(tmp_path / "data.npy", np.random.default_rng(0).normal(size=(9, 6)))
    result = run(put("one"), put("two"), "--input", tmp_path / "data.npy")
    assert result.exit_code == 0
    assert rows(result.stdout)[0][2] == "9x4"


def test_the_shape_of_a_data_layers_blob_can_be_given(put: Put) -> None:
    text = NET.replace(
        'type: "Input" top: "data" input_param { shape { dim: 1 dim: 6 } }',
        'type: "Data" top: "data"',
    )
    models = put("one", text=text), put("two", text=text)
    assert "--input-shape data=" in str(run(*models).exception)
    assert run(*models, "--input-shape", "data=1x6").exit_code == 0


def test_what_the_input_does_not_change_is_remarked(put: Put) -> None:
    result = run(put("one"), put("two"), "--scale", 0)
    assert result.exit_code == 0
    assert "'ip2' is the same for all images" in result.stderr


@pytest.mark.parametrize("name", ["pruned.caffemodel", "final.caffemodel", "any.caffemodel"])
def test_a_folder_may_hold_masks_and_other_files(put: Put, name: str) -> None:
    folder = put("one")
    (folder / "pruned.caffemodel").rename(folder / name)
    for other in ("kept.mask.h5", "solver.txt", "a.solverstate"):
        (folder / other).touch()
    if name != "any.caffemodel":
        (folder / "solver.prototxt").touch()
        (folder / "older.caffemodel").touch()
    assert run(folder, put("two")).exit_code == 0


def test_a_model_may_be_named_by_its_files(put: Put, tmp_path: Path) -> None:
    folder = put("a:b")
    write_hdf5_weights(
        tmp_path / "weights.h5",
        named_model(dict(read_caffemodel(folder / "pruned.caffemodel").blobs())),
    )
    by_name = f"{folder}/net.prototxt:{tmp_path}/weights.h5"
    assert run(folder, by_name).exit_code == 0, run(folder, by_name).exception


BAD = [
    ("{one} nowhere", "nowhere: is no folder with a model"),
    ("{one} nowhere.prototxt:{one}/pruned.caffemodel", "nowhere.prototxt: no such file"),
    ("{one} {one}/net.prototxt:nowhere.caffemodel", "nowhere.caffemodel: no such file"),
    ("{one} {empty}", "a net prototxt is needed, net.prototxt or the only one there"),
    ("{one} {two_weights}", "it holds a.caffemodel, b.caffemodel"),
    ("{one} {cut}", "cut/pruned.caffemodel"),
    ("{one} {foreign}", "layer 'ip9'"),
    ("{one} {nan}", "layer 'ip1', blob 1 (20): 1 of 20 values are NaN"),
    ("{one} {python}", "'relu1' is a Python layer"),
    ("{one} {one} --input nowhere.npy", "nowhere.npy: no such file"),
    ("{one} {one} --lmdb nowhere", "nowhere: cannot be read as an LMDB (data.mdb: No such file"),
    ("{one} {one} --lmdb x --mean nowhere.npy", "nowhere.npy: no such file"),
]


@pytest.mark.parametrize(("command", "message"), BAD)
def test_bad_input_is_one_sentence_and_leaves_no_file(
    put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, message: str
) -> None:
    names = ("one", "empty", "two_weights", "cut", "foreign", "nan", "python")
    folders = {name: put(name) for name in names}
    for path in folders["empty"].iterdir():
        path.unlink()
    weights = (folders["two_weights"] / "pruned.caffemodel").rename(
        folders["two_weights"] / "a.caffemodel"
    )
    weights.with_name("b.caffemodel").write_bytes(weights.read_bytes())
    (folders["cut"] / "pruned.caffemodel").write_bytes(weights.read_bytes()[:300])
    (folders["foreign"] / "net.prototxt").write_text(NET.replace('name: "ip1"', 'name: "ip9"'))
    model = random_model(0)
    bias = model.layer("ip1").blobs[1].copy()
    bias[3] = np.nan
    write_caffemodel(folders["nan"] / "pruned.caffemodel", model.with_blobs({("ip1", 1): bias}))
    (folders["python"] / "net.prototxt").write_text(NET.replace('"ReLU"', '"Python"'))
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    result = run(*command.format(**folders).split())
    assert result.exit_code == 1
    assert isinstance(result.exception, PruneError), result.exception
    assert message in str(result.exception)
    assert "\n" not in str(result.exception)
    assert result.stdout == ""
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "options",
    [
        "--input a.npy --lmdb b",
        "--mean m.binaryproto",
        "--judge tensorflow",
        "--batch 0",
        "--solver s.prototxt",
        "--iterations 10",
        "--engines caffe,torch --solver s.prototxt",
        "third",
    ],
)
def test_options_that_do_not_go_together_are_a_fault_of_the_command_line(
    put: Put, options: str
) -> None:
    assert run(put("one"), put("two"), *options.split()).exit_code == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--engines caffe", "is not two engines"),
        ("--engines caffe,tensorflow", "is not two engines"),
        ("--engines auto,torch", "is not two engines"),
        ("--engines caffe,torch", "needs --solver"),
        ("--engines caffe,torch --solver s --batch 3", "--batch goes with two models A and B"),
        ("--engines caffe,torch --solver s --input a.npy", "--input goes with two models"),
        ("--engines caffe,torch --solver s --phase train", "--phase goes with two models"),
        ("--iterations 3 a b", "--iterations goes with --engines"),
        ("", "two models are needed"),
    ],
)
def test_options_of_one_comparison_are_not_taken_for_the_other(options: str, message: str) -> None:
    result = CliRunner().invoke(verify, options.split())
    assert result.exit_code == 2
    assert message in " ".join(result.output.replace("│", " ").split())


def test_what_prune_writes_can_be_verified(put: Put, tmp_path: Path) -> None:
    before = put("before")
    files = ("--net", before / "net.prototxt", "--weights", before / "pruned.caffemodel")
    for kind, value in (("units", "--ratio=0"), ("connections", "--alpha=0")):
        out = tmp_path / kind
        arguments = [kind, *map(str, files), value, "--out", str(out)]
        assert CliRunner().invoke(prune, arguments).exit_code == 0
        assert run(before, out).exit_code == 0


@pytest.mark.parametrize(("seed", "code"), [(0, 0), (1, 1)])
def test_the_command_says_one_sentence_and_exits_with_its_verdict(
    put: Put, seed: int, code: int
) -> None:
    command = (sys.executable, "-m", "pycaffe_prune", "verify", "--judge", "opencv")
    done = subprocess.run(
        [*command, put("one"), put("two", seed)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code
    assert len(done.stderr.splitlines()) == code
    assert len(rows(done.stdout)) == 2


TRAINED = """
layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  transform_param { scale: 0.00390625 }
  data_param { source: "mnist_train_lmdb" batch_size: 32 backend: LMDB } }
layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TEST }
  transform_param { scale: 0.00390625 }
  data_param { source: "mnist_test_lmdb" batch_size: 100 backend: LMDB } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy"
  include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


@pytest.mark.real_caffe
def test_the_two_engines_train_alike(tmp_path: Path, caffe_python: Path) -> None:
    pytest.importorskip("torch")
    build_digits(tmp_path / "digits")
    (tmp_path / "net.prototxt").write_text(TRAINED)
    (tmp_path / "solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 0.01 momentum: 0.9 lr_policy: "fixed" '
        "max_iter: 5 test_iter: 3"
    )
    command = ["--engines", "caffe,torch", "--solver", tmp_path / "solver.prototxt"]
    command += ["--data", tmp_path / "digits", "--caffe-python", caffe_python]
    command += ["--iterations", 20, "--out", tmp_path / "runs"]
    result = CliRunner().invoke(verify, [*map(str, command)])
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines()]
    same = [line[0] for line in lines if line[-1:] == ["same"]]
    assert same == [at for at in ("1", "10", "20") for _ in range(3)] + ["0", "20"]

    # The runs are kept, so only the verdict is made anew.
    result = CliRunner().invoke(verify, [*map(str, command), "--json"])
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    assert (told["same"], told["difference"]) == (True, None)
    assert told["engines"] == ["caffe", "torch"]
    assert [point["iteration"] for point in told["checkpoints"]] == [1, 10, 20]
    assert [test["images"] for test in told["tests"]] == [297, 297]


@pytest.mark.real_caffe
def test_engines_that_part_are_a_sentence_and_exit_code_1(
    tmp_path: Path, caffe_python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = Difference("weights ip/0", gap=0.5, largest=1.0, tolerance=1e-5)
    point = Checkpoint(1, part, (part,), (replace(part, gap=np.inf, largest=np.inf),))
    apart = EngineComparison(("caffe", "torch"), (point,), ())
    monkeypatch.setattr(verify_engines, "compare_engines", lambda *_, **__: apart)
    (tmp_path / "net.prototxt").write_text(TRAINED)
    solver = tmp_path / "solver.prototxt"
    solver.write_text('net: "net.prototxt" base_lr: 0.01 lr_policy: "fixed" max_iter: 5')
    command = ["--engines", "caffe,torch", "--solver", str(solver)]
    command += ["--caffe-python", str(caffe_python)]
    result = CliRunner().invoke(verify, command)
    assert isinstance(result.exception, PruneError)
    assert "caffe and torch differ at iteration 1: weights ip/0 by 0.5" in str(result.exception)
    assert result.stdout.count("DIFFERENT") == 3
    told = json.loads(CliRunner().invoke(verify, [*command, "--json"]).stdout)
    assert told["same"] is False
    assert told["checkpoints"][0]["history"]["relative"] is None
