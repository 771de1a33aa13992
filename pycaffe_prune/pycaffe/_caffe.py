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
from pycaffe_prune.pycaffe.functions import (
    NCCL,
    VERSION,
    Timer,
    has_nccl,
    layer_type_list,
    set_device,
    set_mode_cpu,
    set_mode_gpu,
    set_multiprocess,
    set_random_seed,
    set_solver_count,
    set_solver_rank,
    solver_count,
    solver_rank,
)
from pycaffe_prune.pycaffe.glog import init_log, log
from pycaffe_prune.pycaffe.layer import Layer
from pycaffe_prune.pycaffe.layers_of_net import LayerVec
from pycaffe_prune.pycaffe.net import Net
from pycaffe_prune.pycaffe.solver import NetVec, Solver, SolverParameter
from pycaffe_prune.pycaffe.solver_types import (
    AdaDeltaSolver,
    AdaGradSolver,
    AdamSolver,
    NesterovSolver,
    RMSPropSolver,
    SGDSolver,
    get_solver,
)

__all__ = [
    "NCCL",
    "AdaDeltaSolver",
    "AdaGradSolver",
    "AdamSolver",
    "Blob",
    "BlobVec",
    "BoolVec",
    "DtypeVec",
    "IntVec",
    "Layer",
    "LayerParameter",
    "LayerVec",
    "NesterovSolver",
    "Net",
    "NetVec",
    "RMSPropSolver",
    "RawBlobVec",
    "SGDSolver",
    "Solver",
    "SolverParameter",
    "StringVec",
    "Timer",
    "get_solver",
    "has_nccl",
    "init_log",
    "layer_type_list",
    "log",
    "set_device",
    "set_mode_cpu",
    "set_mode_gpu",
    "set_multiprocess",
    "set_random_seed",
    "set_solver_count",
    "set_solver_rank",
    "solver_count",
    "solver_rank",
]

__version__ = VERSION
