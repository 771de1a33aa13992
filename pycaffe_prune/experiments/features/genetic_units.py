"""Units by a genetic search: the set with which the net is right on the most held-out images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.engines.base import Engine
from pycaffe_prune.engines.test_plan import TestPlan, plan_test
from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.experiments.features.net_outputs import net_outputs
from pycaffe_prune.experiments.features.training_images import TrainingImages
from pycaffe_prune.formats.caffe_pb2 import TEST, TRAIN, NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel
from pycaffe_prune.net.graph import NetState, layers_in_state
from pycaffe_prune.pruning.counts import require_finite
from pycaffe_prune.pruning.criteria.units import units_to_delete
from pycaffe_prune.pruning.dense_chain import DenseChain, dense_chain
from pycaffe_prune.pruning.genetic import Evolved, GeneticSearch, Pool, evolve
from pycaffe_prune.pruning.unit_choice import (
    by_layer_mean,
    choose_lowest,
    choose_lowest_over_all,
    weight_scores,
)
from pycaffe_prune.pruning.units import unit_counts, units_together

__all__ = ["GeneticChoice", "Shares", "genetic_units"]

Flags = NDArray[np.bool_]

Shares = Mapping[str, float] | float
"""Share of the units to delete: of each layer, or of all layers together."""

_BEGINNINGS = ("onorm", "inorm", "l2", "geometric-median")


@dataclass(frozen=True)
class GeneticChoice:
    """What a search has chosen."""

    kept: dict[str, Flags]
    evolved: Evolved
    images: int
    """Those that it was judged by."""


def genetic_units(
    net: NetParameter,
    net_path: Path,
    model: Caffemodel,
    layers: Sequence[str],
    shares: Shares,
    images: TrainingImages,
    held_out: range,
    engine: Engine,
    *,
    search: GeneticSearch,
    seed: int,
    trust: bool = False,
) -> GeneticChoice:
    """Search for the units to keep by the accuracy of the smaller net on training images.

    The search begins with what the rankings by weights would keep, and with random sets.

    Args:
        net: In the V2 form.
        net_path: Where it was read from, for sentences.
        model: Its weights.
        layers: Of the fully connected end of the net (`pruning.dense_chain`).
        shares: How many of their units go.
        images: The images that the net is trained on.
        held_out: Those of them that sets of units are judged by.
        engine: What runs them through the net up to the first of ``layers``.
        search: How long and how widely.
        seed: Of the search.
        trust: Whether the net is the user's own, and may run code (`net.trust`).

    Raises:
        EngineError: The engine failed.
        FormatError: As `net_outputs`.
        SurgeryError: The layers are not of that end of the net, their units go together with
            others, or too many are to go; or as `net_outputs`.
    """
    plan = _plan(net, net_path)
    chain = dense_chain(net, model, layers, plan.scores)
    require_finite(model, dict.fromkeys([chain.first, *(layer.name for layer in chain.rest)]))
    ordered = [name for name in chain.hidden if name in layers]
    _require_alone(net, model, ordered)
    counts = unit_counts(net, model)
    pools = _pools({name: counts[name] for name in ordered}, shares)
    beginnings = [_beginning(net, model, ordered, shares, criterion) for criterion in _BEGINNINGS]
    units, labels = _first_units(net, net_path, model, chain, images, held_out, engine, trust=trust)
    classes = len(chain.rest[-1].bias)
    if labels.max(initial=0) >= classes:
        raise SurgeryError(
            f"the images have labels up to {labels.max()}, the net {classes} classes"
        )
    known = labels != (-1 if plan.ignore_label is None else plan.ignore_label)
    units, labels = np.ascontiguousarray(units[known].T), labels[known]

    def accuracy(kept: Flags) -> float:
        scores = chain.scores(units, _by_layer(kept, ordered, counts))
        return float(_right(scores, labels, plan.top_k).mean())

    evolved = evolve(
        pools,
        [np.concatenate([kept[name] for name in ordered]) for kept in beginnings],
        accuracy,
        search,
        seed,
    )
    return GeneticChoice(_by_layer(evolved.kept, ordered, counts), evolved, len(labels))


def _plan(net: NetParameter, net_path: Path) -> TestPlan:
    test, train = (layers_in_state(net, NetState.of(net, phase)) for phase in (TEST, TRAIN))
    plan = plan_test(test, train=train)
    if plan is None:
        raise SurgeryError(f"{net_path}: has no Accuracy or SoftmaxWithLoss layer to judge it by")
    if plan.axis != 1:
        raise SurgeryError(
            f"{net_path}: layer '{plan.layer}' looks for classes along axis {plan.axis}; a genetic "
            "search looks along axis 1"
        )
    return plan


def _require_alone(net: NetParameter, model: Caffemodel, layers: Sequence[str]) -> None:
    for group in units_together(net, model):
        if len(group) > 1 and set(group) & set(layers):
            raise SurgeryError(
                f"layers {', '.join(group)} lose their units together, which a genetic search does "
                "not follow; leave them out"
            )


def _pools(counts: Mapping[str, int], shares: Shares) -> list[Pool]:
    if isinstance(shares, float):
        sizes = tuple(counts.values())
        return [Pool(sizes, units_to_delete(sum(sizes), shares))]
    return [Pool((count,), units_to_delete(count, shares[name])) for name, count in counts.items()]


def _beginning(
    net: NetParameter, model: Caffemodel, layers: Sequence[str], shares: Shares, criterion: str
) -> dict[str, Flags]:
    scores = weight_scores(net, model, layers, criterion=criterion)
    if isinstance(shares, float):
        return choose_lowest_over_all(net, model, by_layer_mean(scores), shares)
    return choose_lowest(net, model, scores, shares)


def _by_layer(kept: Flags, layers: Sequence[str], counts: Mapping[str, int]) -> dict[str, Flags]:
    ends = np.cumsum([counts[name] for name in layers])[:-1]
    return dict(zip(layers, np.split(kept, ends), strict=True))


def _right(scores: NDArray[np.float32], labels: NDArray[np.int64], top_k: int) -> NDArray[np.bool_]:
    """Which images are answered right: as Caffe, with equal scores against it."""
    own = scores[labels, np.arange(len(labels))]
    return np.asarray((scores >= own).sum(axis=0) <= top_k)


def _first_units(
    net: NetParameter,
    net_path: Path,
    model: Caffemodel,
    chain: DenseChain,
    images: TrainingImages,
    held_out: range,
    engine: Engine,
    *,
    trust: bool,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """What the first layer of the chain puts out for the images, and their labels."""
    cut, blob = _cut_behind(net, chain.activated)
    parts, labels = [], []
    outputs = net_outputs(cut, net_path, model, [blob], images, held_out, engine, trust=trust)
    for (found,), of in outputs:
        parts.append(found.reshape(len(found), -1))
        labels.append(of)
    return np.concatenate(parts), np.concatenate(labels)


def _cut_behind(net: NetParameter, name: str) -> tuple[NetParameter, str]:
    """The TEST net up to a layer, whose blob later layers may write over."""
    cut = NetParameter(name=net.name)
    cut.state.CopyFrom(net.state)
    for layer in layers_in_state(net, NetState.of(net, TEST)):
        cut.layer.add().CopyFrom(layer)
        if layer.name == name:
            break
    return cut, cut.layer[-1].top[0]
