"""The loss of a net as a pure function of its blobs and its batch, for `torch.func`."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pycaffe_prune.engines.torch.net import Net
from pycaffe_prune.formats.caffemodel import BlobKey

__all__ = ["pure_loss"]


def pure_loss(
    net: Net, params: Mapping[BlobKey, Tensor], batch: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """Compute the loss of a batch; the net is as it was.

    Args:
        net: The net.
        params: Learnable blobs by their owners.
        batch: The tops of the data layers, in the order of `Net.batch`.

    Returns:
        The weighted sum of all losses, and the blobs that are `Net.loss_blobs`.
    """
    values = dict(zip(net.batch_slots, batch, strict=True))
    total, found = torch.zeros((), device=net.device), []
    for step in net.steps:
        blobs = [
            params[key].view(param.shape) for key, param in zip(step.keys, step.params, strict=True)
        ]
        bottoms = [
            values[slot] if goes_on else values[slot].detach()
            for slot, goes_on in zip(step.flow.bottoms, step.flow.propagate, strict=True)
        ]
        tops = step.layer.forward(bottoms, blobs)
        values.update(zip(step.flow.tops, tops, strict=True))
        for slot, weight in step.loss_diffs.items():
            total = total + (values[slot] * weight).sum()
            found.append(values[slot])
    return total, found
