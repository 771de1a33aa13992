"""pycaffe on the engine torch: the module that scripts import as ``caffe``.

The same names, on today's Python, with the numbers of the real Caffe. As in BVLC's ``caffe``
package, whatever most scripts need is here; the rest is in the modules of the same names.
"""

from pycaffe_prune.pycaffe import io
from pycaffe_prune.pycaffe._caffe import (
    Layer,
    __version__,
    get_solver,
    has_nccl,
    init_log,
    layer_type_list,
    log,
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
from pycaffe_prune.pycaffe.classifier import Classifier
from pycaffe_prune.pycaffe.detector import Detector
from pycaffe_prune.pycaffe.net_spec import NetSpec, layers, params, to_proto
from pycaffe_prune.pycaffe.proto.caffe_pb2 import TEST, TRAIN
from pycaffe_prune.pycaffe.pycaffe import (
    NCCL,
    AdaDeltaSolver,
    AdaGradSolver,
    AdamSolver,
    NesterovSolver,
    Net,
    RMSPropSolver,
    SGDSolver,
    Timer,
)

__all__ = [
    "NCCL",
    "TEST",
    "TRAIN",
    "AdaDeltaSolver",
    "AdaGradSolver",
    "AdamSolver",
    "Classifier",
    "Detector",
    "Layer",
    "NesterovSolver",
    "Net",
    "NetSpec",
    "RMSPropSolver",
    "SGDSolver",
    "Timer",
    "__version__",
    "get_solver",
    "has_nccl",
    "init_log",
    "io",
    "layer_type_list",
    "layers",
    "log",
    "params",
    "set_device",
    "set_mode_cpu",
    "set_mode_gpu",
    "set_multiprocess",
    "set_random_seed",
    "set_solver_count",
    "set_solver_rank",
    "solver_count",
    "solver_rank",
    "to_proto",
]
