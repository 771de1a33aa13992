"""How those used to pycaffe look at a blob."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pycaffe_prune.formats.axes import Shape

__all__ = ["BlobView"]


@dataclass(frozen=True)
class BlobView:
    """A blob for those used to pycaffe: arrays that share the net's memory on a CPU."""

    tensor: Tensor
    gradient: Tensor | None

    @property
    def data(self) -> NDArray[np.float32]:
        """The values; a copy when the net is on a GPU."""
        return self.tensor.detach().cpu().numpy()

    @property
    def diff(self) -> NDArray[np.float32] | None:
        """The gradient of the last backward pass; None where none came."""
        return None if self.gradient is None else self.gradient.detach().cpu().numpy()

    @property
    def shape(self) -> Shape:
        """The blob's shape."""
        return tuple(self.tensor.shape)
