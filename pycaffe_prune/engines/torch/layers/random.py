"""Layers that draw random numbers."""

import hashlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pycaffe_prune.engines.torch.layers.base import Layer, LayerSetup, Saved
from pycaffe_prune.errors import EngineError
from pycaffe_prune.formats.caffe_pb2 import TRAIN

__all__ = ["LAYERS", "Dropout", "RandomLayer"]


class RandomLayer(Layer):
    """A layer that draws random numbers in the phase TRAIN, from a generator of its own.

    The net calls `reseed` before each forward pass of training, with a key that the seed, the
    layer's place and the number of the pass tell: so a run goes on exactly after a snapshot,
    without the draws before it.
    """

    def __init__(self, setup: LayerSetup) -> None:
        super().__init__(setup)
        self.generator: torch.Generator | None = None
        """On the device of the bottoms; made when it is first needed."""
        self._seed = _seed_of(0)

    def reseed(self, key: int) -> None:
        """Begin the random numbers that belong to ``key``; the same key, the same numbers."""
        self._seed = _seed_of(key)
        if self.generator is not None:
            self.generator.manual_seed(self._seed)

    def generator_on(self, device: torch.device) -> torch.Generator:
        """Return the generator of this device, as `reseed` left it."""
        if self.generator is None or self.generator.device != device:
            self.generator = torch.Generator(device)
            self.generator.manual_seed(self._seed)
        return self.generator

    def require_test(self) -> None:
        """Refuse to compute as a pure function in the phase TRAIN.

        Raises:
            EngineError: The phase is TRAIN.
        """
        if self.setup.phase == TRAIN:
            raise EngineError(
                f"layer '{self.param.name}' ({self.param.type}) draws random numbers in the phase "
                "TRAIN, so several runs cannot be trained as one; train them one by one"
            )


def _seed_of(key: int) -> int:
    """Spread keys over all 32 bits that the CPU's generator takes: neighbours must not be alike."""
    digest = hashlib.blake2b(str(key).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little")


class Dropout(RandomLayer):
    """Inverted dropout (`src/caffe/layers/dropout_layer.cpp`).

    In TRAIN each value is kept with probability 1 - ``dropout_ratio`` and divided by it, else 0;
    in TEST the top is the bottom. The masks are as likely as Caffe's, but other ones.
    """

    keeps_top = True  # the top of TEST is the bottom itself

    def __init__(self, setup: LayerSetup) -> None:
        super().__init__(setup)
        self._ratio = self.param.dropout_param.dropout_ratio
        if not 0 <= self._ratio < 1:
            raise EngineError(
                f"layer '{self.param.name}' (Dropout) has dropout_ratio {self._ratio}; it must be "
                "at least 0 and below 1"
            )
        self._scale = 1 / (1 - self._ratio)

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute the top of the phase TEST.

        Raises:
            EngineError: The phase is TRAIN, where the layer is not a function of its bottom.
        """
        self.require_test()
        return (bottoms[0],)

    def forward_saving(
        self, bottoms: Sequence[Tensor], params: Sequence[Tensor]
    ) -> tuple[tuple[Tensor, ...], Saved]:
        """Compute the top, in TRAIN with a new mask, which is kept with its scale in it."""
        (bottom,) = bottoms
        if self.setup.phase != TRAIN:
            return (bottom,), ()
        mask = torch.empty_like(bottom, memory_format=torch.contiguous_format)
        # A quarter of the time that bernoulli_ takes on a CPU.
        mask.uniform_(generator=self.generator_on(bottom.device)).ge_(self._ratio)
        mask.mul_(self._scale)
        top = bottom.mul_(mask) if self.in_place else bottom * mask
        return (top,), (mask,)

    def backward(
        self,
        saved: Saved,
        top_diffs: Sequence[Tensor | None],
        propagate: Sequence[bool],
        param_diffs: Sequence[Tensor | None],
    ) -> list[Tensor | None]:
        """Return the gradient of the bottom; see `Layer.backward`."""
        diff = top_diffs[0]
        if diff is None or not propagate[0]:
            return [None]
        return [diff * saved[0] if saved else diff]


LAYERS: Mapping[str, type[Layer]] = {"Dropout": Dropout}
"""The layers that draw random numbers by Caffe's name of their type."""
