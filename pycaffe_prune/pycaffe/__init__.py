"""pycaffe on the engine torch: the module that scripts import as ``caffe``.

The same names, on today's Python, with the numbers of the real Caffe. As in BVLC's ``caffe``
package, whatever most scripts need is here; the rest is in the modules of the same names.
"""

from pycaffe_prune.pycaffe import io
from pycaffe_prune.pycaffe._caffe import Layer, set_random_seed
from pycaffe_prune.pycaffe.classifier import Classifier
from pycaffe_prune.pycaffe.detector import Detector
from pycaffe_prune.pycaffe.net_spec import NetSpec, layers, params, to_proto
from pycaffe_prune.pycaffe.proto.caffe_pb2 import TEST, TRAIN
from pycaffe_prune.pycaffe.pycaffe import Net

__all__ = [
    "TEST",
    "TRAIN",
    "Classifier",
    "Detector",
    "Layer",
    "Net",
    "NetSpec",
    "io",
    "layers",
    "params",
    "set_random_seed",
    "to_proto",
]
