"""Which weights of a net are pruned."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pycaffe_prune.engines.torch.net import Net
from pycaffe_prune.engines.torch.update import ALL_BITS
from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.axes import extents
from pycaffe_prune.formats.caffemodel import BlobKey

__all__ = ["Masks"]


class Masks:
    """Which weights are pruned, bit by bit.

    With value and gradient zero, decay adds 0, the history stays 0 and so does the value.
    """

    def __init__(self, net: Net, masks: Mapping[BlobKey, NDArray[np.bool_]]) -> None:
        bits = np.full(net.parameters.count, ALL_BITS, np.int32)
        for key, mask in masks.items():
            start, stop = net.parameters.place(net.owner(key))
            shape = net.params[key[0]][key[1]].shape
            if mask.shape != shape:
                raise SurgeryError(
                    f"layer '{key[0]}', blob {key[1]}: the mask is {extents(mask.shape)}, the "
                    f"weights are {extents(shape)}; use the mask that was made for these weights"
                )
            bits[start:stop][~mask.reshape(-1)] = 0
        self.bits = torch.from_numpy(bits).to(net.device)
        """int32, (count,) as the net's flat tensors: `ALL_BITS` where a weight is kept, else 0."""
        self._data = net.parameters.data

    def zero(self, flat: Tensor) -> None:
        """Zero what is masked of a flat tensor of the net's blobs."""
        flat.view(torch.int32).bitwise_and_(self.bits)

    def revived(self) -> int:
        """Count the masked weights that are not zero."""
        return int(torch.count_nonzero(self._data[self.bits == 0]))
