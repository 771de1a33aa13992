"""Rates per layer for one budget of parameters, multiply-accumulates or bytes, measured in turn.

As `experiments.sensitivity.suggestion`, but for connections and for units, and with what is left of
the whole net as the aim: the pruned net itself is counted, and is never over the budget. Beside it
stands the net that is pruned at one rate for all layers, within the same budget.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pycaffe_prune.engines.base import Engine
from pycaffe_prune.experiments.sensitivity.measure import Analysis, scores_of
from pycaffe_prune.experiments.sensitivity.result import (
    BudgetSuggestion,
    RatedLayer,
    RatedNet,
    SensitivityResult,
    write_sensitivity,
)
from pycaffe_prune.experiments.sensitivity.suggestion import cost_curves
from pycaffe_prune.formats.caffemodel import Caffemodel
from pycaffe_prune.pruning.budget import Quantity
from pycaffe_prune.pruning.budget_rates import (
    Amount,
    candidate_rates,
    fitted,
    one_rate,
    rates_within,
)
from pycaffe_prune.pruning.connections import apply_masks, prune_to_ratios
from pycaffe_prune.pruning.rate_amounts import (
    amount_dense,
    amount_sparse,
    connection_amount,
    unit_amount,
    whole_units,
)
from pycaffe_prune.pruning.sharing import masks_for_all, shared_blobs
from pycaffe_prune.pruning.sizes import net_size
from pycaffe_prune.pruning.units import choose_units, delete_units, mask_units

__all__ = ["suggest_within"]

_DIGITS = 6
"""Of a rate: as many as people are asked to type, so what is measured is what they get."""

Rates = Mapping[str, float]


@dataclass(frozen=True)
class _Pruned:
    """The net at some rates."""

    model: Caffemodel
    """At full size, as it is tested."""
    kept: Mapping[str, int]
    """Weights or units left in each layer."""
    amount: int


@dataclass(frozen=True)
class _Way:
    """How layers are pruned at rates, and what that leaves."""

    amount: Amount
    """Quick; of connections in bytes what is expected only."""
    said: Callable[[Rates], dict[str, float]]
    """The rates as they are said, which prune as much or almost."""
    prune: Callable[[Rates], _Pruned]


def suggest_within(
    analysis: Analysis,
    result: SensitivityResult,
    quantity: Quantity,
    wanted: float,
    engine: Engine,
) -> SensitivityResult:
    """Add a suggestion for a budget to a finished analysis.

    Args:
        analysis: From `measure.plan`.
        result: All its points.
        quantity: What the budget counts (`pruning.rate_amounts`).
        wanted: The most that may be left, or below 1 its share of what the whole net has.
        engine: What tests.

    Returns:
        The result with the suggestion, which is on disk.

    Raises:
        SurgeryError: The budget is below what the highest rates that were measured leave, or what
            it counts is not known.
        InterruptedRunError: The engine was asked to stop.
        EngineError: The engine failed.
    """
    size = net_size(analysis.net, analysis.model, analysis.inputs)
    whole = amount_dense(size, quantity)
    budget = int(wanted * whole) if wanted < 1 else int(wanted)
    found = result.budget_suggestion
    if found is not None and (found.quantity, found.budget) == (quantity, budget):
        return result
    is_of_units = analysis.settings.method == "units"
    way = (_of_units if is_of_units else _of_connections)(analysis, quantity)
    curves = cost_curves(result)
    last = {name: curve.rates[-1] for name, curve in curves.items()}
    candidates = {
        name: sorted({way.said({name: rate})[name] for rate in candidate_rates(end, curve.rates)})
        for (name, curve), end in zip(curves.items(), last.values(), strict=True)
    }

    def within(choose: Callable[[int], Rates]) -> dict[str, float]:
        return fitted(
            lambda target: way.said(choose(target)), lambda rates: way.prune(rates).amount, budget
        )

    suggested = within(lambda target: rates_within(curves, candidates, way.amount, target))
    single = within(lambda target: one_rate(last, way.amount, target))
    nets = [way.prune(rates) for rates in (suggested, single)]
    scores = list(scores_of(analysis, [net.model for net in nets], engine))
    rated = [
        RatedNet(layers=_rows(analysis, rates, net), amount=net.amount, score=score)
        for rates, net, score in zip((suggested, single), nets, scores, strict=True)
    ]
    suggestion = BudgetSuggestion(
        quantity=quantity,
        budget=budget,
        whole=whole,
        predicted_drop=sum(curve.cost(suggested[name]) for name, curve in curves.items()),
        suggested=rated[0],
        single=rated[1],
    )
    finished = result.model_copy(update={"budget_suggestion": suggestion})
    write_sensitivity(analysis.folder.result, finished)
    return finished


def _rows(analysis: Analysis, rates: Rates, net: _Pruned) -> Sequence[RatedLayer]:
    return tuple(
        RatedLayer(
            layer=layer.layer,
            size=layer.size,
            kept=net.kept[layer.layer],
            rate=rates[layer.layer],
        )
        for layer in analysis.settings.layers
    )


def _of_connections(analysis: Analysis, quantity: Quantity) -> _Way:
    net, model, inputs, places = analysis.net, analysis.model, analysis.inputs, analysis.places
    shared = shared_blobs(net)

    def prune(rates: Rates) -> _Pruned:
        own = {key: rates[name] for name, keys in places.items() for key in keys}
        _, masks = prune_to_ratios(model, own)
        pruned = apply_masks(model, masks_for_all(shared, model, masks))
        kept = {name: sum(int(masks[key].sum()) for key in keys) for name, keys in places.items()}
        return _Pruned(pruned, kept, amount_sparse(net_size(net, pruned, inputs), quantity))

    def said(rates: Rates) -> dict[str, float]:
        return {name: float(f"{rate:.{_DIGITS}g}") for name, rate in rates.items()}

    return _Way(connection_amount(net, model, places, quantity, inputs), said, prune)


def _of_units(analysis: Analysis, quantity: Quantity) -> _Way:
    net, model, inputs = analysis.net, analysis.model, analysis.inputs
    criterion = analysis.request.criterion
    counts = {layer.layer: layer.size for layer in analysis.settings.layers}

    def prune(rates: Rates) -> _Pruned:
        units = choose_units(net, model, rates, criterion=criterion)
        small = net_size(*delete_units(net, model, units), inputs)
        kept = {name: int(units[name].sum()) for name in rates}
        return _Pruned(mask_units(net, model, units), kept, amount_dense(small, quantity))

    def said(rates: Rates) -> dict[str, float]:
        whole = whole_units(counts, rates)
        return {name: float(f"{rate:.{_DIGITS}g}") for name, rate in whole.items()}

    return _Way(unit_amount(net, model, quantity, criterion, inputs), said, prune)
