"""Units that go in several steps, each of which scores what the last one has left.

Between two steps a caller may train what is left, with the shares of `step_ratios`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel
from pycaffe_prune.pruning.criteria.units import units_to_delete
from pycaffe_prune.pruning.unit_choice import (
    Flags,
    UnitScores,
    by_layer_mean,
    choose_lowest,
    choose_lowest_over_all,
    units_over_all,
)
from pycaffe_prune.pruning.units import delete_units, unit_counts

__all__ = [
    "ScoreUnits",
    "lowest_in_steps",
    "lowest_over_all_in_steps",
    "step_ratios",
    "still_kept",
]

ScoreUnits = Callable[[NetParameter, Caffemodel], UnitScores]
"""Scores the units of the layers in question in a net that may have lost some."""
_Choose = Callable[[NetParameter, Caffemodel], dict[str, Flags]]


def lowest_in_steps(
    net: NetParameter,
    model: Caffemodel,
    score: ScoreUnits,
    ratios: Mapping[str, float],
    steps: int = 1,
) -> dict[str, Flags]:
    """Delete the units with the lowest scores of each layer, in steps of equal size.

    Args:
        net: The network's definition.
        model: Its weights.
        score: Scores the layers in ``ratios``, and those coupled with them.
        ratios: Per layer, the share of its units that is gone after the last step.
        steps: At least 1.

    Returns:
        Of the units before the first step, per layer, shape (units,), True = kept.

    Raises:
        SurgeryError: As `choose_lowest` and `step_ratios`.
    """
    counts = unit_counts(net, model)
    shares = {
        name: step_ratios(counts.get(name, 1), ratio, steps) for name, ratio in ratios.items()
    }

    def in_step(step: int) -> _Choose:
        asked = {name: of[step] for name, of in shares.items()}
        return lambda small, weights: choose_lowest(small, weights, score(small, weights), asked)

    return _in_steps(net, model, map(in_step, range(steps)))


def lowest_over_all_in_steps(
    net: NetParameter,
    model: Caffemodel,
    score: ScoreUnits,
    layers: Sequence[str],
    ratio: float,
    steps: int = 1,
) -> dict[str, Flags]:
    """Delete the units with the lowest scores over all layers, in steps of equal size.

    Scores are divided by the mean of their layer (`by_layer_mean`): as they are, a layer with small
    or few weights would lose all of its units.

    Args:
        net: The network's definition.
        model: Its weights.
        score: Scores ``layers``, and those coupled with them.
        layers: Those to choose from.
        ratio: Share of all their units that is gone after the last step.
        steps: At least 1.

    Returns:
        As `lowest_in_steps`.

    Raises:
        SurgeryError: As `choose_lowest_over_all` and `step_ratios`.
    """
    total = units_over_all(net, model, layers)

    def in_step(share: float) -> _Choose:
        return lambda small, weights: choose_lowest_over_all(
            small, weights, by_layer_mean(score(small, weights)), share
        )

    return _in_steps(net, model, map(in_step, step_ratios(total, ratio, steps)))


def _in_steps(net: NetParameter, model: Caffemodel, steps: Iterable[_Choose]) -> dict[str, Flags]:
    kept: dict[str, Flags] = {}
    for choose in steps:
        chosen = choose(net, model)
        net, model = delete_units(net, model, chosen)
        kept = still_kept(kept, chosen)
    return kept


def step_ratios(units: int, ratio: float, steps: int) -> list[float]:
    """Return the share of what is left that goes in each of several steps of equal size.

    Args:
        units: How many there are before the first step.
        ratio: Share of these that is gone after the last one.
        steps: At least 1.

    Raises:
        SurgeryError: The ratio is out of range, or there are no steps.
    """
    if steps < 1:
        raise SurgeryError(f"units go in one step or more, not in {steps}")
    wanted = units_to_delete(units, ratio)
    gone = [round(wanted * step / steps) for step in range(steps + 1)]
    return [(after - before) / (units - before) for before, after in pairwise(gone)]


def still_kept(earlier: Mapping[str, Flags], later: Mapping[str, Flags]) -> dict[str, Flags]:
    """Return what is kept of the units before two steps.

    Args:
        earlier: Per layer, shape (units,), True = kept by the first step.
        later: Shape (units kept by it,), True = kept by the second as well; a layer that only one
            of the steps has lost no units in the other.
    """
    kept = {name: flags.copy() for name, flags in earlier.items()}
    for name, flags in later.items():
        if name in kept:
            kept[name][kept[name]] = flags
        else:
            kept[name] = flags
    return kept
