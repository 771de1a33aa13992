"""Every public name of the real pycaffe is one of ours, module by module, class by class."""

import importlib
import json
from collections.abc import Callable

import pytest

HELD = (
    "caffe",
    "caffe.Classifier",
    "caffe.Detector",
    "caffe.Layer",
    "caffe.Net",
    "caffe.classifier",
    "caffe.coord_map",
    "caffe.detector",
    "caffe.draw",
    "caffe.io",
    "caffe.io.Transformer",
    "caffe.net_spec",
    "caffe.net_spec.Function",
    "caffe.net_spec.Top",
    "caffe.NetSpec",
    "caffe._caffe",
    "caffe._caffe.Blob",
    "caffe._caffe.Solver",
    "caffe.SGDSolver",
    "caffe.Timer",
    "caffe.proto.caffe_pb2",
)

# Kept by scripts that draw or build nets though their names are private.
PRIVATE = {
    "_param_names", "_to_proto", "_get_name", "_get_top_name", "_backward", "_batch",
    "_blob_loss_weights", "_blob_names", "_blobs", "_bottom_ids", "_forward", "_inputs",
    "_layer_names", "_outputs", "_set_input_arrays", "_top_ids",
}  # fmt: skip


@pytest.mark.real_caffe
@pytest.mark.parametrize("where", HELD)
def test_no_public_name_is_missing(where: str, real_outputs: Callable[[str], str]) -> None:
    theirs = json.loads(real_outputs("real_names"))[where]
    public = {name for name in theirs if name in PRIVATE or not name.startswith("_")}
    assert public
    for module in HELD:  # which makes submodules names of their package, there as here
        ours(module)
    assert public - set(dir(ours(where))) == set()


def ours(where: str) -> object:
    parts = where.split(".")
    for length in range(len(parts), 0, -1):
        name = ".".join(["pycaffe_prune.pycaffe", *parts[1:length]])
        try:
            found: object = importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = getattr(found, part)
        return found
    raise AssertionError(where)
