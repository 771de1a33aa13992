"""``caffe-prune features`` as a user meets it."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from google.protobuf import text_format

from data_prep.digits import build_digits
from data_prep.manifest import load_manifest
from pycaffe_prune.cli.features import features
from pycaffe_prune.errors import DataError, FormatError
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer, write_caffemodel

NET = """
layer { name: "data" type: "Input" top: "data"
  input_param { shape { dim: 1 dim: 1 dim: 24 dim: 24 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 2 kernel_size: 5 } }
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with digits, a net and its weights."""
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("features")
    build_digits(folder / "data")
    (folder / "net.prototxt").write_text(NET)
    conv = text_format.Parse(NET, NetParameter()).layer[1]
    blobs = np.full((2, 1, 5, 5), 0.01, np.float32), np.zeros(2, np.float32)
    write_caffemodel(folder / "w.caffemodel", Caffemodel((Layer(conv, blobs),)))
    return folder


def arguments(work: Path, out: str, *more: str) -> list[str]:
    named = {
        "--net": work / "net.prototxt",
        "--weights": work / "w.caffemodel",
        "--data": work / "data",
        "--out": work / out,
    }
    words = [word for name, path in named.items() for word in (name, str(path))]
    return [*words, "--blob", "conv", "--engine", "torch", *more]


def run(work: Path, out: str, *more: str) -> Result:
    return CliRunner().invoke(features, arguments(work, out, *more))


def test_it_says_what_it_made_and_where_and_knows_it_again(work: Path) -> None:
    mean = ("--mean", str(work / "data" / "mean.binaryproto"))
    found = run(work, "out", "--pool", "4", *mean, "--batch", "1500", "--jobs", "1")
    assert found.exit_code == 0, found.output
    assert f"train 1500 × 2×4×4 in {work / 'out' / 'features_train_lmdb'}" in found.stdout
    assert f"test  297 × 2×4×4 in {work / 'out' / 'features_test_lmdb'}" in found.stdout
    assert load_manifest(work / "out").source == "conv of w.caffemodel for digits, engine torch"
    again = run(work, "out", "--pool", "4", *mean)
    assert again.exit_code == 0
    assert again.stdout == found.stdout
    other = run(work, "out", "--pool", "4", "--mean", "128")
    assert isinstance(other.exception, DataError)
    assert "other mean_sha256" in str(other.exception)


def test_a_mean_that_is_neither_values_nor_a_file_is_refused(work: Path) -> None:
    found = run(work, "bad", "--mean", "1,two")
    assert isinstance(found.exception, FormatError)
    assert not (work / "bad").exists()


def test_interrupted_it_exits_130_and_goes_on(work: Path) -> None:
    command = [sys.executable, "-m", "pycaffe_prune", "features"]
    words = arguments(work, "stopped", "--batch", "3", "--jobs", "1")
    process = subprocess.Popen([*command, *words], stderr=subprocess.PIPE, text=True)
    parts = work / "stopped" / ".parts"
    deadline = time.monotonic() + 60
    while not list(parts.glob("*/*.npz")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "the same command goes on from there" in " ".join(said.split())
    assert list(parts.glob("*/*.npz"))
    assert not (work / "stopped" / "manifest.json").exists()
