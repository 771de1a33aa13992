"""The names of `python/caffe/pycaffe.py`: nets and solvers as scripts use them."""

from pycaffe_prune.pycaffe._caffe import (
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
    "AdaDeltaSolver",
    "AdaGradSolver",
    "AdamSolver",
    "NesterovSolver",
    "Net",
    "RMSPropSolver",
    "SGDSolver",
    "Timer",
]

# Under the names that scripts that reach for them know.
_Net_forward, _Net_backward = Net.forward, Net.backward
_Net_forward_all, _Net_forward_backward_all = Net.forward_all, Net.forward_backward_all
_Net_set_input_arrays, _Net_batch = Net.set_input_arrays, Net._batch
