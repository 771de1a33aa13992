"""The same scripts under the real pycaffe and under ours, and what they need."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp
from types import ModuleType

import cv2
import h5py
import lmdb
import numpy as np
import pytest
import torch
from PIL import Image

from pycaffe_prune.caffe_name import finder
from pycaffe_prune.pycaffe.io import array_to_datum

torch.set_num_threads(1)  # the nets are tiny, and test processes run beside each other

SCRIPTS = Path(__file__).parent / "scripts"
HELPERS = Path(__file__).parent / "helpers"
RUNNER = Path(__file__).parent / "run_scripts.py"
NAMES = Path(__file__).parent / "real_names.py"


def working_folder(root: Path, name: str, inputs: Path) -> Path:
    """Make the folder that a script runs in: everything in ``inputs``, by links."""
    folder = root / name
    folder.mkdir(parents=True)
    for path in inputs.iterdir():
        (folder / path.name).symlink_to(path)
    return folder


@pytest.fixture(scope="session")
def twin_inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the small data that scripts read by relative names."""
    folder = tmp_path_factory.mktemp("twin_inputs")
    write_images(folder)
    write_digits(folder)
    write_rows(folder)
    for name in ("prototxt", "docs/pycaffe.md"):
        (folder / Path(name).name).symlink_to(Path(__file__).parents[2] / name)
    return folder


def write_digits(folder: Path) -> None:
    """Write 40 pictures of 12 × 12 and four kinds as LMDB and HDF5, and 20 more as LMDB."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 60)
    images = rng.integers(0, 120, (60, 1, 12, 12)).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[0, label // 2 * 6 :][:6, label % 2 * 6 :][:, :6] += 130
    for name, part in (("digits_lmdb", slice(0, 40)), ("digits_test_lmdb", slice(40, 60))):
        with (
            lmdb.open(str(folder / name), map_size=2**24) as environment,
            environment.begin(write=True) as transaction,
        ):
            records = zip(images[part], labels[part], strict=True)
            for number, (image, label) in enumerate(records):
                datum = array_to_datum(image, int(label))
                transaction.put(b"%08d" % number, datum.SerializeToString())


def write_rows(folder: Path) -> None:
    """Write 60 rows of four numbers and two kinds as HDF5, 40 to train on and 20 to test on."""
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((60, 4)).astype(np.float32)
    labels = (rows[:, 0] * rows[:, 1] + rows[:, 2] > 0).astype(np.float32)
    for name, part in (("train", slice(0, 40)), ("test", slice(40, 60))):
        with h5py.File(folder / f"rows_{name}.h5", "w") as file:
            file["data"], file["label"] = rows[part], labels[part]
        (folder / f"rows_{name}.txt").write_text(f"rows_{name}.h5\n")


def write_images(folder: Path) -> None:
    """Write one picture in each of the forms that files have."""
    y, x = np.mgrid[:13, :17].astype(np.uint8)
    bgr = np.stack([x * 13, y * 17, x * 5 + y * 9], axis=-1)
    grey = bgr[:, :, 2]
    for name, picture in (
        ("rgb.png", bgr),
        ("photo.jpg", bgr),
        ("grey.png", grey),
        ("grey16.png", grey.astype(np.uint16) * 257),
        ("rgba.png", np.dstack([bgr, bgr[:, :, 0]])),
    ):
        assert cv2.imwrite(str(folder / name), picture)
    Image.fromarray(bgr[:, :, ::-1]).quantize(16).save(folder / "palette.png")


@pytest.fixture(scope="session")
def real_outputs(
    caffe_python: Path, twin_inputs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], str]:
    """What each script printed under the real pycaffe: all of them ran in one process.

    ``real_names`` is one more, which prints what that pycaffe has.
    """
    root, errors = tmp_path_factory.mktemp("real"), tmp_path_factory.mktemp("errors") / "stderr"
    scripts = [*sorted(SCRIPTS.glob("*.py")), NAMES]
    for script in scripts:
        working_folder(root, script.stem, twin_inputs)
    with errors.open("w") as stderr:
        subprocess.run(
            [caffe_python, RUNNER, root, *scripts],
            env=os.environ | {"GLOG_minloglevel": "2", "OPENBLAS_NUM_THREADS": "1"},
            stderr=stderr,
            check=False,
        )

    def output(name: str) -> str:
        error = root / name / "error.txt"
        assert not error.exists(), f"the real pycaffe: {error.read_text()}"
        printed = root / name / "stdout.txt"
        assert printed.exists(), f"an earlier script ended the process: {errors.read_text()}"
        text = printed.read_text()
        assert text, f"the real pycaffe printed nothing: {errors.read_text()}"
        return text

    return output


@pytest.fixture
def our_output(
    twin_inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], str]:
    """Runs a script with our module as ``caffe``, in this process, and returns what it printed."""

    def output(name: str) -> str:
        runner = _module(RUNNER)
        folder = working_folder(Path(mkdtemp(dir=tmp_path)), name, twin_inputs)
        monkeypatch.chdir(folder)
        monkeypatch.syspath_prepend(HELPERS)
        with finder.installed():
            runner.run(str(SCRIPTS / f"{name}.py"), str(folder))
        for module, loaded in list(sys.modules.items()):  # what it holds of this run's caffe
            if Path(getattr(loaded, "__file__", None) or "/").parent == HELPERS:
                del sys.modules[module]
        error = folder / "error.txt"
        assert not error.exists(), error.read_text()
        return (folder / "stdout.txt").read_text()

    return output


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
