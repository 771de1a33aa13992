import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from numpy.typing import NDArray

from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, write_caffemodel
from tests.caffe_process import CaffeProcess

Arrays = Mapping[str, NDArray[np.float32]]
CaffeForward = Callable[[NetParameter, Caffemodel, Arrays], dict[str, NDArray[np.float32]]]


@pytest.fixture(scope="session")
def caffe_forward(
    caffe_python: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[CaffeForward]:
    """Run a TEST net on inputs and return its outputs; one Caffe process serves all calls."""
    folder = tmp_path_factory.mktemp("caffe")
    process = CaffeProcess(caffe_python, Path(__file__).with_name("forward_with_caffe.py"), folder)

    def forward(
        net: NetParameter, model: Caffemodel, inputs: Arrays
    ) -> dict[str, NDArray[np.float32]]:
        (folder / "net.prototxt").write_text(text_format.MessageToString(net))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", lambda _: None)  # thousands of files that nobody keeps
            write_caffemodel(folder / "net.caffemodel", model)
        np.savez(folder / "inputs.npz", allow_pickle=False, **dict(inputs))
        names = {"net": "net.prototxt", "weights": "net.caffemodel", "inputs": "inputs.npz"}
        job = {name: str(folder / file) for name, file in names.items()}
        process.run(job | {"out": str(folder / "out.npz")})
        with np.load(folder / "out.npz") as found:
            return {name: found[name] for name in found.files}

    yield forward
    process.stop()
