"""The types of solvers (`src/caffe/solvers/`)."""

import os

from pycaffe_prune.pycaffe.errors import CheckError
from pycaffe_prune.pycaffe.solver import Solver
from pycaffe_prune.pycaffe.solver_files import read_param

__all__ = [
    "AdaDeltaSolver",
    "AdaGradSolver",
    "AdamSolver",
    "NesterovSolver",
    "RMSPropSolver",
    "SGDSolver",
    "get_solver",
]


class SGDSolver(Solver):
    """Gradient descent with momentum; see `Solver`."""

    _type = "SGD"

    @property
    def lr(self) -> float:
        """The learning rate of the next update."""
        return self._learning_rate()


class NesterovSolver(SGDSolver):
    """Nesterov's accelerated gradient; see `Solver`."""

    _type = "Nesterov"


class AdaGradSolver(SGDSolver):
    """AdaGrad; see `Solver`."""

    _type = "AdaGrad"


class RMSPropSolver(SGDSolver):
    """RMSProp; see `Solver`."""

    _type = "RMSProp"


class AdaDeltaSolver(SGDSolver):
    """AdaDelta; see `Solver`."""

    _type = "AdaDelta"


class AdamSolver(SGDSolver):
    """Adam; see `Solver`."""

    _type = "Adam"


_CLASSES = {
    kind._type: kind
    for kind in (
        SGDSolver,
        NesterovSolver,
        AdaGradSolver,
        RMSPropSolver,
        AdaDeltaSolver,
        AdamSolver,
    )
}


def get_solver(param_file: str | os.PathLike[str]) -> SGDSolver:
    """Return the solver of a file, of the class that its ``type`` says.

    Raises:
        CheckError: There is no such type.
        PruneError: As `Solver`.
    """
    param = read_param(param_file)
    if param.type not in _CLASSES:
        raise CheckError(
            f"{param_file}: the solver's type '{param.type}' is not known; use one of "
            f"{', '.join(_CLASSES)}"
        )
    return _CLASSES[param.type]._of(param)
