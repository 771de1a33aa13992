"""Solvers and nets for the training before and after pruning; none is changed in place."""

import math
from collections.abc import Iterable, Iterator, Mapping

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.blobs import Blob
from pycaffe_prune.formats.caffe_pb2 import (
    TRAIN,
    LayerParameter,
    NetParameter,
    SolverParameter,
)
from pycaffe_prune.formats.caffemodel import BlobKey, Caffemodel
from pycaffe_prune.formats.mask import Mask, require_fitting_masks
from pycaffe_prune.formats.sharing import blob_owners
from pycaffe_prune.net.graph import NetGraph, NetState, Top, layers_in_state
from pycaffe_prune.pruning.weight_blobs import weight_blobs

__all__ = ["scaled_dropout", "training_only", "with_decay", "with_rate"]

_PENALTIES = ("L1", "L2")


def with_rate(solver: SolverParameter, share: float) -> SolverParameter:
    """Return the solver with ``share`` of its learning rate, at every iteration.

    Han et al. (2015) retrain what is left with 1/10 (LeNets) or 1/100 (AlexNet) of the rate that
    the net was trained with. Every policy of Caffe's is a multiple of ``base_lr``.

    Raises:
        SurgeryError: The share is not above 0, or not finite.
    """
    if not (math.isfinite(share) and share > 0):
        raise SurgeryError(f"a share of the learning rate is a number above 0, not {share}")
    changed = _copy(solver)
    changed.base_lr = solver.base_lr * share
    return changed


def with_decay(
    solver: SolverParameter, regularization_type: str, weight_decay: float
) -> SolverParameter:
    """Return the solver with another penalty on the weights.

    L1 takes weight_decay·sign(w) and L2 weight_decay·w off in each step, times the rate and the
    blob's ``decay_mult`` (`SGDSolver::Regularize` of `src/caffe/solvers/sgd_solver.cpp`).

    Args:
        solver: As the net was trained with.
        regularization_type: ``L1`` or ``L2``.
        weight_decay: Not negative.

    Raises:
        SurgeryError: Caffe has no such penalty.
    """
    if regularization_type not in _PENALTIES:
        raise SurgeryError(
            f"Caffe has no regularization_type '{regularization_type}'; there are: "
            f"{', '.join(_PENALTIES)}"
        )
    if not (math.isfinite(weight_decay) and weight_decay >= 0):
        raise SurgeryError(f"weight_decay is a number from 0 on, not {weight_decay}")
    changed = _copy(solver)
    changed.regularization_type = regularization_type
    changed.weight_decay = weight_decay
    return changed


def _copy(solver: SolverParameter) -> SolverParameter:
    changed = SolverParameter()
    changed.CopyFrom(solver)
    return changed


def training_only(net: NetParameter, layers: Iterable[str], model: Caffemodel) -> NetParameter:
    """Return the net in which only ``layers`` learn: the blobs of all others keep their values.

    ``lr_mult`` and ``decay_mult`` of the others' blobs are 0 (Han et al. 2015: while fully
    connected layers are retrained, convolutions are fixed, and the reverse).

    Args:
        net: To train.
        layers: Names of those that learn; their multipliers stay as they are.
        model: Tells how many blobs each layer has.

    Raises:
        SurgeryError: A layer has no weights, or shares some with one that is to be fixed.
    """
    blobs = {layer.name: len(layer.blobs) for layer in model.layers if layer.blobs}
    learning = set(layers)
    if unknown := sorted(learning - set(blobs)):
        raise SurgeryError(
            f"layer '{unknown[0]}' has no weights to train; those that have: {', '.join(blobs)}"
        )
    for (name, _), (owner, _) in blob_owners(net.layer).items():
        if (name in learning) != (owner in learning):
            raise SurgeryError(
                f"layers '{owner}' and '{name}' share weights, which Caffe trains in both or in "
                "neither; choose both"
            )
    changed = NetParameter()
    changed.CopyFrom(net)
    for layer in changed.layer:
        if layer.name in blobs and layer.name not in learning:
            while len(layer.param) < blobs[layer.name]:
                layer.param.add()
            for spec in layer.param:
                spec.lr_mult = spec.decay_mult = 0
    return changed


def scaled_dropout(
    net: NetParameter, model: Caffemodel, masks: Mapping[BlobKey, Mask]
) -> NetParameter:
    """Return the net with each ``dropout_ratio`` times √(C_r/C_o) (Han et al. 2015).

    C_o counts the connections of the layer that the dropped blob feeds, C_r those that its masks
    keep; of several layers, all together. Layers without a matrix of weights are looked through
    (ReLU, Flatten). A Dropout that feeds no connections keeps its ratio.

    Args:
        net: Whose phase TRAIN drops values.
        model: Its weights.
        masks: What was pruned; a matrix without a mask is whole.

    Raises:
        SurgeryError: A mask has another shape than its blob.
        FormatError: A masked layer is not in the model.
    """
    require_fitting_masks(model, masks)
    changed = NetParameter()
    changed.CopyFrom(net)
    held = {layer.name: layer.blobs for layer in model.layers if layer.blobs}
    graph = NetGraph(layers_in_state(changed, NetState.of(changed, TRAIN)))
    for place, layer in enumerate(graph.layers):
        if layer.type != "Dropout":
            continue
        original = left = 0
        for reader in _fed(graph, place, held):
            for index in weight_blobs(reader.type, held[reader.name]):
                size = held[reader.name][index].size
                mask = masks.get((reader.name, index))
                original += size
                left += size if mask is None else int(mask.sum())
        if original:
            layer.dropout_param.dropout_ratio *= math.sqrt(left / original)
    return changed


def _fed(
    graph: NetGraph, place: int, held: Mapping[str, tuple[Blob, ...]]
) -> Iterator[LayerParameter]:
    """The layers with connections that the tops of a layer come to, each once."""
    places = {id(layer): at for at, layer in enumerate(graph.layers)}
    waiting, seen = [place], {place}
    while waiting:
        at = waiting.pop()
        for number in range(len(graph.layers[at].top)):
            for reader in graph.readers(Top(at, number)):
                next_at = places[id(reader)]
                if next_at in seen:
                    continue
                seen.add(next_at)
                if weight_blobs(reader.type, held.get(reader.name, ())):
                    yield reader
                else:
                    waiting.append(next_at)
