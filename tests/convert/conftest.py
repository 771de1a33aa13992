import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from numpy.typing import NDArray

from pycaffe_prune.engines.caffe.engine import CaffeEngine
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer, write_caffemodel
from pycaffe_prune.formats.prototxt import write_prototxt
from pycaffe_prune.net.graph import NetState, layers_in_state
from pycaffe_prune.net.shapes import Shape, infer_shapes

Arrays = dict[str, NDArray[np.float32]]
NetOf = Callable[[str], NetParameter]
WeightsFor = Callable[..., Caffemodel]
Forward = Callable[[NetParameter, Caffemodel, Arrays, Sequence[str]], Arrays]


@pytest.fixture(scope="session")
def net_of() -> NetOf:
    return lambda text: text_format.Parse(text, NetParameter())


@pytest.fixture(scope="session")
def weights_for() -> WeightsFor:
    """Random weights that keep values near 1: those of variances positive."""

    def make(
        net: NetParameter, inputs: Mapping[str, Shape] | None = None, seed: int = 0
    ) -> Caffemodel:
        random = np.random.default_rng(seed)
        layers = layers_in_state(net, NetState())
        held = []
        for layer, around in zip(layers, infer_shapes(layers, inputs or {}), strict=True):
            blobs = []
            for index, shape in enumerate(around.params):
                spread = np.prod(shape[1:]) ** -0.5 if len(shape) > 1 else 0.5
                blob = random.normal(0, spread, shape).astype(np.float32)
                if layer.type == "BatchNorm" and index > 0:
                    blob = np.abs(blob) + np.float32(0.5)
                blobs.append(blob)
            held.append(Layer(layer, tuple(blobs)))
        return Caffemodel(tuple(held), NetParameter(name=net.name))

    return make


@pytest.fixture(scope="session")
def forward(caffe_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Forward:
    """Run a net with its weights in the real Caffe."""

    def run(net: NetParameter, model: Caffemodel, inputs: Arrays, outputs: Sequence[str]) -> Arrays:
        folder = tmp_path_factory.mktemp("forward")
        write_prototxt(folder / "net.prototxt", net)
        write_caffemodel(folder / "net.caffemodel", model)
        found = CaffeEngine(caffe_python).forward(
            folder / "net.prototxt", folder / "net.caffemodel", inputs, outputs
        )
        return dict(zip(outputs, found, strict=True))

    return run


@pytest.fixture(scope="session")
def run_caffe(caffe_python: Path) -> Callable[..., None]:
    """Run a task of the formats tests' with_caffe.py in the real Caffe, in the folder ``cwd``."""

    def run(*arguments: str, cwd: Path) -> None:
        script = Path(__file__).parents[1] / "formats" / "with_caffe.py"
        environment = {**os.environ, "GLOG_minloglevel": "1", "OPENBLAS_NUM_THREADS": "1"}
        done = subprocess.run(
            [caffe_python, script, *arguments],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    return run
