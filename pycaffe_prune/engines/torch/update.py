"""What all of Caffe's update rules have in common, over all blobs of a net at once."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.caffe_pb2 import SolverParameter

__all__ = ["ALL_BITS", "ParamGroup", "Part", "Update"]

_REGULARIZATIONS = ("L2", "L1")
ALL_BITS = -1
"""Of an int32."""


@dataclass(frozen=True)
class ParamGroup:
    """The part of the flat tensors' last axis whose blobs have these multipliers in common."""

    start: int
    stop: int
    lr_mult: float
    decay_mult: float


@dataclass(frozen=True, eq=False)
class Part:
    """The values of one `ParamGroup`: views of the flat tensors."""

    place: slice
    data: Tensor
    diff: Tensor
    history: list[Tensor]
    lr_mult: float
    decay: float
    """``weight_decay`` times ``decay_mult``."""


class Update(ABC):
    """What a solver does with gradients (`SGDSolver::ApplyUpdate`, `src/caffe/solvers`).

    All flat tensors are float32, (count,) or, for several runs of one net, (runs, count). Nothing
    here waits for the device, and no branch depends on a tensor's values: `apply` can be recorded
    as a CUDA graph.

    Args:
        solver: Its type and numbers.
        groups: Together all of the last axis.
        data: The values, which `apply` changes.
        diff: The gradients, which `apply` uses up: they are zero after it.

    Raises:
        FormatError: A setting is one that Caffe refuses.
    """

    histories: ClassVar[int] = 1

    def __init__(
        self,
        solver: SolverParameter,
        groups: Sequence[ParamGroup],
        data: Tensor,
        diff: Tensor,
    ) -> None:
        if solver.weight_decay and solver.regularization_type not in _REGULARIZATIONS:
            raise FormatError(
                f"the solver's regularization_type '{solver.regularization_type}' is not known; "
                f"use one of {', '.join(_REGULARIZATIONS)}"
            )
        self.solver = solver
        self.history = [torch.zeros_like(data) for _ in range(self.histories)]
        """Flat tensors like the values: what a solverstate keeps, in its order."""
        self._diff = diff
        self._kept: Tensor | None = None
        self._parts = [
            Part(
                slice(group.start, group.stop),
                data[..., group.start : group.stop],
                diff[..., group.start : group.stop],
                [flat[..., group.start : group.stop] for flat in self.history],
                group.lr_mult,
                solver.weight_decay * group.decay_mult,
            )
            for group in groups
        ]

    def keep(self, bits: Tensor) -> None:
        """Mask the gradients before each update from now on.

        Args:
            bits: int32, in the shape of the values: `ALL_BITS` where a value may move, 0 elsewhere.
                Bits are ANDed, not floats multiplied: NaN and -0.0 become +0.0 too.
        """
        self._kept = bits

    @torch.no_grad()
    def apply(self, rate: Tensor) -> None:
        """Do Caffe's update, and zero the gradients.

        Gradients are masked, clipped, divided by ``iter_size``, decayed and applied, in this order.

        Args:
            rate: 0-dim, float32, on the device of the values: the learning rate times
                `bias_correction`.
        """
        self.change(rate)
        self._diff.zero_()

    @torch.no_grad()
    def change(self, rate: Tensor) -> None:
        """Do as `apply`, but leave anything where the gradients were."""
        self._prepare()
        for part in self._parts:
            self._update(part, rate)

    def _prepare(self) -> None:
        """Mask, clip and divide the gradients."""
        if self._kept is not None and not self._masks_later:
            self._diff.view(torch.int32).bitwise_and_(self._kept)
        if self.solver.clip_gradients >= 0:
            self._clip()
        if self.solver.iter_size != 1:
            self._diff.mul_(1 / self.solver.iter_size)

    @torch.no_grad()
    def show_change(self, rate: Tensor) -> None:
        """Put what the last `change` took from the values where the gradients were, as Caffe does.

        Args:
            rate: As it was then.
        """
        for part in self._parts:
            self._show(part, rate)

    def _show(self, part: Part, rate: Tensor) -> None:
        part.diff.mul_(rate * part.lr_mult)

    @property
    def _masks_later(self) -> bool:
        """Whether `_update` is what masks the gradients."""
        return False

    def _clip(self) -> None:
        """Scale the gradients of each run down to the L2 norm that is allowed, over all blobs."""
        norm = torch.linalg.vector_norm(self._diff, dim=-1, keepdim=True)
        allowed = self.solver.clip_gradients
        # As in Caffe, a norm that is no number leaves the gradients as they are.
        self._diff.mul_(torch.where(norm > allowed, allowed / norm, 1.0))

    def _decay(self, part: Part) -> None:
        if not part.decay:
            return
        if self.solver.regularization_type == "L1":
            part.diff.add_(part.data.sign(), alpha=part.decay)
        else:
            part.diff.add_(part.data, alpha=part.decay)

    @abstractmethod
    def _update(self, part: Part, rate: Tensor) -> None:
        """Decay and update values and history of one part; in ``diff`` stays what `_show` needs."""
