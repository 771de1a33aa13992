"""Equal weights of a net that stay equal while it trains."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pycaffe_prune.engines.caffe.caffe_worker.tied import groups_of
from pycaffe_prune.engines.torch.masks import Masks
from pycaffe_prune.engines.torch.net import Net
from pycaffe_prune.engines.torch.update import ALL_BITS
from pycaffe_prune.engines.tying import Tying
from pycaffe_prune.formats.caffemodel import BlobKey
from pycaffe_prune.formats.mask import Mask

__all__ = ["Tied"]


class Tied:
    """Groups of equal weights, each led by its first one; weights that are zero stay so.

    The first weight of a group gets the sum of the group's gradients, or their mean, the others
    none; after the update the others get its value, whatever the update made of them.

    Args:
        net: What is trained; its weights say which are equal.
        tying: In which blobs.
        masks: Masks of the net; what they prune is zero.

    Raises:
        SurgeryError: There is no such blob, or a mask does not fit its own.
        SystemExit: A weight of these blobs is NaN or infinite.
    """

    def __init__(self, net: Net, tying: Tying, masks: Mapping[BlobKey, Mask]) -> None:
        self._data = net.parameters.data
        self._kept = Masks(net, masks).bits
        self._zero_pruned()
        parts, groups = [], 0
        for key in tying.blobs:
            start, stop = net.parameters.place(net.owner(key))
            values = self._data[start:stop]
            found = groups_of(*key, values.cpu().numpy(), tying.signed)
            self._kept[start:stop][values == 0] = 0
            signs = np.ones(len(found.places), np.float32) if found.signs is None else found.signs
            parts.append((start + found.places, start + found.firsts, groups + found.codes, signs))
            groups += len(found.firsts)
        self._zero_pruned()  # -0.0 is zero too
        places, self._firsts, codes, signs = (
            torch.from_numpy(np.concatenate(arrays)).to(net.device)
            for arrays in zip(*parts, strict=True)
        )
        self._gathered = _Order(places, codes, signs if tying.signed else None)
        self._spread = self._gathered.ascending()
        self._lengths = torch.bincount(codes, minlength=groups)
        self._reduction = tying.gradient
        self.bits = self._kept.clone()
        """int32, (count,) as the net's flat tensors: 0 where a weight has another one's value or
        is zero for good, `ALL_BITS` where an update moves it."""
        self.bits[places] = 0
        self.bits[self._firsts] = ALL_BITS

    def _zero_pruned(self) -> None:
        self._data.view(torch.int32).bitwise_and_(self._kept)

    def gather(self, diff: Tensor) -> None:
        """Give each group's first weight the gradient of the group; before an update."""
        if not len(self._firsts):
            return
        own = self._gathered.signed(diff.index_select(0, self._gathered.places)).double()
        whole = torch.segment_reduce(own, self._reduction, lengths=self._lengths, unsafe=True)
        diff.index_copy_(0, self._firsts, whole.float())

    def spread(self) -> None:
        """Give each weight the value of its group's first; after an update."""
        self._data.index_copy_(0, self._spread.places, self._values())

    def _values(self) -> Tensor:
        firsts = self._data.index_select(0, self._firsts)
        return self._spread.signed(firsts.index_select(0, self._spread.codes))

    def parted(self) -> int:
        """Count the weights that have not their group's value, or are to be zero and are not."""
        others = torch.count_nonzero(self._data[self._spread.places] != self._values())
        return int(others) + self.revived()

    def revived(self) -> int:
        """Count the weights that are to be zero and are not."""
        return int(torch.count_nonzero(self._data[self._kept == 0]))


@dataclass(frozen=True, eq=False)
class _Order:
    """An order of all tied weights."""

    places: Tensor
    """int64, into the net's flat tensors."""
    codes: Tensor
    """int64: the group of each."""
    signs: Tensor | None
    """1 and -1: what each is of its group's first; None: all are 1."""

    def ascending(self) -> "_Order":
        """Return the order of the places: memory is written in it in half the time."""
        places, order = self.places.sort()
        signs = None if self.signs is None else self.signs[order]
        return _Order(places, self.codes[order], signs)

    def signed(self, values: Tensor) -> Tensor:
        """Give ``values``, in this order, their signs, in place."""
        return values if self.signs is None else values.mul_(self.signs)
