"""What a layer is: a pure forward function, and a backward pass that may be written by hand."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pycaffe_prune.formats.axes import Shape
from pycaffe_prune.formats.caffe_pb2 import LayerParameter

__all__ = ["Layer", "LayerSetup", "Saved"]

Saved = tuple[Tensor, ...]
"""What a layer's forward pass keeps for its backward pass."""


@dataclass(frozen=True)
class LayerSetup:
    """What a layer is made from."""

    param: LayerParameter
    bottoms: tuple[Shape, ...]
    tops: tuple[Shape, ...]
    phase: int
    """TRAIN or TEST of `formats.caffe_pb2`."""


class Layer(ABC):
    """One layer of a net.

    `forward` is pure: tensors in, new tensors out, made of differentiable operations that
    `torch.func.vmap` can batch. `forward_saving` and `backward` are the pass that trains: here by
    autograd over `forward`; layers on the hot path write both by hand, without autograd.
    """

    def __init__(self, setup: LayerSetup) -> None:
        self.param = setup.param
        self.setup = setup
        self.in_place = False
        """Set by the net where the layer may overwrite its bottom; it need not."""
        self.states: list[Tensor] = []
        """Where the next pass begins, of a layer that `remembers`; none before the first."""

    keeps_top = False
    """Whether `backward` reads the values of tops: then nothing after it may overwrite them."""

    moves_params = False
    """Whether `forward_saving` changes parameters, which Caffe's layer then does in tests too."""

    takes_any_shape = False
    """Whether the layer can go on where its bottoms' shapes change; others are made anew then."""

    remembers = False
    """Whether `forward_saving` leaves `states` to the next pass, as Caffe's layer does in tests
    too."""

    overwrites = False
    """Whether `backward` writes the first parameter's gradient over that of earlier passes, as
    Caffe's layer does."""

    def follow(self, before: "Layer") -> None:
        """Take the place of a layer that was made for other shapes, with what it has kept."""
        self.states = before.states

    @abstractmethod
    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute the tops, float32 (shapes as `net.shapes.infer_shapes` tells)."""

    def forward_saving(
        self, bottoms: Sequence[Tensor], params: Sequence[Tensor]
    ) -> tuple[tuple[Tensor, ...], Saved]:
        """Compute the tops, and what `backward` needs."""
        inputs = [tensor.detach().requires_grad_() for tensor in bottoms]
        # Not `detach`: all parameters are one tensor, and when BatchNorm moves its statistics in
        # it before `backward`, autograd would take the others for changed.
        inputs += [tensor.data.requires_grad_() for tensor in params]
        with torch.enable_grad():
            tops = self.forward(inputs[: len(bottoms)], inputs[len(bottoms) :])
        return tuple(top.detach() for top in tops), (*inputs, *tops)

    def backward(
        self,
        saved: Saved,
        top_diffs: Sequence[Tensor | None],
        propagate: Sequence[bool],
        param_diffs: Sequence[Tensor | None],
    ) -> list[Tensor | None]:
        """Return the gradients of the bottoms and add those of the parameters.

        Args:
            saved: From `forward_saving` of the same iteration.
            top_diffs: Per top its gradient, None where none came back. Not to be written to.
            propagate: Per bottom, whether its gradient is wanted.
            param_diffs: Per parameter the tensor to add its gradient to; None where none is
                wanted (Caffe's ``param_propagate_down``).

        Returns:
            Per bottom its gradient; None where it is not wanted.
        """
        bottoms, params = len(propagate), len(param_diffs)
        inputs, tops = saved[: bottoms + params], saved[bottoms + params :]
        pairs = [
            (top, diff)
            for top, diff in zip(tops, top_diffs, strict=True)
            if diff is not None and top.requires_grad
        ]
        grads: Sequence[Tensor | None] = [None] * len(inputs)
        if pairs:
            grads = torch.autograd.grad(
                [top for top, _ in pairs],
                inputs,
                [diff for _, diff in pairs],
                allow_unused=True,
            )
        for diff, grad in zip(param_diffs, grads[bottoms:], strict=True):
            if diff is not None and grad is not None:
                diff.add_(grad)
        return [
            grad if wanted else None
            for grad, wanted in zip(grads[:bottoms], propagate, strict=True)
        ]
