"""Print what the real pycaffe has, by module and class (Python 3.6 on)."""

import importlib
import inspect
import json
import sys
import types

import caffe

MODULES = (
    "caffe",
    "caffe.classifier",
    "caffe.coord_map",
    "caffe.detector",
    "caffe.draw",
    "caffe.io",
    "caffe.net_spec",
    "caffe.proto.caffe_pb2",
    "caffe.pycaffe",
    "caffe._caffe",
)
CLASSES = {
    "caffe": (
        "AdaDeltaSolver",
        "AdaGradSolver",
        "AdamSolver",
        "Classifier",
        "Detector",
        "Layer",
        "NCCL",
        "NesterovSolver",
        "Net",
        "NetSpec",
        "RMSPropSolver",
        "SGDSolver",
        "Timer",
    ),
    "caffe._caffe": (
        "Blob",
        "BlobVec",
        "BoolVec",
        "DtypeVec",
        "IntVec",
        "LayerVec",
        "NetVec",
        "RawBlobVec",
        "Solver",
        "SolverParameter",
        "StringVec",
    ),
    "caffe.coord_map": ("AxisMismatchException", "UndefinedMapException"),
    "caffe.io": ("Transformer",),
    "caffe.net_spec": ("Function", "Layers", "Parameters", "Top"),
}

# caffe.draw is not to be imported without it.
sys.modules.setdefault("pydot", types.ModuleType("pydot"))


def is_own(value):
    """Whether it is pycaffe's, not a module or another package's function that it imports."""
    if inspect.ismodule(value):
        return value.__name__.startswith("caffe.")
    return str(getattr(value, "__module__", None) or "caffe").startswith("caffe")


modules = {name: importlib.import_module(name) for name in MODULES}  # all, before any is told
names = {
    name: [each for each in dir(module) if is_own(getattr(module, each))]
    for name, module in modules.items()
}
for name, classes in CLASSES.items():
    for each in classes:
        names[name + "." + each] = dir(getattr(importlib.import_module(name), each))
# What objects have besides what their classes tell.
top = caffe.net_spec.Top(caffe.net_spec.Function("Power", (), {}), 0)
names["caffe.io.Transformer"] = dir(caffe.io.Transformer({"data": (1, 3, 4, 4)}))
names["caffe.net_spec.Top"], names["caffe.net_spec.Function"] = dir(top), dir(top.fn)
print(json.dumps(names))
