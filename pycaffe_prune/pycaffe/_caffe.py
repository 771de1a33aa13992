"""What the C++ module of pycaffe exports (`python/caffe/_caffe.cpp`)."""

from pycaffe_prune.formats.caffe_pb2 import LayerParameter
from pycaffe_prune.pycaffe.blobs import (
    Blob,
    BlobVec,
    BoolVec,
    DtypeVec,
    IntVec,
    RawBlobVec,
    StringVec,
)
from pycaffe_prune.pycaffe.layer import Layer
from pycaffe_prune.pycaffe.layers_of_net import LayerVec
from pycaffe_prune.pycaffe.modes import MODES
from pycaffe_prune.pycaffe.net import Net

__all__ = [
    "Blob",
    "BlobVec",
    "BoolVec",
    "DtypeVec",
    "IntVec",
    "Layer",
    "LayerParameter",
    "LayerVec",
    "Net",
    "RawBlobVec",
    "StringVec",
    "set_random_seed",
]


def set_random_seed(seed: int) -> None:
    """Begin the random numbers that belong to a seed: same seed, same fillers and draws."""
    MODES.set_random_seed(seed)
