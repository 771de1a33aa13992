"""A net's parameters as its solver has them, all in one memory, beside its blobs."""

import torch
from torch import Tensor

from pycaffe_prune.pycaffe.blobs import Blob
from pycaffe_prune.pycaffe.net import Net

__all__ = ["FlatBlobs"]


class FlatBlobs:
    """Brings what scripts write into a net's blobs to where its solver updates them, and back.

    On a CPU both are the same memory, unless a blob was given another net's (`Net.share_with`).

    Args:
        net: The net; its parameters lie where `Net._parameters` says.
    """

    def __init__(self, net: Net) -> None:
        parameters = net._parameters
        self._blobs = [blob for step in net._steps for blob in step.blobs]
        self._owned: list[tuple[Blob, Tensor, Tensor]] = [
            (
                blob,
                parameters.view(parameters.data, key),
                parameters.view(parameters.diff, key),
            )
            for key, blob in net._owned()
        ]

    @torch.no_grad()
    def gather(self) -> None:
        """Make the flat values and gradients those that the blobs have."""
        for blob, values, diffs in self._owned:
            for own, flat in ((blob._data, values), (blob._diff, diffs)):
                now = own.read(blob._shape)
                if now.data_ptr() != flat.data_ptr():
                    flat.copy_(now)

    @torch.no_grad()
    def spread(self) -> None:
        """Make the values of the blobs the flat ones."""
        for blob, values, _ in self._owned:
            now = blob._data.read(blob._shape)
            if now.data_ptr() != values.data_ptr():
                now.copy_(values)
        for blob in self._blobs:
            blob._data.touch()
            blob._data.version += 1

    @torch.no_grad()
    def spread_diffs(self) -> None:
        """Make the gradients of the blobs the flat ones."""
        for blob, _, diffs in self._owned:
            now = blob._diff.read(blob._shape)
            if now.data_ptr() != diffs.data_ptr():
                now.copy_(diffs)
        for blob in self._blobs:
            blob._diff.touch()
