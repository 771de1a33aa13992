"""Which units go: those with the lowest scores of each layer, or over all layers; at once or not.

Scores come from the weights (`weight_scores`) or from images (`criteria.entropy`), and choosing
knows nothing of where they come from.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel
from pycaffe_prune.net.channel_trace import trace_channels
from pycaffe_prune.net.channels import Channels
from pycaffe_prune.pruning.coupled import (
    Coupled,
    channels_to_delete,
    coupled_layers,
    lowest_over_all,
)
from pycaffe_prune.pruning.criteria.units import Scores, unit_criterion, units_to_delete
from pycaffe_prune.pruning.unit_weights import weights_around

__all__ = [
    "UnitScores",
    "by_layer_mean",
    "choose_lowest",
    "choose_lowest_over_all",
    "choose_units",
    "units_of",
    "units_over_all",
    "weight_scores",
]

Flags = NDArray[np.bool_]

UnitScores = Mapping[str, Scores]
"""Per layer, shape (units,), float64: the lower, the sooner the unit goes."""


def units_of(net: NetParameter, channels: Channels, name: str) -> NDArray[np.int64]:
    """Return the channels that a layer makes.

    Raises:
        SurgeryError: There is no such layer, or its type has no units.
    """
    if name in channels.units:
        return channels.units[name]
    types = {layer.name: layer.type for layer in net.layer}
    if name not in types:
        raise SurgeryError(
            f"the net has no layer '{name}'; its layers with units: {', '.join(channels.units)}"
        )
    raise SurgeryError(
        f"layer '{name}' is a {types[name]}; units are those of layers with num_output"
    )


def _require_free(net: NetParameter, channels: Channels, layers: Sequence[str]) -> None:
    for name in layers:
        ids = units_of(net, channels, name).tolist()
        if all(channel in channels.fixed for channel in ids):
            raise SurgeryError(f"layer '{name}' {channels.fixed[ids[0]]}")


def weight_scores(
    net: NetParameter, model: Caffemodel, layers: Sequence[str], *, criterion: str, seed: int = 0
) -> dict[str, Scores]:
    """Score the units of layers by the weights around them.

    Args:
        net: The network's definition.
        model: Its weights.
        layers: Which ones; those coupled with them are scored too, by the same values.
        criterion: A name in `criteria.units.UNIT_CRITERIA`.
        seed: For the criterion ``random``.

    Raises:
        SurgeryError: A layer is none whose units can be deleted, weights are not finite, or net
            and weights do not fit.
        FormatError: The caffemodel lacks a layer.
    """
    score = unit_criterion(criterion)
    channels = trace_channels(net, model)
    _require_free(net, channels, layers)
    found = {}
    for coupled in _sets(channels, layers):
        incoming, outgoing = weights_around(channels, model, coupled.layers, coupled.ids)
        scores = score(incoming, outgoing, seed)
        for name in coupled.layers:
            found[name] = scores[np.searchsorted(coupled.ids, channels.units[name])]
    return found


def by_layer_mean(scores: UnitScores) -> dict[str, Scores]:
    """Divide the scores of each layer by their mean; a layer of zeros stays as it is."""
    means = {name: float(of.mean()) for name, of in scores.items()}
    return {name: of / means[name] if means[name] else of for name, of in scores.items()}


def choose_units(
    net: NetParameter,
    model: Caffemodel,
    ratios: Mapping[str, float],
    *,
    criterion: str = "onorm",
    seed: int = 0,
) -> dict[str, Flags]:
    """Score the units of each layer once and keep all but the lowest (docs/protocol.md).

    `weight_scores` and `choose_lowest` in one; arguments, result and errors are theirs.
    """
    scores = weight_scores(net, model, list(ratios), criterion=criterion, seed=seed)
    return choose_lowest(net, model, scores, ratios)


def choose_lowest(
    net: NetParameter, model: Caffemodel, scores: UnitScores, ratios: Mapping[str, float]
) -> dict[str, Flags]:
    """Keep all units of each layer but those with the lowest scores.

    Args:
        net: The network's definition.
        model: Its weights.
        scores: Of the layers in ``ratios`` and those coupled with them; among equal scores the
            earlier unit goes first.
        ratios: Per layer, the share of its units to delete. It holds for the layers that lose
            their units together with it as well (`units_together`).

    Returns:
        Per layer, shape (units,), True = kept; layers coupled with those asked for are in it.

    Raises:
        SurgeryError: A layer is none whose units can be deleted, coupled layers have different
            ratios or scores, or net and weights do not fit.
    """
    channels = trace_channels(net, model)
    _require_free(net, channels, list(ratios))
    gone = {
        coupled.layers: channels_to_delete(
            channels, coupled, _scores_of(channels, coupled, scores), _one_ratio(coupled, ratios)
        )
        for coupled in _sets(channels, list(ratios))
    }
    return _kept(channels, gone)


def choose_lowest_over_all(
    net: NetParameter, model: Caffemodel, scores: UnitScores, ratio: float
) -> dict[str, Flags]:
    """Keep all units of all layers but those with the lowest scores, in one ranking.

    Units of coupled layers that go together count as one. Each layer keeps one at least, and
    so does each top of a Slice.

    Args:
        net: The network's definition.
        model: Its weights.
        scores: Of the layers to choose from and those coupled with them, made comparable by the
            caller (`by_layer_mean`). Among equal scores the unit of the earlier layer goes first,
            and in a layer the earlier unit.
        ratio: Share of all these units to delete.

    Returns:
        As `choose_lowest`.

    Raises:
        SurgeryError: As `choose_lowest`, or a layer takes channels in groups, or fewer can go.
    """
    channels = trace_channels(net, model)
    _require_free(net, channels, list(scores))
    sets = _sets(channels, list(scores))
    for coupled in sets:
        if coupled.groupings:
            raise SurgeryError(
                f"layer '{coupled.groupings[0].layer}' takes the units of "
                f"{', '.join(coupled.layers)} in groups, which stay equal only where they are "
                "ranked by themselves; leave them out, or rank each layer alone"
            )
    found = [_scores_of(channels, coupled, scores) for coupled in sets]
    total = sum(len(coupled.ids) for coupled in sets)
    wanted = units_to_delete(total, ratio)
    chosen = lowest_over_all(channels, sets, found, wanted)
    if len(chosen) < wanted:
        raise SurgeryError(
            f"{wanted} of {total} units cannot go, {len(chosen)} at most: each layer keeps one, "
            "and some units must stay; give a smaller ratio"
        )
    return _kept(channels, {coupled.layers: chosen for coupled in sets})


def units_over_all(net: NetParameter, model: Caffemodel, layers: Sequence[str]) -> int:
    """Return how many units `choose_lowest_over_all` chooses from, those that go together once."""
    return sum(len(coupled.ids) for coupled in _sets(trace_channels(net, model), layers))


def _sets(channels: Channels, layers: Sequence[str]) -> list[Coupled]:
    asked = set(layers)
    return [coupled for coupled in coupled_layers(channels) if asked & set(coupled.layers)]


def _kept(
    channels: Channels, gone: Mapping[tuple[str, ...], NDArray[np.int64]]
) -> dict[str, Flags]:
    kept = {
        name: ~np.isin(channels.units[name], ids) for layers, ids in gone.items() for name in layers
    }
    return {name: kept[name] for name in channels.units if name in kept}


def _scores_of(channels: Channels, coupled: Coupled, scores: UnitScores) -> Scores:
    """The score of each channel of a set, in the order of its ``ids``."""
    found = np.full(len(coupled.ids), np.nan)
    for name in coupled.layers:
        if name not in scores:
            continue
        own = scores[name]
        if own.shape != channels.units[name].shape:
            raise SurgeryError(
                f"layer '{name}' has {channels.units[name].size} units, not {own.size}"
            )
        places = np.searchsorted(coupled.ids, channels.units[name])
        before = found[places]
        others = ~np.isnan(before)
        found[places] = own
        if (before[others] != own[others]).any():
            raise SurgeryError(
                f"layers {', '.join(coupled.layers)} lose their units together, but units of "
                f"'{name}' have other scores; leave these layers out, or take another criterion"
            )
        if (found[places] != own).any():
            raise SurgeryError(
                f"layer '{name}' loses some of its units together, and they have different scores; "
                "leave it out, or take another criterion"
            )
    if np.isnan(found).any():
        raise SurgeryError(
            f"layers {', '.join(coupled.layers)} lose their units together, and some have no "
            "score; leave these layers out, or take another criterion"
        )
    return found


def _one_ratio(coupled: Coupled, ratios: Mapping[str, float]) -> float:
    asked = {name: ratios[name] for name in coupled.layers if name in ratios}
    if len(set(asked.values())) > 1:
        listed = ", ".join(f"{name} {ratio:g}" for name, ratio in asked.items())
        raise SurgeryError(
            f"layers {', '.join(coupled.layers)} lose their units together and need one ratio, "
            f"not {listed}"
        )
    return next(iter(asked.values()))
