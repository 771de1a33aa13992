"""What the real Caffe says about shapes, as fixtures."""

import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from pycaffe_prune.formats.caffe_pb2 import LayerParameter, NetParameter, Phase
from pycaffe_prune.formats.prototxt import write_prototxt
from pycaffe_prune.net.shapes import LayerShapes

SHAPES = Path(__file__).parent / "shapes_with_caffe.py"
Built = Mapping[str, Mapping[str, Sequence[Sequence[int]]]]


@pytest.fixture
def built_by_caffe(
    tmp_path: Path, caffe_python: Path
) -> Callable[[Sequence[tuple[NetParameter, Phase]]], list[Built]]:
    """Builds nets in one process of the real Caffe; gives each one's blobs and params."""

    def build(nets: Sequence[tuple[NetParameter, Phase]]) -> list[Built]:
        paths = []
        for number, (net, phase) in enumerate(nets):
            write_prototxt(tmp_path / f"{number}.prototxt", net)
            paths.append((str(tmp_path / f"{number}.prototxt"), phase))
        (tmp_path / "nets.json").write_text(json.dumps(paths))
        done = subprocess.run(
            [caffe_python, SHAPES, tmp_path / "nets.json"],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"GLOG_minloglevel": "2"},
        )
        assert done.returncode == 0, done.stderr
        found: list[Built] = json.loads(done.stdout)
        return found

    return build


@pytest.fixture
def require_equal() -> Callable[[Sequence[LayerParameter], Sequence[LayerShapes], Built], None]:
    """Asserts that our shapes are those that the real Caffe gave."""

    def require(
        layers: Sequence[LayerParameter], ours: Sequence[LayerShapes], built: Built
    ) -> None:
        for layer, shapes in zip(layers, ours, strict=True):
            assert shapes.problem is None
            for name, top in zip(layer.top, shapes.tops, strict=True):
                assert (layer, top) == (layer, tuple(built["blobs"][name]))
            theirs = [tuple(shape) for shape in built["params"].get(layer.name, [])]
            assert (layer, list(shapes.params)) == (layer, theirs)

    return require
