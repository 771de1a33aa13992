"""One total reduction shared out over layers, where measured curves say that it costs least.

The model: what pruning several layers costs is the sum of what pruning each alone costs, and the
cost between two measured rates is on the line between them. Under it the allocation of `allocate`
is the best one on a fine grid, found by dynamic programming (the curves need not be convex:
accuracy falls slowly, then at once, then not at all, where greedy steps go wrong).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.errors import SurgeryError

__all__ = ["CostCurve", "allocate", "cost_curve", "predicted_cost", "uniform"]

# Of the wanted reduction; what a rate prunes is rounded down to it, so the total is never missed.
_PARTS = 2000
# Candidate rates of a layer, besides those measured.
_STEPS = 200
# Weight of evenness, which decides between equal costs: far below one image in 100,000.
_EVENNESS = 1e-6
# Fewer weights than this are none.
_NOTHING = 1e-6


@dataclass(frozen=True)
class CostCurve:
    """What pruning one layer costs; made by `cost_curve`."""

    weights: int
    rates: tuple[float, ...]
    """Shares of the weights, rising from 0."""
    costs: tuple[float, ...]
    """At each rate; 0 at the first, never falling."""

    def cost(self, rate: float) -> float:
        """Return the cost at a rate between 0 and the last one, by linear interpolation."""
        return float(np.interp(rate, self.rates, self.costs))

    def rate_within(self, most: float) -> float:
        """Return the highest rate, at most the last one, whose cost is at most ``most``, >= 0."""
        below = max(place for place, cost in enumerate(self.costs) if cost <= most)
        if below == len(self.costs) - 1:
            return self.rates[-1]
        rates, costs = self.rates[below : below + 2], self.costs[below : below + 2]
        return float(np.interp(most, costs, rates))


def cost_curve(weights: int, rates: Sequence[float], costs: Sequence[float]) -> CostCurve:
    """Return the lowest curve that never falls and is nowhere below the measured costs.

    A net that is better after pruning is luck to that degree: gains count as no cost, and a higher
    rate costs at least what a lower one does.

    Args:
        weights: Of the layer.
        rates: Where the cost was measured, rising, above 0 and at most 1.
        costs: At each rate, what is lost against no pruning (accuracy as a share, say).
    """
    envelope = np.maximum.accumulate([0.0, *costs])
    return CostCurve(weights, (0.0, *rates), tuple(map(float, envelope)))


def predicted_cost(curves: Mapping[str, CostCurve], rates: Mapping[str, float]) -> float:
    """Return what the model says that the rates cost together.

    A millionth of the weight-weighted mean square of the rates is part of it: of allocations that
    cost the same, the more even one is the cheaper.
    """
    total = sum(curve.weights for curve in curves.values())
    even = sum(curve.weights / total * rates[name] ** 2 for name, curve in curves.items())
    return sum(curve.cost(rates[name]) for name, curve in curves.items()) + _EVENNESS * even


def allocate(curves: Mapping[str, CostCurve], total: float) -> dict[str, float]:
    """Return each layer's rate, so that together ``total`` of all weights go at the least cost.

    Args:
        curves: Per layer, what pruning it costs.
        total: Share of all weights of these layers, 0 to 1.

    Returns:
        Per layer a rate from 0 to the last of its curve. Over all layers they prune ``total`` (up
        to rounding errors of float64), and cost no more (`predicted_cost`) than `uniform` rates.

    Raises:
        SurgeryError: Even the last rates of all curves prune less than ``total``.
    """
    even = uniform(curves, total)
    wanted = total * sum(curve.weights for curve in curves.values())
    best = _cheapest(curves, wanted) if wanted > _NOTHING else None
    if best is None:
        return even
    exact = _without_excess(curves, best, wanted)
    return min(even, exact, key=lambda rates: predicted_cost(curves, rates))


def uniform(curves: Mapping[str, CostCurve], total: float) -> dict[str, float]:
    """Return the same rate for every layer, or as near to it as the ends of the curves allow.

    Args and errors are those of `allocate`.
    """
    weights = sum(curve.weights for curve in curves.values())
    last = {name: curve.rates[-1] for name, curve in curves.items()}
    most = sum(curve.weights * last[name] for name, curve in curves.items()) / weights
    if not 0 <= total <= most:
        raise SurgeryError(
            f"a total reduction of {total:g} is not within what was measured (0 to {most:.4g}); "
            "measure higher rates with --rates"
        )
    rates: dict[str, float] = {}
    left, room = total * weights, weights
    for name in sorted(curves, key=last.__getitem__):  # what one layer cannot take, the others do
        rates[name] = min(last[name], left / room)
        left -= rates[name] * curves[name].weights
        room -= curves[name].weights
    return {name: rates[name] for name in curves}


def _cheapest(curves: Mapping[str, CostCurve], wanted: float) -> dict[str, float] | None:
    """The cheapest rates of the grid that prune at least ``wanted``; None when rounding forbids."""
    total = sum(curve.weights for curve in curves.values())
    best = np.full(_PARTS + 1, np.inf)
    best[0] = 0.0
    choices: list[tuple[str, NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]] = []
    for name, curve in curves.items():
        grid = np.union1d(np.linspace(0, curve.rates[-1], _STEPS + 1), curve.rates)
        parts = _parts(grid * curve.weights, wanted)
        evenness = _EVENNESS * curve.weights / total * grid**2
        costs = np.interp(grid, curve.rates, curve.costs) + evenness
        best, chosen = _with_layer(best, parts, costs)
        choices.append((name, grid, parts, chosen))
    if not np.isfinite(best[-1]):
        return None
    rates, reached = dict.fromkeys(curves, 0.0), _PARTS
    for name, grid, parts, chosen in reversed(choices):
        rates[name] = float(grid[chosen[reached]])
        reached = max(0, reached - int(parts[chosen[reached]]))
    return rates


def _parts(pruned: NDArray[np.float64], wanted: float) -> NDArray[np.int64]:
    """How many whole parts of ``wanted`` each number of pruned weights makes, at most all."""
    return np.minimum(np.floor(pruned * (_PARTS / wanted)), _PARTS).astype(np.int64)


def _with_layer(
    best: NDArray[np.float64], parts: NDArray[np.int64], costs: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The least cost of at least so many parts with one layer more, and the rate it takes."""
    better = np.full(best.shape, np.inf)
    chosen = np.zeros(best.shape, np.int64)
    for index, (part, cost) in enumerate(zip(parts, costs, strict=True)):
        # To have p parts with this rate, the layers before have p - part of them, or none.
        before = np.concatenate([np.full(part, best[0]), best[: best.size - part]]) + cost
        cheaper = before < better
        better[cheaper] = before[cheaper]
        chosen[cheaper] = index
    return better, chosen


def _without_excess(
    curves: Mapping[str, CostCurve], rates: Mapping[str, float], wanted: float
) -> dict[str, float]:
    """Take back what is pruned beyond ``wanted``, first where a weight costs most; never dearer."""
    exact = dict(rates)
    excess = sum(curve.weights * exact[name] for name, curve in curves.items()) - wanted

    def per_weight(name: str) -> float:
        curve, rate = curves[name], exact[name]
        lower = max(0.0, rate - max(excess, 0.0) / curve.weights)
        saved = curve.cost(rate) - curve.cost(lower)
        return saved / ((rate - lower) * curve.weights) if rate > lower else 0.0

    for name in sorted(curves, key=per_weight, reverse=True):
        back = min(exact[name], max(excess, 0.0) / curves[name].weights)
        exact[name] -= back
        excess -= back * curves[name].weights
    return exact
