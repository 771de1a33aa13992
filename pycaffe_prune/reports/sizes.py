"""What every network of a result costs: parameters, multiply-accumulates, and bytes stored.

Nothing but the result and the net's prototxt is read: a pruned layer's count is in the result, and
all else follows from the shapes.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

from pydantic import ValidationError

from pycaffe_prune.engines.solver_nets import net_of_solver
from pycaffe_prune.errors import PruneError, SurgeryError
from pycaffe_prune.experiments.result import ExperimentResult, Point
from pycaffe_prune.experiments.spec import NetSpec
from pycaffe_prune.formats.caffe_pb2 import TEST, NetParameter
from pycaffe_prune.formats.prototxt import read_net
from pycaffe_prune.formats.sparse import expected_bytes
from pycaffe_prune.net.counts import LayerCounts, count_layers
from pycaffe_prune.net.graph import NetState, layers_in_state
from pycaffe_prune.net.widths import with_widths
from pycaffe_prune.pruning.sizes import NetSize
from pycaffe_prune.reports.once import once
from pycaffe_prune.reports.paper.compare import accuracy_of
from pycaffe_prune.reports.rows import parameter, percent, reduction
from pycaffe_prune.share import share_root

__all__ = ["Cost", "SizeRow", "layer_counts", "net_of", "size_rows"]

_VALUE = 4  # bytes of a float32


@dataclass(frozen=True)
class Cost:
    """What a network takes. All layers count, the convolutions too."""

    parameters: int
    """Weights and biases that are not pruned."""
    macs: int
    """Multiply-accumulates for one image with those; needs arithmetic that leaves zeros out."""
    dense_macs: int
    """As Caffe does them: a pruned connection is multiplied all the same."""
    dense_bytes: int
    """Values of the caffemodel, 4 bytes each; pruned connections are stored zeros."""
    sparse_bytes: int
    """Values and gaps of the sparse form (`expected_bytes`)."""


@dataclass(frozen=True)
class SizeRow:
    """The selected network of a shape or alpha, and what other seeds of it reached; in %."""

    method: str
    name: str
    """The method's title."""
    parameter: str
    reduction: float
    accuracy: float
    lowest: float
    """Of all seeds that were run."""
    highest: float
    seeds: int
    cost: Cost


@once
def size_rows(result: ExperimentResult) -> Sequence[SizeRow]:
    """Return a row for every selected point: by method, by rising reduction.

    Empty when the net's definition is not among the toolkit's files or is not the result's net.
    """
    net = net_of(result)
    if net is None:
        return []
    found: list[SizeRow] = []
    counted: dict[frozenset[tuple[str, int]], dict[str, LayerCounts] | None] = {}
    alike = _by_setting(result)
    for record in result.methods:
        for point in result.select(record.name):
            shape = frozenset((point.units or {}).items())
            if shape not in counted:
                counted[shape] = layer_counts(net, point.units or {})
            counts = counted[shape]
            if counts is None or not _fits(point, counts):
                return []
            cost = _cost(point, counts)
            if cost is None:
                return []
            found.append(_row(record.title, point, alike[_setting(point)], cost))
    return found


_Setting = tuple[str, str, frozenset[tuple[str, int]] | None]


def _setting(point: Point) -> _Setting:
    units = None if point.units is None else frozenset(point.units.items())
    return point.method, point.setting.text, units


def _by_setting(result: ExperimentResult) -> Mapping[_Setting, Sequence[float]]:
    """The accuracies in % of all seeds of each setting."""
    found: dict[_Setting, list[float]] = defaultdict(list)
    for point in result.points:
        found[_setting(point)].append(percent(accuracy_of(point)))
    return found


def net_of(result: ExperimentResult) -> NetParameter | None:
    """Return the ``deploy.prototxt`` beside the solver's net; None where there is none."""
    solver = result.settings.get("solver")
    if not isinstance(solver, str):
        return None
    try:
        net = _deploy(share_root() / solver)
        return with_widths(net, NetSpec.model_validate(result.settings.get("net", {})).units)
    except (PruneError, ValidationError):
        return None  # a solver of the user's own; the page says that sizes are not known


@lru_cache(maxsize=16)
def _deploy(solver: Path) -> NetParameter:
    return read_net(net_of_solver(solver).with_name("deploy.prototxt"))


def layer_counts(
    net: NetParameter, units: Mapping[str, int] | None = None
) -> dict[str, LayerCounts] | None:
    """Return the counts of layers with parameters; None when a shape or layer is not known."""
    try:
        counted = with_widths(net, units or {})
    except SurgeryError:
        return None
    counts = count_layers(layers_in_state(counted, NetState.of(counted, TEST)))
    if any(layer.problem is not None for layer in counts):
        return None
    return {layer.name: layer for layer in counts if layer.params}


def _fits(point: Point, counts: Mapping[str, LayerCounts]) -> bool:
    """Whether the counts are those of the point's net: a TOML file may name another."""
    for row in point.rounds[-1].layers:
        if row.layer not in counts:
            return False
        expected = row.kept if point.units is not None else row.weights
        if counts[row.layer].weights != expected:
            return False
    return True


def _cost(point: Point, counts: Mapping[str, LayerCounts]) -> Cost | None:
    """What the point's net takes; None: it has other layers, and was not measured whole."""
    stored = sum(layer.weights + layer.biases + layer.statistics for layer in counts.values())
    if point.sizes is not None and point.sizes.whole.parameters != stored:
        return _measured(point.sizes.whole)
    kept = {row.layer: row.kept for row in point.rounds[-1].layers}
    parameters = macs = sparse = 0
    for name, layer in counts.items():
        rest = layer.biases + layer.statistics
        left = kept.get(name, layer.weights)
        parameters += left + rest
        macs += (layer.macs or 0) * left // max(1, layer.weights)
        sparse += expected_bytes(layer.weights, left) + _VALUE * rest
    return Cost(
        parameters=parameters,
        macs=macs,
        dense_macs=sum(layer.macs or 0 for layer in counts.values()),
        dense_bytes=_VALUE * stored,
        sparse_bytes=sparse,
    )


def _measured(size: NetSize) -> Cost | None:
    """What a net of other layers than the whole one takes (two factors in the place of a layer)."""
    if size.macs is None or size.non_zero_macs is None:
        return None
    return Cost(
        parameters=size.kept_parameters,
        macs=size.non_zero_macs,
        dense_macs=size.macs,
        dense_bytes=_VALUE * size.parameters,
        sparse_bytes=size.stored_bytes["sparse"],
    )


def _row(name: str, point: Point, alike: Sequence[float], cost: Cost) -> SizeRow:
    rate: Fraction = reduction(point)
    return SizeRow(
        method=point.method,
        name=name,
        parameter=parameter(point),
        reduction=percent(rate),
        accuracy=percent(accuracy_of(point)),
        lowest=min(alike),
        highest=max(alike),
        seeds=len(alike),
        cost=cost,
    )
