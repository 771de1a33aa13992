"""Iterations of a masked net that leave out what is pruned."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from pycaffe_prune.engines.torch.build import Step
from pycaffe_prune.engines.torch.layers.base import Layer
from pycaffe_prune.engines.torch.layers.kept_products import KeptProduct
from pycaffe_prune.engines.torch.net import Net
from pycaffe_prune.engines.torch.updates import make_update
from pycaffe_prune.formats.caffe_pb2 import SolverParameter
from pycaffe_prune.formats.caffemodel import BlobKey

__all__ = ["Compaction"]


@dataclass(frozen=True, eq=False)
class _Parts:
    """What of a step is another while it computes on what is kept."""

    layer: Layer
    params: list[Tensor]
    param_diffs: list[Tensor | None]

    @classmethod
    def of(cls, step: Step) -> "_Parts":
        return cls(step.layer, step.params, step.param_diffs)

    def put_into(self, step: Step) -> None:
        step.layer, step.params, step.param_diffs = self.layer, self.params, self.param_diffs


class Compaction:
    """The blobs of a net without most of what masks prune, with an update of their own.

    They are the net's only inside `held`; outside, blobs and history are whole. What is left out
    is zero in both, and stays so.

    Args:
        param: The solver.
        net: Its net, on a CPU.
        bits: As `Masks.bits`.
        layers: By a blob that one layer alone has what computes in that layer's place.
    """

    def __init__(
        self,
        param: SolverParameter,
        net: Net,
        bits: Tensor,
        layers: Mapping[BlobKey, KeptProduct],
    ) -> None:
        held = np.ones(net.parameters.count, np.bool_)
        for key, layer in layers.items():
            start, stop = net.parameters.place(key)
            held[start:stop] = layer.places.reshape(-1)
        self._places = torch.from_numpy(held.nonzero()[0])
        self._data, self._diff = (torch.zeros(len(self._places)) for _ in range(2))
        groups = [
            replace(group, start=_before(held, group.start), stop=_before(held, group.stop))
            for group in net.parameters.groups
        ]
        self.update = make_update(param, groups, self._data, self._diff)
        """Of the blobs that are held."""
        self.update.keep(bits[self._places])
        places = {
            blob.key: slice(*(_before(held, at) for at in net.parameters.place(blob.key)))
            for blob in net.parameters.blobs
        }
        self._steps = [
            (step, self._kept_parts(step, layers, places)) for step in net.steps if step.params
        ]
        for (_, parts), (_, after) in pairwise(self._steps):
            if isinstance(parts.layer, KeptProduct):
                parts.layer.units_first = isinstance(after.layer, KeptProduct)

    def _kept_parts(
        self,
        step: Step,
        layers: Mapping[BlobKey, KeptProduct],
        places: Mapping[BlobKey, slice],
    ) -> _Parts:
        params, diffs = [], []
        for key, param, diff in zip(step.keys, step.params, step.param_diffs, strict=True):
            shape = (-1,) if key in layers else param.shape
            params.append(self._data[places[key]].view(shape))
            diffs.append(None if diff is None else self._diff[places[key]].view(shape))
        return _Parts(layers.get(step.keys[0], step.layer), params, diffs)

    @contextmanager
    def held(self, data: Tensor, history: Sequence[Tensor]) -> Iterator[None]:
        """Let the net compute on what is kept; `update` is what its gradients are for.

        Args:
            data: The net's values, flat: taken at the beginning, given back at the end.
            history: Likewise the flat tensors of the history.
        """
        pairs = list(zip((self._data, *self.update.history), (data, *history), strict=True))
        for mine, whole in pairs:
            torch.index_select(whole, 0, self._places, out=mine)
        before = [_Parts.of(step) for step, _ in self._steps]
        for step, parts in self._steps:
            parts.put_into(step)
        try:
            yield
        finally:
            for (step, _), parts in zip(self._steps, before, strict=True):
                parts.put_into(step)
            for mine, whole in pairs:
                whole.index_copy_(0, self._places, mine)


def _before(held: np.ndarray, place: int) -> int:
    """How many of the values before a place of the whole tensor are held."""
    return int(np.count_nonzero(held[:place]))
