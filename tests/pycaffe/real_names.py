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
CLASSES = ("Net", "Layer", "SGDSolver", "Timer", "NCCL", "NetSpec", "Classifier", "Detector")

# caffe.draw is not to be imported without it.
sys.modules.setdefault("pydot", types.ModuleType("pydot"))


def is_own(value):
    """Whether it is pycaffe's, not a module or another package's function that it imports."""
    if inspect.ismodule(value):
        return value.__name__.startswith("caffe.")
    return str(getattr(value, "__module__", None) or "caffe").startswith("caffe")


names = {}
for name in MODULES:
    module = importlib.import_module(name)
    names[name] = [each for each in dir(module) if is_own(getattr(module, each))]
for name in CLASSES:
    names["caffe." + name] = dir(getattr(caffe, name))
for name in ("Blob", "Solver"):
    names["caffe._caffe." + name] = dir(getattr(caffe._caffe, name))
names["caffe.io.Transformer"] = dir(caffe.io.Transformer)
names["caffe.net_spec.Top"] = dir(caffe.net_spec.Top)
names["caffe.net_spec.Function"] = dir(caffe.net_spec.Function)
print(json.dumps(names))
