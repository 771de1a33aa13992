"""The masks that ``caffe-prune prune connections`` writes, by each of its ways to choose them."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from pycaffe_prune.engines.choice import EngineWish, decide
from pycaffe_prune.engines.curvature import CurvatureRequest
from pycaffe_prune.formats.blobs import Blob
from pycaffe_prune.formats.caffemodel import BlobKey, Caffemodel
from pycaffe_prune.formats.mask import Mask
from pycaffe_prune.pruning.connections import (
    SigmaRule,
    global_thresholds,
    layer_thresholds,
    prune_connections,
    prune_to_global_ratio,
    prune_to_ratios,
    resulting_thresholds,
)
from pycaffe_prune.pruning.counts import require_finite
from pycaffe_prune.pruning.criteria.connection_scores import (
    connection_scores,
    loss_increase,
    with_slope,
)
from pycaffe_prune.screen import echo

__all__ = [
    "GLOBAL",
    "LAYER",
    "Pruned",
    "by_alpha",
    "by_curvature",
    "by_random",
    "by_ratio",
    "of_zeros",
]

LAYER, GLOBAL = "layer", "global"
"""One threshold or ratio for each layer, or one for all together."""


@dataclass(frozen=True)
class Pruned:
    """The masks, and what the mask file says about them."""

    masks: Mapping[BlobKey, Mask]
    criterion: str
    limits: Mapping[BlobKey, float]
    parameters: Mapping[str, Any]


def by_alpha(
    original: Caffemodel,
    model: Caffemodel,
    alphas: Mapping[BlobKey, float],
    scope: str,
    rule: SigmaRule,
    earlier: Mapping[BlobKey, Mask],
) -> Pruned:
    """Prune by the paper's rule, |w| < alpha * sigma."""
    if scope == GLOBAL:
        (alpha,) = set(alphas.values())
        limits = global_thresholds(original, model, alpha, alphas, masks=earlier, rule=rule)
    else:
        limits = layer_thresholds(original, model, alphas, masks=earlier, rule=rule)
    _, masks = prune_connections(model, limits, earlier)
    parameters = {"alpha": _one_or_each(alphas), "sigma": rule.value}
    return Pruned(masks, "threshold", limits, parameters)


def by_ratio(
    model: Caffemodel,
    ratios: Mapping[BlobKey, float],
    scope: str,
    earlier: Mapping[BlobKey, Mask],
) -> Pruned:
    """Prune the shares ``ratios``, the lowest |w| first."""
    masks = _ranked(model, ratios, scope, earlier, None)
    limits = resulting_thresholds(model, {key: masks[key] for key in ratios})
    if scope == GLOBAL:
        limits = dict.fromkeys(limits, min(limits.values()))
    return Pruned(masks, "ratio", limits, {"ratio": _one_or_each(ratios)})


def by_random(
    model: Caffemodel,
    ratios: Mapping[BlobKey, float],
    scope: str,
    earlier: Mapping[BlobKey, Mask],
    seed: int,
) -> Pruned:
    """Prune the shares ``ratios``, drawn by lot."""
    scores = connection_scores("random", _weights(model, ratios), seed=seed)
    masks = _ranked(model, ratios, scope, earlier, scores)
    return Pruned(masks, "random", {}, {"ratio": _one_or_each(ratios), "seed": seed})


def by_curvature(
    method: str,
    ratios: Mapping[BlobKey, float],
    scope: str,
    earlier: Mapping[BlobKey, Mask],
    measure: CurvatureRequest,
    weight_decay: float,
) -> Pruned:
    """Prune the shares ``ratios``, first those that the loss rises by least (``obd``, ``fisher``).

    Says by how much it rises, to second order, on the images that are measured.

    Raises:
        PruneError: As `engines.curvature.measured_curvature`; EngineError too without PyTorch.
    """
    model = measure.model
    weights = _weights(model, ratios)
    curvature = with_slope(_measured(measure), weight_decay)
    scores = connection_scores(method, weights, curvature=curvature)
    masks = _ranked(model, ratios, scope, earlier, scores)
    rise = sum(loss_increase(weights[key], curvature[key], masks[key]) for key in ratios)
    echo(f"the loss rises by {rise:.4g}, to second order, on {measure.batches} training batches")
    told = {"ratio": _one_or_each(ratios), "batches": measure.batches}
    return Pruned(masks, method, {}, told | {"weight_decay": weight_decay})


def _measured(request: CurvatureRequest) -> dict[BlobKey, Blob]:
    decide(EngineWish("torch", device=request.device))  # says how to get PyTorch
    # Here, not above: other methods need no engine, which takes time to load.
    from pycaffe_prune.engines.torch.engine import TorchEngine

    with closing(TorchEngine()) as engine:
        return engine.curvature(request)


def _weights(model: Caffemodel, keys: Iterable[BlobKey]) -> dict[BlobKey, Blob]:
    return {(name, index): model.layer(name).blobs[index] for name, index in keys}


def _ranked(
    model: Caffemodel,
    ratios: Mapping[BlobKey, float],
    scope: str,
    earlier: Mapping[BlobKey, Mask],
    scores: Mapping[BlobKey, Blob] | None,
) -> dict[BlobKey, Mask]:
    if scope == GLOBAL:
        (ratio,) = set(ratios.values())
        return prune_to_global_ratio(model, ratio, ratios, earlier, scores)[1]
    return prune_to_ratios(model, ratios, earlier, scores)[1]


def of_zeros(model: Caffemodel, keys: Sequence[BlobKey], earlier: Mapping[BlobKey, Mask]) -> Pruned:
    """Mask the weights that are zero already."""
    require_finite(model, dict.fromkeys(name for name, _ in keys))
    masks = dict(earlier)
    for key in keys:
        kept = model.layer(key[0]).blobs[key[1]] != 0
        masks[key] = kept & masks.get(key, kept)
    return Pruned(masks, "zeros", {}, {})


def _one_or_each(values: Mapping[BlobKey, float]) -> float | dict[str, float]:
    """The value, where all layers have the same, else each layer's."""
    of_layers = {name: value for (name, _), value in values.items()}
    different = set(of_layers.values())
    return different.pop() if len(different) == 1 else of_layers
