"""Several runs of one network at once: their blobs stacked, one call for all of them.

`stacked` does so by hand for chains of InnerProducts on a CPU, what is here for other nets.

A small network leaves a GPU idle: each kernel is over before the next is launched. Stacked, the
kernels of all runs are one (`torch.func.vmap`). Runs whose layers have fewer units are padded with
units whose weights are zero and stay so; what they compute is theirs alone, to rounding.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from google.protobuf import text_format
from torch import Tensor
from torch.func import grad, vmap

from pycaffe_prune.engines.torch.net import Net
from pycaffe_prune.engines.torch.parameters import Parameters
from pycaffe_prune.engines.torch.pure_loss import pure_loss
from pycaffe_prune.engines.torch.solver import Solver
from pycaffe_prune.engines.torch.stacked import StackedPack, can_be_stacked, is_sparse
from pycaffe_prune.engines.torch.stepping import Stepping
from pycaffe_prune.engines.torch.update import ALL_BITS
from pycaffe_prune.engines.torch.updates import make_update
from pycaffe_prune.formats.caffe_pb2 import (
    TRAIN,
    ConvolutionParameter,
    InnerProductParameter,
    LayerParameter,
    NetParameter,
)
from pycaffe_prune.net.graph import NetGraph, NetState, layers_in_state

__all__ = ["Pack", "Rendezvous", "make_pack", "pack_key"]

_Corner = tuple[Tensor, Tensor]
_WITH_UNITS = ("Convolution", "InnerProduct")
_PADDABLE = frozenset(
    {"Accuracy", "Data", "Convolution", "InnerProduct", "LRN", "Pooling", "ReLU"}
    | {"Sigmoid", "SoftmaxWithLoss", "TanH"}
)
"""Layers that compute the same for the units that are there when more of zeros follow them."""
_APART = frozenset({"BatchNorm", "Filter", "HDF5Output", "LSTM", "RNN"})
"""Layers that keep something beside weights, make a batch of any size, or write a file."""


def pack_key(solver: Solver) -> str | None:
    """Return what runs must have in common to be stepped together; None where a run cannot be.

    On a CPU runs of a chain of InnerProducts (`stacked`) have all in common but seeds and masks.
    For others see `_vmap_key`.
    """
    if not can_be_stacked(solver):
        return _vmap_key(solver)
    net = NetParameter(layer=layers_in_state(solver.net.definition, NetState(TRAIN)))
    told = _common_text(solver, net)
    return "\n".join(["stacked", str(is_sparse(solver)), told])


def make_pack(solvers: Sequence[Solver]) -> "Pack | StackedPack":
    """Bring solvers of equal `pack_key` together."""
    return StackedPack(solvers) if can_be_stacked(solvers[0]) else Pack(solvers)


def _vmap_key(solver: Solver) -> str | None:
    """What runs must have in common to be batched by `torch.func.vmap`.

    That is the solver but for its seed, the iteration, and the net but for the units of layers
    whose tops another layer with weights reads. A run cannot be packed when a layer draws random
    numbers, keeps statistics or hidden states, picks images (Filter), writes a file or may
    overwrite the gradient of a pass before in an iteration (Scale), when its masks change, weights
    are tied, its snapshots hold gradients, a teacher has part in its loss, or its data layer does
    not bring every run the same batches.
    """
    layers = layers_in_state(solver.net.definition, NetState(TRAIN))
    if (
        solver.moving
        or solver.teacher
        or solver.tied
        or solver.param.snapshot_diff
        or solver.net.draws
        or any(not _is_the_same_for_all(layer) for layer in layers)
    ):
        return None
    if solver.param.iter_size > 1 and any(layer.type == "Scale" for layer in layers):
        return None
    net = NetParameter(layer=layers)
    if _are_paddable(layers):
        for place in _hidden(layers):
            _units(net.layer[place]).num_output = 1
    return _common_text(solver, net)


def _common_text(solver: Solver, net: NetParameter) -> str:
    param = type(solver.param)()
    param.CopyFrom(solver.param)
    for name in ("net", "random_seed", "snapshot_prefix", "display", "max_iter"):
        if name != "max_iter" or param.lr_policy != "poly":
            param.ClearField(name)
    texts = [text_format.MessageToString(message) for message in (param, net)]
    return "\n".join([*texts, str(solver.iter), str(solver.net.device)])


def _is_the_same_for_all(layer: LayerParameter) -> bool:
    if layer.bottom:
        return layer.type not in _APART
    transform = layer.transform_param
    return layer.type == "Data" and not transform.mirror and not transform.crop_size


def _are_paddable(layers: Sequence[LayerParameter]) -> bool:
    kinds = {layer.type for layer in layers}
    # A Sigmoid makes 0.5 of a unit of zeros, which LRN adds up with its neighbours.
    return (
        kinds <= _PADDABLE
        and not {"Sigmoid", "LRN"} <= kinds
        and not any(layer.convolution_param.group > 1 for layer in layers)
    )


def _hidden(layers: Sequence[LayerParameter]) -> list[int]:
    """Places of the layers with units of which there may be more: no loss reads them directly."""
    graph = NetGraph(layers)
    judged: set[int] = set()
    for place in reversed(range(len(layers))):
        layer = layers[place]
        if layer.type == "SoftmaxWithLoss" or (place in judged and layer.type not in _WITH_UNITS):
            judged.update(top.layer for top in graph.bottoms[place] if top is not None)
    return [
        place
        for place, layer in enumerate(layers)
        if layer.type in _WITH_UNITS and place not in judged
    ]


def _units(layer: LayerParameter) -> ConvolutionParameter | InnerProductParameter:
    return layer.convolution_param if layer.type == "Convolution" else layer.inner_product_param


def _widest(definitions: Sequence[NetParameter]) -> NetParameter:
    """The training net that every one of these nets is a corner of."""
    each = [layers_in_state(net, NetState(TRAIN)) for net in definitions]
    widest = NetParameter(name=definitions[0].name)
    for versions in zip(*each, strict=True):
        layer = widest.layer.add()
        layer.CopyFrom(versions[0])
        if layer.type in _WITH_UNITS:
            _units(layer).num_output = max(_units(version).num_output for version in versions)
    return widest


class Pack:
    """Solvers of equal `pack_key` that go on step by step together.

    What they hold is taken over when the pack is made, and given back at the end of each `step`.

    Args:
        solvers: At least one.
    """

    def __init__(self, solvers: Sequence[Solver]) -> None:
        first = solvers[0]
        self._solvers = tuple(solvers)
        self._net = Net(
            _widest([solver.net.definition for solver in solvers]),
            NetState(TRAIN),
            first.net.device,
        )
        blobs = self._net.parameters.blobs
        self._parameters = Parameters(blobs, first.net.device, runs=len(solvers))
        data, diff = self._parameters.data, self._parameters.diff
        self._update = make_update(first.param, self._parameters.groups, data, diff)
        self._values = {blob.key: self._parameters.view(data, blob.key) for blob in blobs}
        self._diffs = {
            # The others have no gradients in a run alone: none to clip by, none in the history.
            blob.key: self._parameters.view(diff, blob.key)
            for blob in blobs
            if blob.lr_mult
        }
        self._losses: list[Tensor] = []
        self._gradients = vmap(grad(partial(pure_loss, self._net), has_aux=True), in_dims=(0, None))
        self._stepping = Stepping(first.param, self._net, self._add_gradients, self._update.apply)
        self._take()

    def step(self, iterations: int) -> None:
        """Run so many iterations of every run.

        Raises:
            DataError: The data are damaged.
        """
        self._stepping.run(iterations)
        self._give()

    def close(self) -> None:
        """Let go of the data; the solvers keep theirs."""
        self._net.close()

    def _add_gradients(self) -> None:
        gradients, self._losses = self._gradients(self._values, self._net.batch)
        for key, diff in self._diffs.items():
            diff.add_(gradients[key])

    def _corners(self, flat: Tensor, own: Callable[[Solver], Tensor]) -> Iterator[_Corner]:
        """The part of a stacked flat tensor that belongs to each blob of each run, and the blob."""
        for run, solver in enumerate(self._solvers):
            parameters = solver.net.parameters
            for blob in parameters.blobs:
                stacked = self._parameters.view(flat, blob.key)[run]
                corner = stacked[tuple(slice(extent) for extent in blob.shape)]
                yield corner, parameters.view(own(solver), blob.key)

    def _pairs(self) -> Iterator[_Corner]:
        yield from self._corners(self._parameters.data, lambda solver: solver.net.parameters.data)
        for number, flat in enumerate(self._update.history):
            yield from self._corners(flat, partial(_history, number))

    @torch.no_grad()
    def _take(self) -> None:
        first = self._solvers[0]
        self._stepping.iteration = first.iter
        self._stepping.policy.current_step = first.stepping.policy.current_step
        self._net.seek(first.iter * first.param.iter_size)
        for corner, blob in self._pairs():
            corner.copy_(blob)
        kept = self._parameters.zeros().view(torch.int32)
        for corner, bits in self._corners(kept, _kept_bits):
            corner.copy_(bits)
        self._update.keep(kept)

    @torch.no_grad()
    def _give(self) -> None:
        for corner, blob in self._pairs():
            blob.copy_(corner)
        for run, solver in enumerate(self._solvers):
            solver.stepping.iteration = self._stepping.iteration
            solver.stepping.policy.current_step = self._stepping.policy.current_step
            solver.net.seek(solver.iter * solver.param.iter_size)
            for name, losses in zip(self._net.loss_blobs, self._losses, strict=True):
                solver.net.use_value(name, losses[run])


def _history(number: int, solver: Solver) -> Tensor:
    return solver.update.history[number]


def _kept_bits(solver: Solver) -> Tensor:
    if solver.masks:
        return solver.masks.bits
    return torch.full_like(solver.net.parameters.data, ALL_BITS, dtype=torch.int32)


class Rendezvous:
    """Lets runs in threads of their own step together: each waits for all the others.

    Every run asks for iterations through `of`; when all that have not left have asked, the least
    number asked for is run by all. A run that is done or has failed leaves.

    Args:
        solvers: Of equal `pack_key`.
    """

    def __init__(self, solvers: Sequence[Solver]) -> None:
        self._members = list(solvers)
        self._asked: dict[int, int] = {}
        self._pack: Pack | StackedPack | None = None
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    def is_for(self, solver: Solver) -> bool:
        """Whether this solver is a member."""
        return any(member is solver for member in self._members)

    @contextmanager
    def of(self, solver: Solver) -> Iterator[Callable[[int], None]]:
        """Yield what runs so many iterations of one run; at the end the others go on without it.

        Raises:
            DataError: The data are damaged: for all.
        """
        try:
            yield partial(self._step, solver)
        finally:
            with self._changed:
                self._members.remove(solver)
                self._asked.pop(id(solver), None)
                if self._pack is not None:
                    self._pack.close()
                    self._pack = None
                self._step_if_all_asked()

    def _step(self, solver: Solver, iterations: int) -> None:
        end = solver.iter + iterations
        while solver.iter < end:
            with self._changed:
                self._asked[id(solver)] = end - solver.iter
                self._step_if_all_asked()
                while id(solver) in self._asked and self._error is None:
                    self._changed.wait()
                if self._error is not None:
                    raise self._error

    def _step_if_all_asked(self) -> None:
        if len(self._asked) < len(self._members) or not self._members:
            return
        try:
            self._pack = self._pack or make_pack(self._members)
            self._pack.step(min(self._asked.values()))
        except BaseException as error:  # noqa: BLE001  (every thread that waits must hear of it)
            self._error = error
        self._asked.clear()
        self._changed.notify_all()
