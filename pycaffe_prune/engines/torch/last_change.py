"""What the last update took from the weights: the gradients of a snapshot (``snapshot_diff``)."""

from dataclasses import replace

import torch
from torch import Tensor

from pycaffe_prune.engines.torch.net import Net
from pycaffe_prune.engines.torch.update import Update
from pycaffe_prune.formats.caffemodel import Caffemodel

__all__ = ["LastChange"]


class LastChange:
    """Keeps what each update takes from the values, which is what Caffe leaves in the gradients.

    Args:
        net: The training net.
        update: Changes its values.
    """

    def __init__(self, net: Net, update: Update) -> None:
        self._net, self._update = net, update
        self._kept = torch.zeros_like(net.parameters.diff)

    def apply(self, rate: Tensor) -> None:
        """Do as `Update.apply`, and keep what it took."""
        self._update.change(rate)
        self._update.show_change(rate)
        diff = self._net.parameters.diff
        self._kept.copy_(diff)
        diff.zero_()

    def beside(self, weights: Caffemodel) -> Caffemodel:
        """Return the net's weights with the gradients beside them.

        Args:
            weights: With the net's layers and blobs.
        """
        view = self._net.parameters.view
        found = {
            step.layer.param.name: tuple(
                view(self._kept, key).view(param.shape).cpu().numpy().copy()
                for key, param in zip(step.keys, step.params, strict=True)
            )
            for step in self._net.steps
            if step.params
        }
        layers = tuple(
            replace(layer, diffs=found[layer.name]) if layer.blobs else layer
            for layer in weights.layers
        )
        return replace(weights, layers=layers)
