"""Rates per layer for one budget of parameters, multiply-accumulates or bytes, measured in turn.

As `experiments.sensitivity.suggestion`, but for connections and for units, and with what is left of
the whole net as the aim (`pruning.budget_ways`). Beside it stands the net that is pruned at one
rate for all layers, within the same budget.
"""

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
from pycaffe_prune.pruning.budget import Quantity
from pycaffe_prune.pruning.budget_ways import (
    Way,
    budget_of,
    own_rates,
    same_rate,
    way_of_connections,
    way_of_units,
)

__all__ = ["suggest_within"]


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
    net, model, inputs = analysis.net, analysis.model, analysis.inputs
    budget, whole = budget_of(net, model, quantity, wanted, inputs)
    earlier = result.budget_suggestion
    if earlier is not None and (earlier.quantity, earlier.budget) == (quantity, budget):
        return result
    way, curves = _way(analysis, quantity), cost_curves(result)
    last = {name: curve.rates[-1] for name, curve in curves.items()}
    both = [own_rates(way, curves, budget), same_rate(way, last, budget)]
    nets = [way.prune(rates) for rates in both]
    scores = scores_of(analysis, [pruned.model for pruned in nets], engine)
    suggested, single = (
        RatedNet(
            layers=tuple(
                RatedLayer(
                    layer=layer.layer,
                    size=layer.size,
                    kept=pruned.kept[layer.layer],
                    rate=rates[layer.layer],
                )
                for layer in analysis.settings.layers
            ),
            amount=pruned.amount,
            score=score,
        )
        for rates, pruned, score in zip(both, nets, scores, strict=True)
    )
    suggestion = BudgetSuggestion(
        quantity=quantity,
        budget=budget,
        whole=whole,
        predicted_drop=sum(curve.cost(both[0][name]) for name, curve in curves.items()),
        suggested=suggested,
        single=single,
    )
    finished = result.model_copy(update={"budget_suggestion": suggestion})
    write_sensitivity(analysis.folder.result, finished)
    return finished


def _way(analysis: Analysis, quantity: Quantity) -> Way:
    net, model, inputs = analysis.net, analysis.model, analysis.inputs
    if analysis.settings.method == "connections":
        return way_of_connections(net, model, analysis.places, quantity, inputs)
    counts = {layer.layer: layer.size for layer in analysis.settings.layers}
    return way_of_units(net, model, counts, quantity, analysis.request.criterion, inputs)
