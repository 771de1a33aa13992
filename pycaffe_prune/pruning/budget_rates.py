"""Rates per layer under one budget of parameters, multiply-accumulates or bytes.

The model of what pruning costs is that of `pruning.allocation`: what the layers lose alone adds up.
What a net has left need not add up: a unit takes more with it where its neighbours are wide. So
sizes are tabled layer by layer around a choice of rates, the others staying as they are; the best
choice of that table is taken, and a new table made around it, as long as that gains something. What
decides is the count of the whole choice, which is never over the budget.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.pruning.allocation import CostCurve, predicted_cost

__all__ = [
    "Amount",
    "Options",
    "candidate_rates",
    "cheapest_within",
    "fitted",
    "one_rate",
    "rates_within",
]

Amount = Callable[[Mapping[str, float]], int]
"""What is left of the net when each layer is pruned at its rate; never more at higher rates."""

_STEPS = 100
# Of choices of the layers so far that no other one is better than: more are thinned out.
_MOST_CHOICES = 2000
_ROUNDS = 8
_CORRECTIONS = 12
_HALVINGS = 40
_NEAR = 0.998


@dataclass(frozen=True)
class Options:
    """What one layer may become: equally long."""

    costs: Sequence[float]
    sizes: Sequence[int]


def cheapest_within(options: Mapping[str, Options], budget: int) -> dict[str, int] | None:
    """Choose one option of each layer, so that the sum of costs is least within the budget.

    Options are combined layer by layer, and of equal or larger size only cheaper combinations kept.
    This is exact while at most 2,000 are left; then one of each 2,000th of the range of sizes is,
    and no choice within the budget less so much a layer is cheaper than the one that is found.

    Args:
        options: Of each layer.
        budget: Of the sum of sizes.

    Returns:
        The place of each layer's option; None: no choice is within the budget.
    """
    least = {name: min(option.sizes) for name, option in options.items()}
    rest = budget - sum(least.values())  # sizes are counted from each layer's least
    if rest < 0:
        return None
    sizes, costs = np.zeros(1, np.int64), np.zeros(1)
    steps: list[tuple[str, NDArray[np.int64]]] = []
    for name, option in options.items():
        own = np.asarray(option.sizes, np.int64) - least[name]
        all_sizes = (sizes[:, None] + own).reshape(-1)
        all_costs = (costs[:, None] + np.asarray(option.costs)).reshape(-1)
        chosen = _not_beaten(all_sizes, all_costs, rest)
        steps.append((name, chosen))
        sizes, costs = all_sizes[chosen], all_costs[chosen]
    places, at = {}, -1  # the last one is the cheapest
    for name, chosen in reversed(steps):
        at, places[name] = divmod(int(chosen[at]), len(options[name].sizes))
    return {name: places[name] for name in options}


def _not_beaten(
    sizes: NDArray[np.int64], costs: NDArray[np.float64], most: int
) -> NDArray[np.int64]:
    """Places, by rising size, of those within ``most`` that are cheaper than any smaller one."""
    within = np.flatnonzero(sizes <= most)
    order = within[np.argsort(sizes[within], kind="stable")]
    falling = np.minimum.accumulate(costs[order])
    kept = order[np.diff(falling, prepend=np.inf) < 0]
    if len(kept) <= _MOST_CHOICES:
        return kept
    part = sizes[kept] * _MOST_CHOICES // max(1, most)
    return kept[np.diff(part, append=_MOST_CHOICES + 1) > 0]


def candidate_rates(last: float, measured: Sequence[float]) -> tuple[float, ...]:
    """Return rates to choose from: evenly spaced, evenly by the share that is kept, and measured.

    Args:
        last: The highest one, above 0 and below 1.
        measured: Where the cost is known.
    """
    kept = 1 - np.geomspace(1, 1 - last, _STEPS + 1)
    grid = np.union1d(np.linspace(0, last, _STEPS + 1), np.union1d(kept, measured))
    return tuple(float(rate) for rate in grid if 0 <= rate <= last)


def one_rate(last: Mapping[str, float], amount: Amount, budget: int) -> dict[str, float]:
    """Return the lowest rate for all layers that is within the budget.

    Args:
        last: The highest rate that each layer may have: it has that where the one for all is above.
        amount: What is left.
        budget: Of it.

    Raises:
        SurgeryError: The highest rates leave more than the budget.
    """

    def capped(rate: float) -> dict[str, float]:
        return {name: min(rate, highest) for name, highest in last.items()}

    low, high = 0.0, max(last.values())
    if (least := amount(capped(high))) > budget:
        raise SurgeryError(
            f"a budget of {budget:,} is below what the highest rates that were measured leave "
            f"({least:,}); measure higher rates with --rates"
        )
    if amount(capped(low)) <= budget:
        return capped(low)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if amount(capped(middle)) <= budget else (middle, high)
    return capped(high)


def rates_within(
    curves: Mapping[str, CostCurve],
    candidates: Mapping[str, Sequence[float]],
    amount: Amount,
    budget: int,
) -> dict[str, float]:
    """Return each layer's rate, so that together they cost little within the budget.

    Where sizes add up, as weights do, no choice of the candidates is cheaper (`cheapest_within`).
    Where they do not, as with units, the choice is one that no layer alone can better, and never
    dearer than one rate for all.

    Args:
        curves: What pruning each layer costs.
        candidates: The rates to choose from, rising from 0 to the last of the layer's curve.
        amount: What is left.
        budget: Of it.

    Raises:
        SurgeryError: The highest rates leave more than the budget.
    """
    last = {name: rates[-1] for name, rates in candidates.items()}
    even = one_rate(last, amount, budget)
    choices = {name: sorted({*candidates[name], even[name]}) for name in candidates}
    others = () if _add_up(last, amount) else _uneven(last, amount, budget)
    ends = [_improved(curves, choices, amount, budget, start) for start in (even, *others)]
    return min(ends, key=lambda rates: predicted_cost(curves, rates))


def _add_up(last: Mapping[str, float], amount: Amount) -> bool:
    """Whether a layer takes as much away whatever the others are."""
    none = dict.fromkeys(last, 0.0)
    alone = sum(amount({**none, name: rate}) - amount(none) for name, rate in last.items())
    return amount(last) - amount(none) == alone


def _uneven(last: Mapping[str, float], amount: Amount, budget: int) -> Iterator[dict[str, float]]:
    """Each layer in turn at its highest rate or whole, the others at one rate."""
    for name in last if len(last) > 1 else ():
        for rate in (last[name], 0.0):
            rest = {other: highest for other, highest in last.items() if other != name}

            def left(rates: Mapping[str, float], name: str = name, rate: float = rate) -> int:
                return amount({**rates, name: rate})

            if left(rest) <= budget:
                yield {name: rate, **one_rate(rest, left, budget)}


def _improved(
    curves: Mapping[str, CostCurve],
    choices: Mapping[str, Sequence[float]],
    amount: Amount,
    budget: int,
    best: dict[str, float],
) -> dict[str, float]:
    for _ in range(_ROUNDS):
        found = _next(curves, choices, amount, budget, best)
        if predicted_cost(curves, found) >= predicted_cost(curves, best):
            break
        best = found
    return best


def _next(
    curves: Mapping[str, CostCurve],
    choices: Mapping[str, Sequence[float]],
    amount: Amount,
    budget: int,
    rates: Mapping[str, float],
) -> dict[str, float]:
    """The best choice by a table of sizes around ``rates`` that is within the budget as a whole."""
    base = amount(rates)
    options = {
        name: Options(
            [predicted_cost(curves, {**rates, name: rate}) for rate in choices[name]],
            [amount({**rates, name: rate}) - base for rate in choices[name]],
        )
        for name in curves
    }
    room = budget - base
    found = [_with_one_changed(choices, options, room, rates)]
    for _ in range(_CORRECTIONS):
        places = cheapest_within(options, room)
        if places is None:
            break
        chosen = {name: choices[name][place] for name, place in places.items()}
        excess = amount(chosen) - budget
        if excess <= 0:
            found.append(chosen)
            break
        room -= excess
    return min(found, key=lambda one: predicted_cost(curves, one))


def _with_one_changed(
    choices: Mapping[str, Sequence[float]],
    options: Mapping[str, Options],
    room: int,
    rates: Mapping[str, float],
) -> dict[str, float]:
    """The cheapest choice within the budget that differs from ``rates`` in one layer at most."""
    changes = [
        (cost, name, rate)
        for name, option in options.items()
        for cost, size, rate in zip(option.costs, option.sizes, choices[name], strict=True)
        if size <= room
    ]
    _, name, rate = min(changes)
    return {**rates, name: rate}


def fitted(
    choose: Callable[[int], dict[str, float]],
    exact: Callable[[Mapping[str, float]], int],
    budget: int,
) -> dict[str, float]:
    """Choose rates by an amount that is not exact, so that the exact one is within the budget.

    Args:
        choose: Returns the rates for a budget of what it counts.
        exact: What is left of the pruned net itself.
        budget: Of it.

    Returns:
        The rates that leave most, of those that were tried.

    Raises:
        SurgeryError: ``choose`` finds no rates for the budget.
    """
    target, best = budget, None
    last: dict[str, float] | None = None
    for _ in range(_CORRECTIONS):
        try:
            rates = choose(target)
        except SurgeryError:
            if best is None:
                raise
            break
        amount = exact(rates)
        if amount <= budget and (best is None or amount > best[0]):
            best = amount, rates
        if best is not None and (rates == last or best[0] >= budget * _NEAR):
            break
        last, target = rates, target + budget - amount
    if best is None:
        raise SurgeryError(f"no rates were found that leave at most {budget:,}")
    return best[1]
