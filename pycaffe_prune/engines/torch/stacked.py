"""Several runs of one chain of InnerProducts on a CPU, step by step together.

Most of an iteration of a small net is the calls themselves, and most of one of a pruned net is
zeros. Here the runs share the data and the calls, and where few weights are left, only these are
computed. A run ends with the same bits whichever others go with it, none included.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pycaffe_prune.engines.torch.build import Step
from pycaffe_prune.engines.torch.chains import is_chain, steps_plainly
from pycaffe_prune.engines.torch.layers.inner_product import InnerProduct
from pycaffe_prune.engines.torch.solver import Solver
from pycaffe_prune.engines.torch.stacked_layers import (
    DenseProducts,
    Inner,
    Pattern,
    SoftmaxLosses,
    SparseProducts,
    StackedActivation,
)
from pycaffe_prune.engines.torch.stepping import Stepping
from pycaffe_prune.engines.torch.update import ALL_BITS, ParamGroup
from pycaffe_prune.engines.torch.updates import make_update
from pycaffe_prune.formats.caffe_pb2 import TRAIN
from pycaffe_prune.formats.caffemodel import BlobKey
from pycaffe_prune.formats.mask import Mask
from pycaffe_prune.net.graph import NetState, layers_in_state

__all__ = ["StackedPack", "can_be_stacked", "is_sparse"]

_SPARSE = 0.2
"""Of the weights, up to which only those that are kept are computed.

On LeNet-300-100 one takes 9 ns, passes and update together, and each weight of a dense net 2.5 ns.
"""
_ALIGNED = 16  # values: so each run's are updated by whole vectors, wherever they lie


def can_be_stacked(solver: Solver) -> bool:
    """Return whether a `StackedPack` can train a run."""
    net = solver.net
    layers = layers_in_state(net.definition, NetState(TRAIN))
    return (
        net.device.type == "cpu"
        and not (solver.moving or solver.teacher or solver.tied)
        and steps_plainly(solver.param)
        and is_chain(net.definition, layers)
    )


def is_sparse(solver: Solver) -> bool:
    """Return whether so few weights of a run are left that the others are not computed."""
    masks = _masks(solver)
    kept = sum(int(mask.sum()) for mask in masks.values())
    return kept <= _SPARSE * sum(mask.size for mask in masks.values())


def _masks(solver: Solver) -> dict[BlobKey, Mask]:
    """By the weights of each InnerProduct, units x inputs; True = kept."""
    found = {}
    for step in solver.net.steps:
        if isinstance(step.layer, InnerProduct):
            key = step.keys[0]
            mask = np.ones(step.params[0].shape, np.bool_)
            if solver.masks:
                mask = (solver.net.parameters.view(solver.masks.bits, key) != 0).numpy()
            found[key] = mask
    return found


@dataclass(frozen=True, eq=False)
class _Part:
    """Where the values of one blob of one run lie in the flat tensors of the stack."""

    key: BlobKey
    run: int
    start: int
    size: int
    """Filled up."""
    kept: Tensor | None
    """Which values of the blob they are, int64; None: all, in order."""
    count: int

    def take(self, flat: Tensor, blob: Tensor) -> None:
        mine, whole = flat[self.start : self.start + self.count], blob.view(-1)
        if self.kept is None:
            mine.copy_(whole)
        else:
            torch.index_select(whole, 0, self.kept, out=mine)

    def give(self, flat: Tensor, blob: Tensor) -> None:
        mine, whole = flat[self.start : self.start + self.count], blob.view(-1)
        if self.kept is None:
            whole.copy_(mine)
        else:
            whole.index_copy_(0, self.kept, mine)


class StackedPack:
    """Solvers of equal `pack.pack_key` that go on step by step together; see the module.

    What they hold is taken over when it is made, and given back at the end of each `step`.

    Args:
        solvers: At least one; all are `is_sparse` or none is.
    """

    def __init__(self, solvers: Sequence[Solver]) -> None:
        first = solvers[0]
        self._solvers, self._net = tuple(solvers), first.net
        self._masks: list[Mapping[BlobKey, Mask]] = []
        if is_sparse(first):
            self._masks = [_masks(solver) for solver in solvers]
        self._parts: list[_Part] = []
        groups, count = self._lay_out()
        self._data, self._diff = torch.zeros(count), torch.zeros(count)
        self._update = make_update(first.param, groups, self._data, self._diff)
        *inner, last = first.net.steps
        self._layers = self._stacked(inner)
        ((_, diff),) = last.loss_diffs.items()
        self._loss = SoftmaxLosses(last.layer, float(diff), len(solvers))
        self._stepping = Stepping(first.param, first.net, self._compute, self._update.change)
        self._take()

    def step(self, iterations: int) -> None:
        """Run so many iterations of every run.

        Raises:
            DataError: The data are damaged.
        """
        self._stepping.run(iterations)
        self._give()

    def close(self) -> None:
        """Nothing is held that is not the solvers'."""

    def _lay_out(self) -> tuple[list[ParamGroup], int]:
        """Give each blob of each run its place; blobs of equal multipliers lie side by side."""
        blobs = self._net.parameters.blobs
        kinds = dict.fromkeys((blob.lr_mult, blob.decay_mult) for blob in blobs)
        groups, at = [], 0
        for kind in kinds:
            start = at
            for blob in blobs:
                if (blob.lr_mult, blob.decay_mult) == kind:
                    for run in range(len(self._solvers)):
                        self._parts.append(self._part(blob.key, run, at))
                        at += self._parts[-1].size
            groups.append(ParamGroup(start, at, *kind))
        return groups, at

    def _part(self, key: BlobKey, run: int, start: int) -> _Part:
        first, last = self._net.parameters.place(key)
        count, kept = last - first, None
        if self._masks and key in self._masks[run]:
            kept = torch.from_numpy(self._masks[run][key].reshape(-1).nonzero()[0])
            count = len(kept)
        return _Part(key, run, start, -(-count // _ALIGNED) * _ALIGNED, kept, count)

    def _parts_of(self, key: BlobKey) -> list[_Part]:
        return [part for part in self._parts if part.key == key]

    def _block(self, flat: Tensor, key: BlobKey) -> Tensor:
        """The values of a blob in all runs, filled up."""
        parts = self._parts_of(key)
        return flat[parts[0].start : parts[-1].start + parts[-1].size]

    def _view(self, flat: Tensor, key: BlobKey, shape: Sequence[int]) -> Tensor:
        """The values of a blob of which all are there: runs x shape."""
        runs, count = len(self._solvers), self._parts_of(key)[0].count
        return self._block(flat, key).view(runs, -1)[:, :count].view(runs, *shape)

    def _stacked(self, steps: Sequence[Step]) -> list[Inner]:
        layers: list[Inner] = []
        for step in steps:
            if isinstance(step.layer, InnerProduct):
                layers.append(self._products(step, shared=not layers))
            else:
                layers.append(StackedActivation.of(step.layer))
        return layers

    def _products(self, step: Step, *, shared: bool) -> Inner:
        key, (units, inputs) = step.keys[0], step.params[0].shape
        data, diff = self._data, self._diff
        bias = None
        if len(step.keys) > 1:
            own = step.keys[1]
            bias = self._view(data, own, (units,)), self._view(diff, own, (units,))
        if not self._masks:
            shape = units, inputs
            return DenseProducts(self._view(data, key, shape), self._view(diff, key, shape), bias)
        masks = [masks[key] for masks in self._masks]
        sizes = [part.size for part in self._parts_of(key)]
        return SparseProducts(
            self._block(data, key),
            self._block(diff, key),
            bias,
            Pattern.of(masks, sizes, shared=shared),
            (len(self._solvers), units, inputs),
        )

    def _compute(self) -> None:
        data, labels = self._net.batch
        values = data.flatten(1).t().contiguous()
        for layer in self._layers:
            values = layer.forward(values)
        diff = self._loss.gradient(values, labels)
        for place in reversed(range(len(self._layers))):
            found = self._layers[place].backward(diff, wanted=place > 0)
            if found is not None:
                diff = found

    def _pairs(self) -> Iterator[tuple[_Part, Tensor, Tensor]]:
        """Each part, the flat tensor that it is in, and the blob that it is of."""
        for part in self._parts:
            solver = self._solvers[part.run]
            parameters = solver.net.parameters
            mine = (self._data, *self._update.history)
            for flat, whole in zip(mine, (parameters.data, *solver.update.history), strict=True):
                yield part, flat, parameters.view(whole, part.key)

    @torch.no_grad()
    def _take(self) -> None:
        first = self._solvers[0]
        self._stepping.iteration = first.iter
        self._stepping.policy.current_step = first.stepping.policy.current_step
        self._net.seek(first.iter)
        for part, flat, blob in self._pairs():
            part.take(flat, blob)
        bits = torch.zeros(len(self._data), dtype=torch.int32)
        for part in self._parts:
            solver = self._solvers[part.run]
            mine = bits[part.start : part.start + part.count]
            if part.kept is None and solver.masks:
                mine.copy_(solver.net.parameters.view(solver.masks.bits, part.key).view(-1))
            else:
                mine.fill_(ALL_BITS)
        self._update.keep(bits)

    @torch.no_grad()
    def _give(self) -> None:
        for part, flat, blob in self._pairs():
            part.give(flat, blob)
        for solver, loss in zip(self._solvers, self._loss.losses, strict=True):
            solver.stepping.iteration = self._stepping.iteration
            solver.stepping.policy.current_step = self._stepping.policy.current_step
            solver.net.seek(solver.iter)
            solver.net.use_value(solver.net.loss_blobs[0], loss)
