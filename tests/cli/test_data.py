import gzip
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from pycaffe_prune.cli.data import data


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with MNIST's four files, small."""
    folder = tmp_path / "source"
    folder.mkdir()
    for stem, count in (("train", 12), ("t10k", 5)):
        head = struct.pack(">4I", 2051, count, 28, 28)
        (folder / f"{stem}-images-idx3-ubyte.gz").write_bytes(
            gzip.compress(head + bytes(count * 784))
        )
        (folder / f"{stem}-labels-idx1-ubyte").write_bytes(
            struct.pack(">2I", 2049, count) + bytes(np.arange(count, dtype=np.uint8) % 4)
        )
    return folder


def caffe_prune(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pycaffe_prune", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | variables,
    )


def test_mnist_is_built_and_counted_and_then_known(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = caffe_prune("data", "mnist", "--out", str(out), "--source", str(source))
    assert first.returncode == 0, first.stderr
    assert "train 12 images of 1×28×28 in mnist_train_lmdb" in first.stdout
    assert "labels 0:3 1:3 2:3 3:3" in first.stdout
    assert "test  5 images" in first.stdout
    assert "labels 0:2 1:1 2:1 3:1" in first.stdout
    assert "not the content of the original mnist files" in first.stderr
    assert json.loads((out / "manifest.json").read_text())["splits"]["train"]["count"] == 12
    second = caffe_prune("data", "mnist", "--out", str(out), "--source", str(source))
    assert second.returncode == 0
    assert "already built" in second.stderr
    assert second.stdout == first.stdout
    before = (out / "manifest.json").stat().st_mtime_ns
    forced = caffe_prune("data", "mnist", "--out", str(out), "--source", str(source), "--force")
    assert forced.returncode == 0
    assert "already built" not in forced.stderr
    assert (out / "manifest.json").stat().st_mtime_ns > before


def test_mnist_starts_without_what_it_does_not_need() -> None:
    slow = {"cv2", "matplotlib", "pydantic", "requests", "scipy", "sklearn", "torch"}
    code = (
        f"import sys, data_prep.mnist, pycaffe_prune.cli.data;print(*({slow!r} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "\n"


def test_a_faulty_source_is_one_sentence_and_code_1(source: Path, tmp_path: Path) -> None:
    (source / "train-labels-idx1-ubyte").write_bytes(b"<html>")
    failed = caffe_prune("data", "mnist", "--out", str(tmp_path / "out"), "--source", str(source))
    assert failed.returncode == 1
    assert failed.stdout == ""
    assert "train-labels-idx1-ubyte" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_a_data_set_is_verified_until_something_in_it_changes(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    built = caffe_prune("data", "mnist", "--out", str(out), "--source", str(source))
    held = caffe_prune("data", "verify", str(out))
    assert (held.returncode, held.stdout) == (0, built.stdout + "all is as the manifest says\n")
    (out / "mean.binaryproto").write_bytes(b"")
    failed = caffe_prune("data", "verify", str(out))
    assert (failed.returncode, failed.stdout) == (1, "")
    assert "mean.binaryproto: is not what its manifest says" in failed.stderr


def test_digits_after_mnist_in_the_same_folder_is_refused(source: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    assert caffe_prune("data", "mnist", "--out", out, "--source", str(source)).returncode == 0
    refused = caffe_prune("data", "digits", "--out", out)
    assert refused.returncode == 1
    assert "holds the data set mnist" in refused.stderr


def test_digits_says_that_it_is_a_sample(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    built = caffe_prune("data", "digits", "--out", str(tmp_path / "out"))
    assert built.returncode == 0, built.stderr
    assert "a sample" in built.stdout
    assert "train 1500 images" in built.stdout


def test_flowers102_is_built_as_the_options_say(tmp_path: Path) -> None:
    savemat = pytest.importorskip("scipy.io").savemat
    source = tmp_path / "source"
    (source / "jpg").mkdir(parents=True)
    for number in range(1, 7):
        image = np.full((20, 30, 3), 9 * number, np.uint8)
        assert cv2.imwrite(str(source / "jpg" / f"image_{number:05}.jpg"), image)
    savemat(source / "imagelabels.mat", {"labels": np.array([[1, 25, 3, 2, 1, 4]])})
    savemat(
        source / "setid.mat",
        {"trnid": np.array([[1, 2]]), "valid": np.array([[3]]), "tstid": np.array([[4, 5, 6]])},
    )
    out = ["--out", str(tmp_path / "out")]
    command = ["data", "flowers102", *out, "--source", str(source), "--size", "16", "--encoded"]
    built = caffe_prune(*command, "--limit", "2", "--threads", "2")
    assert built.returncode == 0, built.stderr
    assert "a sample" in built.stdout
    assert "train 2 encoded images of 3×16×16 in flowers102_train_lmdb" in built.stdout
    assert "labels 0 to 24, 0 to 1 images each" in built.stdout
    assert "mean  mean.binaryproto, of the training images" in built.stdout
    (source / "jpg" / "image_00005.jpg").write_bytes(b"<html>")
    refused = caffe_prune(*command, "--force")
    assert refused.returncode == 1
    assert "jpg/image_00005.jpg" in refused.stderr
    assert "--keep-going" in refused.stderr
    left_out = caffe_prune(*command, "--force", "--keep-going")
    assert left_out.returncode == 0
    assert "warning: 1 train images are missing or damaged: jpg/image_00005" in left_out.stderr


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["mnist", "--help"], ["flowers102", "--help"], ["digits", "--help"]],
)
def test_every_help_has_an_example(arguments: list[str]) -> None:
    shown = CliRunner().invoke(data, arguments)
    assert shown.exit_code == 0
    assert "  caffe-prune data " in shown.output


def test_a_wrong_command_line_is_code_2(tmp_path: Path) -> None:
    assert caffe_prune("data", "mnist").returncode == 2
    absent = caffe_prune("data", "mnist", "--out", "x", "--source", str(tmp_path / "absent"))
    assert absent.returncode == 2
