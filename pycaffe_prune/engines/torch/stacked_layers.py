"""Layers of several runs of one net on a CPU: one call for all of them, both passes by hand.

Values are float32, units x images: those of all runs one below the other, or the data, which the
runs have in common. What a run computes does not depend, to the bit, on which others there are.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pycaffe_prune.engines.torch.layers.activations import ReLU, Sigmoid, TanH
from pycaffe_prune.engines.torch.layers.base import Layer
from pycaffe_prune.engines.torch.layers.kept_products import sparse_product
from pycaffe_prune.engines.torch.layers.normalizer import Normalizer
from pycaffe_prune.formats.caffe_pb2 import LossParameter
from pycaffe_prune.formats.mask import Mask

__all__ = [
    "DenseProducts",
    "Inner",
    "Pattern",
    "SoftmaxLosses",
    "SparseProducts",
    "StackedActivation",
]

_FLT_MIN = torch.finfo(torch.float32).tiny


class Inner(ABC):
    """A layer between the data and the loss."""

    @abstractmethod
    def forward(self, inputs: Tensor) -> Tensor:
        """Compute the top; it may be in the bottom's memory."""

    @abstractmethod
    def backward(self, diff: Tensor, *, wanted: bool) -> Tensor | None:
        """Write the gradients of blobs over those that are there, and return the bottom's.

        Args:
            diff: Of the top; it may be written to.
            wanted: Whether the gradient of the bottom is.
        """


class StackedActivation(Inner):
    """An activation: what it does to one run it does to all."""

    def __init__(self, layer: ReLU | Sigmoid | TanH) -> None:
        self._layer = layer
        self._top: Tensor | None = None

    @classmethod
    def of(cls, layer: Layer) -> "StackedActivation":
        """Return that of a layer of one run.

        Raises:
            TypeError: It is no activation that its top tells the gradient of.
        """
        if not isinstance(layer, ReLU | Sigmoid | TanH):
            raise TypeError(f"{type(layer).__name__} is not stacked")
        return cls(layer)

    def forward(self, inputs: Tensor) -> Tensor:
        """See `Inner`."""
        self._top = self._layer.overwrite(inputs)
        return self._top

    def backward(self, diff: Tensor, *, wanted: bool) -> Tensor | None:  # noqa: ARG002
        """See `Inner`."""
        return None if self._top is None else self._layer.gradient(self._top, diff)


class _Products(Inner):
    """What both kinds of InnerProduct do with their biases.

    Args:
        bias: And its gradient, each runs x units; None: there is none.
        shape: runs, units and inputs of a run.
    """

    def __init__(self, bias: tuple[Tensor, Tensor] | None, shape: tuple[int, int, int]) -> None:
        self._column = bias[0][:, :, None] if bias else None
        self._bias_diff = bias[1] if bias else None
        self._runs, self._units, self._inputs = shape
        self._seen = torch.empty(0)

    def _by_run(self, stacked: Tensor, rows: int) -> Tensor:
        """Return values as runs x rows x images; those that are common to the runs for each."""
        shape = (self._runs, rows, stacked.shape[1])
        return stacked.expand(shape) if len(stacked) == rows else stacked.view(shape)

    def _add_bias(self, top: Tensor) -> Tensor:
        if self._column is not None:
            top.view(self._runs, self._units, -1).add_(self._column)
        return top

    def _sum_bias_diff(self, diff: Tensor) -> None:
        if self._bias_diff is not None:
            torch.sum(diff.view(self._runs, self._units, -1), 2, out=self._bias_diff)


class DenseProducts(_Products):
    """y = W·x + b in each run.

    Args:
        weight: runs x units x inputs.
        weight_diff: Likewise.
        bias: And its gradient, each runs x units; None: there is none.
    """

    def __init__(
        self, weight: Tensor, weight_diff: Tensor, bias: tuple[Tensor, Tensor] | None
    ) -> None:
        runs, units, inputs = weight.shape
        super().__init__(bias, (runs, units, inputs))
        self._weight, self._weight_diff = weight, weight_diff

    def forward(self, inputs: Tensor) -> Tensor:
        """See `Inner`."""
        self._seen = self._by_run(inputs, self._inputs)
        return self._add_bias(torch.bmm(self._weight, self._seen).flatten(0, 1))

    def backward(self, diff: Tensor, *, wanted: bool) -> Tensor | None:
        """See `Inner`."""
        self._sum_bias_diff(diff)
        by_run = self._by_run(diff, self._units)
        torch.bmm(by_run, self._seen.transpose(1, 2), out=self._weight_diff)
        if not wanted:
            return None
        return torch.bmm(self._weight.transpose(1, 2), by_run).flatten(0, 1)


@dataclass(frozen=True, eq=False)
class Pattern:
    """Where the kept weights of all runs are: a matrix of all units by inputs, row by row.

    In the order of the values, that is, of which some are only there to fill a run's part up; they
    stand in its last row, at its first input.
    """

    begins: Tensor
    """Where each row begins, and the last one ends; int32."""
    columns: Tensor
    """int32."""
    rows: Tensor
    """The rows of the kept ones, int64, and below their `columns` and their places."""
    places: Tensor
    count: int
    """Of columns."""

    @classmethod
    def of(cls, masks: Sequence[Mask], sizes: Sequence[int], *, shared: bool) -> "Pattern":
        """Return that of runs with these masks.

        Args:
            masks: units x inputs, one a run.
            sizes: How many values each run has, filled up.
            shared: Whether the runs have their inputs in common.
        """
        units, inputs = masks[0].shape
        begins, columns, rows, places = [], [], [], []
        start = 0
        for run, (mask, size) in enumerate(zip(masks, sizes, strict=True)):
            row, column = mask.nonzero()
            first = 0 if shared else run * inputs
            ends = np.count_nonzero(mask, 1).cumsum()
            begins.append(start + np.concatenate([[0], ends[:-1]]))
            filled = np.full(size, first)
            filled[: len(column)] = column + first
            columns.append(filled)
            rows.append(row + run * units)
            places.append(start + np.arange(len(row)))
            start += size
        begins.append(np.array([start]))
        return cls(
            _int32(begins),
            _int32(columns),
            torch.from_numpy(np.concatenate(rows)),
            torch.from_numpy(np.concatenate(places)),
            inputs if shared else inputs * len(masks),
        )

    def transposed(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return begins and columns of the transposed matrix, and the places of its values."""
        columns = self.columns[self.places].numpy()
        rows = self.rows.numpy()
        order = np.lexsort((rows, columns))
        begins = np.searchsorted(columns[order], np.arange(self.count + 1))
        places = self.places[torch.from_numpy(order)]
        return _int32([begins]), _int32([rows[order]]), places


def _int32(parts: Sequence[NDArray[np.int64]]) -> Tensor:
    return torch.from_numpy(np.concatenate(parts).astype(np.int32))


class SparseProducts(_Products):
    """y = W·x + b in each run, of the kept weights alone.

    A pruned weight takes no part: where an input is not finite, it makes no NaN of it.

    Args:
        weight: The values, as `Pattern` has them.
        weight_diff: Likewise.
        bias: And its gradient, each runs x units; None: there is none.
        pattern: Where they are.
        shape: runs, units and inputs of a run.
    """

    def __init__(
        self,
        weight: Tensor,
        weight_diff: Tensor,
        bias: tuple[Tensor, Tensor] | None,
        pattern: Pattern,
        shape: tuple[int, int, int],
    ) -> None:
        super().__init__(bias, shape)
        self._weight, self._pattern = weight, pattern
        self._begins, self._columns, self._places = pattern.transposed()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
            self._gradient = torch.sparse_csr_tensor(
                pattern.begins.long(),
                pattern.columns.long(),
                weight_diff,
                (shape[0] * shape[1], pattern.count),
                check_invariants=False,
            )

    def forward(self, inputs: Tensor) -> Tensor:
        """See `Inner`."""
        self._seen = inputs
        pattern = self._pattern
        return self._add_bias(sparse_product(self._weight, pattern.begins, pattern.columns, inputs))

    def backward(self, diff: Tensor, *, wanted: bool) -> Tensor | None:
        """See `Inner`."""
        self._sum_bias_diff(diff)
        gradient = self._gradient
        torch.sparse.sampled_addmm(gradient, diff, self._seen.t(), beta=0.0, out=gradient)
        if not wanted:
            return None
        weight = self._weight.index_select(0, self._places)
        return sparse_product(weight, self._begins, self._columns, diff)


class SoftmaxLosses:
    """SoftmaxWithLoss in each run (`layers.softmax.SoftmaxWithLoss`), without ``ignore_label``.

    Args:
        layer: That of one run.
        weight: Of the loss.
        runs: How many there are.
    """

    def __init__(self, layer: Layer, weight: float, runs: int) -> None:
        batch, classes = layer.setup.bottoms[0]
        self._layer, self._shape = layer, (runs, classes, batch)
        normalizer = Normalizer(layer.param.loss_param, batch, 1, LossParameter.VALID)
        self._divisor = float(normalizer(None))
        self._weight = weight
        self._last: tuple[Tensor, Tensor] | None = None

    def gradient(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Return the gradient of the scores, in their layout.

        Raises:
            DataError: A label names no class.
        """
        runs, _, batch = self._shape
        stacked = scores.view(self._shape)
        probabilities = stacked.softmax(1)
        true = labels.long().expand(runs, 1, batch)
        self._last = probabilities, true
        try:
            diff = probabilities.scatter(1, true, -1.0, reduce="add")
        except RuntimeError:
            self._layer.forward([stacked[0].t(), labels], [])  # says what is wrong with the labels
            raise
        return diff.mul_(self._weight / self._divisor).view_as(scores)

    @property
    def losses(self) -> Tensor:
        """Those of the last pass, one a run."""
        if self._last is None:
            return torch.zeros(self._shape[0])
        probabilities, true = self._last
        logs = probabilities.gather(1, true).clamp_min_(_FLT_MIN).log_()
        return logs.sum((1, 2)).div_(-self._divisor)
