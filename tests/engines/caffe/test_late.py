"""Modules that are loaded late, in this Python and in the real Caffe's."""

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
import pytest

from pycaffe_prune.engines.caffe.caffe_worker.late import import_late
from pycaffe_prune.engines.caffe.engine import CaffeEngine
from pycaffe_prune.formats.caffemodel import Caffemodel, write_caffemodel


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package on the path whose modules write a file when they are run."""
    folder = tmp_path / "late_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    for name in ("one", "two"):
        text = f"from pathlib import Path\nPath(__file__).with_name('{name}.ran').touch()\nx = 3\n"
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    yield folder
    for name in [name for name in sys.modules if name.startswith("late_package")]:
        del sys.modules[name]


def test_a_module_is_run_when_something_of_it_is_read_and_once(package: Path) -> None:
    import_late("late_package.one")
    one, two = (import_module(f"late_package.{name}") for name in ("one", "two"))
    assert import_module("late_package.one") is one
    assert (package / "two.ran").exists()
    assert not (package / "one.ran").exists()
    assert one.x == 3
    (package / "one.ran").unlink()
    assert (one.x, two.x) == (3, 3)
    assert not (package / "one.ran").exists()
    with pytest.raises(AttributeError, match=r"late_package.one.*'y'"):
        _ = one.y


def test_what_keeps_a_module_from_loading_is_told_each_time(package: Path) -> None:
    import_late("late_package.bad")
    (package / "bad.py").write_text("import late_package.bad\nimport no_such_module_here\n")
    bad = import_module("late_package.bad")
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError, match="no_such_module_here"):
            _ = bad.x


def test_a_module_that_is_not_there_is_missed_at_once(package: Path) -> None:
    import_late("late_package.three")
    with pytest.raises(ModuleNotFoundError, match=r"late_package\.three"):
        import_module("late_package.three")


READER = """
import caffe
import skimage.io

class Reader(caffe.Layer):
    def setup(self, bottom, top):
        image = skimage.io.imread(self.param_str) / 255.0
        self.image = caffe.io.resize_image(image, image.shape[:2]).transpose(2, 0, 1)
    def reshape(self, bottom, top):
        top[0].reshape(1, *self.image.shape)
    def forward(self, bottom, top):
        top[0].data[0] = self.image
"""


@pytest.mark.real_caffe
def test_trusted_python_layers_have_pycaffes_io_and_what_it_imports(
    caffe_python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    image = np.random.default_rng(0).integers(0, 256, (5, 4, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "image.png"), image)
    (tmp_path / "reader.py").write_text(READER)
    (tmp_path / "net.prototxt").write_text(
        'name: "reads" layer { name: "image" type: "Python" top: "image" '
        f'python_param {{ module: "reader" layer: "Reader" param_str: "{tmp_path}/image.png" }} }}'
    )
    write_caffemodel(tmp_path / "none.caffemodel", Caffemodel(()))
    engine = CaffeEngine(caffe_python, trust=True)
    (found,) = engine.forward(
        tmp_path / "net.prototxt", tmp_path / "none.caffemodel", {}, ["image"]
    )
    rgb = image[..., ::-1].transpose(2, 0, 1)
    np.testing.assert_allclose(found, rgb[None] / np.float32(255), rtol=1e-5)
