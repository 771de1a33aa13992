"""Reduction rates foreseen from the unpruned network alone: the cheap test of the paper's Table 5.

Thresholds are taken once and stay fixed through the rounds, while weight decay shrinks every weight
that the data does not move. So at the last pruning an alpha removes about what alpha / shrink would
remove of the unpruned network. With the paper's settings for CaffeNet (three rounds of 50,000
iterations) shrink is 0.8017, and the rates of its table for fc6 and fc7 are those of weights with
that factor.

All layers are foreseen with the factor of ``lr_mult`` 1. A layer that learns at another rate is
held by the data: CaffeNet's new classifier has ``lr_mult`` 10, and decay alone would shrink its
weights to 0.8017**10 = 0.11 of themselves; by the table they keep more than 0.8.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from pycaffe_prune.engines.caffe.caffe_worker.loop import learning_rate
from pycaffe_prune.engines.resolved_solver import solver_settings
from pycaffe_prune.experiments.result import LayerRate, PredictedRates, Prediction
from pycaffe_prune.formats.caffe_pb2 import SolverParameter
from pycaffe_prune.formats.caffemodel import Caffemodel
from pycaffe_prune.pruning.connections import thresholds
from pycaffe_prune.pruning.criteria.connections import magnitude_mask

__all__ = ["predict", "shrink"]


def shrink(solver: SolverParameter, iterations: int) -> float | None:
    """Return the factor by which weight decay alone shrinks a weight during one training.

    With the update of `src/caffe/solvers/sgd_solver.cpp` a weight without a gradient loses in the
    long run the share rate * weight_decay / (1 - momentum) of itself at each iteration. The rate
    is the solver's own, as for a blob with ``lr_mult`` 1 and ``decay_mult`` 1; see the module for
    the others.

    Args:
        solver: Its settings.
        iterations: Length of the training.

    Returns:
        The factor, 0 to 1; None when the solver is no SGD with L2 decay.
    """
    if solver.type not in ("SGD", "Nesterov") or solver.regularization_type != "L2":
        return None
    settings = solver_settings(solver).model_dump() | {"max_iter": iterations}
    rates = sum(learning_rate(settings, iteration) for iteration in range(iterations))
    return math.exp(-solver.weight_decay * rates / (1 - solver.momentum))


def predict(
    model: Caffemodel, layers: Sequence[str], alphas: Iterable[float], shrunk: float
) -> Prediction:
    """Return the rates that each alpha is foreseen to reach.

    Args:
        model: The trained, unpruned network.
        layers: Whose blobs 0 are pruned.
        alphas: Multiples of each layer's standard deviation.
        shrunk: Factor of `shrink` over all trainings before the last pruning.

    Raises:
        As `pruning.connections.thresholds`.
    """
    sigmas = thresholds(model, model, 1.0, layers)
    found = []
    for alpha in sorted(alphas):
        rows = tuple(_row(model, name, alpha / shrunk * sigmas[name, 0]) for name in layers)
        left = sum(row.kept for row in rows) / sum(row.weights for row in rows)
        found.append(PredictedRates(alpha=alpha, layers=rows, reduction=1 - left))
    return Prediction(shrink=shrunk, rates=tuple(found))


def _row(model: Caffemodel, name: str, limit: float) -> LayerRate:
    weights = model.layer(name).blobs[0]
    kept = int(np.count_nonzero(magnitude_mask(weights, limit)))
    return LayerRate(layer=name, weights=weights.size, kept=kept, reduction=1 - kept / weights.size)
