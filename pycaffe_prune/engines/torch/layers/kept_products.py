"""InnerProducts under a mask that stays: products of what is kept alone.

Both compute with units and inputs on the first axis (units x rows, inputs x rows): a kept weight
then takes one contiguous row of inputs, and adds to one of units. Tops may be left so in memory:
elementwise layers pass on the strides that they are given, and the next such layer need not turn
its bottom over.

A pruned weight takes no part, where a zero in a dense product does: an input that is not finite
makes NaN there, and nothing here.
"""

import warnings
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pycaffe_prune.engines.torch.layers.base import LayerSetup, Saved
from pycaffe_prune.engines.torch.layers.inner_product import InnerProduct
from pycaffe_prune.formats.mask import Mask

__all__ = ["KeptProduct", "LiveProduct", "SparseProduct", "sparse_product"]


class KeptProduct(InnerProduct):
    """y = x·Wᵀ + b, of a weight that is given as some of its values.

    Args:
        setup: Of an InnerProduct without ``transpose``.
        mask: units x inputs; True = kept.
    """

    def __init__(self, setup: LayerSetup, mask: Mask) -> None:
        super().__init__(setup)
        self.mask = mask
        self.units_first = False
        """Whether the top's values lie unit by unit, for another such layer to read."""
        self._inputs_first = False  # so are those of the bottom
        self._ones = torch.ones(self._products[0])

    @property
    @abstractmethod
    def places(self) -> Mask:
        """Which values of the weight the layer is given, row by row: units x inputs."""

    @abstractmethod
    def _product(self, weight: Tensor, inputs: Tensor) -> Tensor:
        """Return W·x, units x rows.

        Args:
            weight: The values at `places`, in one row.
            inputs: inputs x rows.
        """

    @abstractmethod
    def _add_weight_diff(self, weight_diff: Tensor, diff: Tensor, inputs: Tensor) -> None:
        """Add the gradient at `places`; ``diff`` is units x rows."""

    @abstractmethod
    def _input_diff(self, weight: Tensor, diff: Tensor) -> Tensor:
        """Return Wᵀ·diff, inputs x rows."""

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute the top; ``params`` are the values at `places`, and the bias."""
        return self.forward_saving(bottoms, params)[0]

    def forward_saving(
        self, bottoms: Sequence[Tensor], params: Sequence[Tensor]
    ) -> tuple[tuple[Tensor, ...], Saved]:
        """Compute the top; keep the inputs and the values of the weight."""
        rows = bottoms[0].reshape(self._rows)
        self._inputs_first = rows.t().is_contiguous()
        inputs = _turned(rows)
        top = self._product(params[0], inputs)
        if len(params) > 1:
            top.add_(params[1][:, None])
        top = top.t() if self.units_first else _turned(top)
        return (top.view(self.setup.tops[0]),), (inputs, params[0])

    def backward(
        self,
        saved: Saved,
        top_diffs: Sequence[Tensor | None],
        propagate: Sequence[bool],
        param_diffs: Sequence[Tensor | None],
    ) -> list[Tensor | None]:
        """Return the bottom's gradient and add those of weight and bias; see `Layer.backward`."""
        if top_diffs[0] is None:
            return [None]
        inputs, weight = saved
        diff = _turned(top_diffs[0].reshape(self._products))
        weight_diff, bias_diff = (*param_diffs, None)[:2]
        if weight_diff is not None:
            self._add_weight_diff(weight_diff, diff, inputs)
        if bias_diff is not None:
            bias_diff.addmv_(diff, self._ones)  # in half of the time of a sum
        if not propagate[0]:
            return [None]
        bottom_diff = self._input_diff(weight, diff)
        # As the bottom lies: two layouts in one elementwise layer are slow.
        bottom_diff = bottom_diff.t() if self._inputs_first else _turned(bottom_diff)
        return [bottom_diff.view(self.setup.bottoms[0])]


def _turned(matrix: Tensor) -> Tensor:
    """Return the transpose, contiguous; NumPy copies it in less than half of PyTorch's time."""
    if matrix.t().is_contiguous():
        return matrix.t()
    return torch.from_numpy(np.ascontiguousarray(matrix.numpy().T))


class LiveProduct(KeptProduct):
    """A dense product of the units and inputs that a kept weight touches."""

    def __init__(self, setup: LayerSetup, mask: Mask) -> None:
        super().__init__(setup, mask)
        units, inputs = mask.any(1), mask.any(0)
        self._live = np.outer(units, inputs)
        self._units = torch.from_numpy(np.flatnonzero(units))
        self._inputs = torch.from_numpy(np.flatnonzero(inputs))
        self._shape = (len(self._units), len(self._inputs))

    @property
    def places(self) -> Mask:
        """Where a live unit meets a live input."""
        return self._live

    def _product(self, weight: Tensor, inputs: Tensor) -> Tensor:
        product = weight.view(self._shape) @ inputs.index_select(0, self._inputs)
        return _spread(product, self._units, self.mask.shape[0])

    def _add_weight_diff(self, weight_diff: Tensor, diff: Tensor, inputs: Tensor) -> None:
        live = diff.index_select(0, self._units)
        weight_diff.view(self._shape).addmm_(live, inputs.index_select(0, self._inputs).t())

    def _input_diff(self, weight: Tensor, diff: Tensor) -> Tensor:
        product = weight.view(self._shape).t() @ diff.index_select(0, self._units)
        return _spread(product, self._inputs, self.mask.shape[1])


def _spread(rows: Tensor, places: Tensor, count: int) -> Tensor:
    """Put rows to their places among ``count``; the others are zero."""
    if len(places) == count:
        return rows
    return rows.new_zeros(count, rows.shape[1]).index_copy_(0, places, rows)


class SparseProduct(KeptProduct):
    """A product of the kept weights alone, in compressed rows; its gradient only where they are."""

    def __init__(self, setup: LayerSetup, mask: Mask) -> None:
        super().__init__(setup, mask)
        self._by_units = _Rows.of(mask)
        self._by_inputs = _Rows.of(mask.T)
        order = np.zeros(mask.shape, np.int64)
        order[mask] = np.arange(np.count_nonzero(mask))
        self._order = torch.from_numpy(order.T[mask.T])  # by inputs
        self._bound: tuple[Tensor, Tensor] | None = None  # to make it takes as long as to add to it

    @property
    def places(self) -> Mask:
        """The kept weights."""
        return self.mask

    def _product(self, weight: Tensor, inputs: Tensor) -> Tensor:
        return self._by_units.product(weight, inputs)

    def _add_weight_diff(self, weight_diff: Tensor, diff: Tensor, inputs: Tensor) -> None:
        if self._bound is None or self._bound[0] is not weight_diff:
            self._bound = weight_diff, self._by_units.matrix(weight_diff)
        target = self._bound[1]
        torch.sparse.sampled_addmm(target, diff, inputs.t(), out=target)

    def _input_diff(self, weight: Tensor, diff: Tensor) -> Tensor:
        return self._by_inputs.product(weight.index_select(0, self._order), diff)


def sparse_product(values: Tensor, begins: Tensor, columns: Tensor, factor: Tensor) -> Tensor:
    """Return the product of a sparse matrix with a dense one: for each row a weighted sum.

    PyTorch's sum of embeddings is one, and on small matrices as fast as MKL's, which is not in
    every build. Called is what `torch.nn.functional.embedding_bag` calls, without what it checks,
    which takes a quarter to a half as long again.

    Args:
        values: float32, row by row.
        begins: Where each row begins in ``values``, and the last one ends.
        columns: Those of ``values``, contiguous, or each call copies them.
        factor: columns x rows of data, float32.
    """
    product: Tensor = torch.embedding_bag(
        factor, columns, begins, per_sample_weights=values, include_last_offset=True
    )[0]  # a sum
    return product


@dataclass(frozen=True, eq=False)
class _Rows:
    """Where the values of a sparse matrix are, row by row, in int64."""

    begins: Tensor
    columns: Tensor
    shape: tuple[int, int]

    @classmethod
    def of(cls, mask: Mask) -> "_Rows":
        begins = np.concatenate([[0], np.count_nonzero(mask, 1).cumsum()])
        units, inputs = mask.shape
        columns = np.ascontiguousarray(mask.nonzero()[1])
        return cls(torch.from_numpy(begins), torch.from_numpy(columns), (units, inputs))

    def product(self, values: Tensor, factor: Tensor) -> Tensor:
        """Return the product with a dense matrix."""
        return sparse_product(values, self.begins, self.columns, factor)

    def matrix(self, values: Tensor) -> Tensor:
        """Return the matrix of these values, which share its memory."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
            return torch.sparse_csr_tensor(
                self.begins, self.columns, values, self.shape, check_invariants=False
            )
