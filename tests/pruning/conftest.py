import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from numpy.typing import NDArray

from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, write_caffemodel

Arrays = Mapping[str, NDArray[np.float32]]
CaffeForward = Callable[[NetParameter, Caffemodel, Arrays], dict[str, NDArray[np.float32]]]


class _CaffeProcess:
    """A Caffe that runs net after net; a failed CHECK ends it, and the next net starts another."""

    def __init__(self, python: Path, folder: Path) -> None:
        self._python, self._folder = python, folder
        self._process: subprocess.Popen[str] | None = None

    def run(self, job: Mapping[str, str]) -> None:
        if self._process is None:
            with (self._folder / "stderr.txt").open("w") as errors:
                self._process = subprocess.Popen(
                    [self._python, Path(__file__).with_name("forward_with_caffe.py")],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                    env=os.environ | {"GLOG_minloglevel": "2", "OPENBLAS_NUM_THREADS": "1"},
                )
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        if self._process.stdout.readline() != "done\n":
            self.stop()
            raise AssertionError((self._folder / "stderr.txt").read_text())

    def stop(self) -> None:
        if self._process is not None:
            self._process.communicate()
            self._process = None


@pytest.fixture(scope="session")
def caffe_forward(
    caffe_python: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[CaffeForward]:
    """Run a TEST net on inputs and return its outputs; one Caffe process serves all calls."""
    folder = tmp_path_factory.mktemp("caffe")
    process = _CaffeProcess(caffe_python, folder)

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
