"""Rates per layer for one total reduction, chosen from measured curves and measured in turn.

The paper leaves this as future work: "rates per layer, choosing the final rate automatically". The
curves of `experiments.sensitivity.measure` say what each layer loses when it alone is pruned;
`pruning.allocation` shares the total out; the net pruned so is tested beside one pruned by the
paper's rule, one alpha for all layers, at the same total.
"""

from collections.abc import Mapping, Sequence

from pycaffe_prune.engines.base import Engine
from pycaffe_prune.experiments.result import Score
from pycaffe_prune.experiments.sensitivity.measure import Analysis, scores_of
from pycaffe_prune.experiments.sensitivity.result import (
    Measured,
    PrunedLayer,
    SensitivityResult,
    Suggestion,
    write_sensitivity,
)
from pycaffe_prune.formats.caffemodel import BlobKey, Caffemodel
from pycaffe_prune.formats.mask import Mask
from pycaffe_prune.pruning.allocation import CostCurve, allocate, cost_curve
from pycaffe_prune.pruning.connections import (
    alpha_for_count,
    apply_masks,
    layer_thresholds,
    prune_connections,
    prune_to_ratios,
    resulting_thresholds,
)
from pycaffe_prune.pruning.counts import masked_reduction
from pycaffe_prune.pruning.criteria.connections import sigma_of, weights_to_prune
from pycaffe_prune.pruning.sharing import masks_for_all, shared_blobs

__all__ = ["alphas_of_rates", "cost_curves", "suggest"]

Places = Mapping[str, Sequence[BlobKey]]

_DIGITS = 5
"""Of an alpha: as many as people are asked to type, so what is measured is what they get."""


def suggest(
    analysis: Analysis, result: SensitivityResult, total: float, engine: Engine
) -> SensitivityResult:
    """Add a suggestion for the total reduction ``total`` to a finished analysis of connections.

    Args:
        analysis: From `experiments.sensitivity.measure.plan`.
        result: All its points.
        total: Share of all weights of the chosen layers that shall go, 0 to 1.
        engine: What tests.

    Returns:
        The result with the suggestion, which is on disk.

    Raises:
        SurgeryError: ``total`` is beyond the highest rate that was measured.
        InterruptedRunError: The engine was asked to stop.
        EngineError: The engine failed.
    """
    if result.suggestion is not None and result.suggestion.total == total:
        return result
    model, curves = analysis.model, cost_curves(result)
    rates = allocate(curves, total)
    places = analysis.places
    own = alphas_of_rates(model, rates, places)
    own_masks = _masks(model, own, places)
    gone = sum(mask.size - int(mask.sum()) for mask in own_masks.values())
    keys = [key for name in rates for key in places[name]]
    single = dict.fromkeys(rates, _rounded(alpha_for_count(model, keys, gone)))
    single_masks = _masks(model, single, places)
    shared = shared_blobs(analysis.net)
    pruned = [
        apply_masks(model, masks_for_all(shared, model, masks))
        for masks in (own_masks, single_masks)
    ]
    own_score, single_score = scores_of(analysis, pruned, engine)
    suggestion = Suggestion(
        total=total,
        predicted_drop=sum(curve.cost(rates[name]) for name, curve in curves.items()),
        suggested=_measured(own, own_masks, own_score),
        single=_measured(single, single_masks, single_score),
    )
    finished = result.model_copy(update={"suggestion": suggestion})
    write_sensitivity(analysis.folder.result, finished)
    return finished


def cost_curves(result: SensitivityResult) -> dict[str, CostCurve]:
    """Return what pruning each layer costs in accuracy, as a share of the test images."""
    right = float(result.baseline.share)
    curves = {}
    for layer in result.settings.layers:
        points = result.curve(layer.layer)
        drops = [right - float(point.score.share) for point in points]
        curves[layer.layer] = cost_curve(layer.size, [point.rate for point in points], drops)
    return curves


def alphas_of_rates(
    model: Caffemodel, rates: Mapping[str, float], places: Places
) -> dict[str, float]:
    """Return the alpha of each layer that prunes its rate, to five digits.

    0 where the rate prunes nothing, or where all weights are equal and no alpha can prune some. One
    for all matrices of a layer, of which together it prunes the rate.

    Args:
        model: The weights.
        rates: Of each layer.
        places: The matrices of each layer.
    """
    return {name: _rounded(_alpha(model, rate, places[name])) for name, rate in rates.items()}


def _alpha(model: Caffemodel, rate: float, keys: Sequence[BlobKey]) -> float:
    if len(keys) > 1:
        count = weights_to_prune(sum(model.layer(name).blobs[at].size for name, at in keys), rate)
        return alpha_for_count(model, keys, count) if count else 0.0
    ((name, index),) = keys
    _, masks = prune_to_ratios(model, {(name, index): rate})
    sigma = sigma_of(model.layer(name).blobs[index])
    if not sigma or masks[name, index].all():
        return 0.0
    return resulting_thresholds(model, masks)[name, index] / sigma


def _rounded(alpha: float) -> float:
    return float(f"{alpha:.{_DIGITS}g}")


def _masks(model: Caffemodel, alphas: Mapping[str, float], places: Places) -> dict[BlobKey, Mask]:
    each = {key: alpha for name, alpha in alphas.items() for key in places[name]}
    return prune_connections(model, layer_thresholds(model, model, each))[1]


def _measured(alphas: Mapping[str, float], masks: Mapping[BlobKey, Mask], score: Score) -> Measured:
    layers = tuple(
        PrunedLayer(layer=row.layer, weights=row.weights, kept=row.kept, alpha=alphas[row.layer])
        for row in masked_reduction(masks)
    )
    return Measured(layers=layers, score=score)
