"""Gradual magnitude pruning (Zhu and Gupta 2017): a little more goes while the net trains."""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from pycaffe_prune.engines.masking import GradualMagnitude
from pycaffe_prune.experiments.settings import Different, Iterations, Share
from pycaffe_prune.methods.base import Bench, Chain, Method
from pycaffe_prune.methods.moving import MovingMasks

__all__ = ["Gradual"]


class Gradual(Method):
    """The smallest weights go by the cubic law while the net trains (docs/engines.md)."""

    title: ClassVar[str] = "gradual magnitude"
    setting: ClassVar[str] = "sparsity"
    source: ClassVar[str] = "Zhu and Gupta 2017 (1710.01878)"

    kind: Literal["gradual"] = "gradual"
    sparsities: Annotated[tuple[Share, ...], Different]
    """A point each: the share of each layer's weights that is gone in the end."""
    own: Mapping[str, Share] = {}
    """Layers with a sparsity of their own, the same at every point."""
    layers: tuple[str, ...] | None = None
    """What is pruned; without it the experiment's fully connected layers."""
    iterations: Iterations
    begin: int = Field(0, ge=0)
    every: Iterations
    """Iterations from one change to the next."""
    changes: Iterations
    """How many follow the first."""
    initial: Share = 0.0
    """The share that goes at the first change."""

    def chains(self, bench: Bench) -> Sequence[Chain]:  # noqa: D102  (see Method)
        return [Chain((self._stage(bench, sparsity),), sparsity) for sparsity in self.sparsities]

    def _stage(self, bench: Bench, sparsity: float) -> MovingMasks:
        moving = GradualMagnitude.of(
            {layer: self.own.get(layer, sparsity) for layer in self.layers or bench.context.layers},
            begin=self.begin,
            every=self.every,
            changes=self.changes,
            initial=self.initial,
        )
        label = f"{self.called}-{sparsity:g}"
        return MovingMasks(bench.context, self.iterations, bench.baselines, moving, label)

    def most_stages(self, others: Sequence[Method]) -> int:  # noqa: ARG002, D102  (see Method)
        return len(self.sparsities)

    def check(self, layers: Sequence[str], others: Sequence[Method]) -> None:  # noqa: ARG002, D102
        known = self.layers or layers
        if unknown := [layer for layer in self.own if layer not in known]:
            raise ValueError(
                f"own: layer '{unknown[0]}' is not pruned; there are: {', '.join(known)}"
            )
        last = self.begin + self.every * self.changes
        if last >= self.iterations:
            raise ValueError(
                f"iterations: the last masks are made before iteration {last}, counted from 0, of "
                f"{self.iterations}; give more, or fewer changes"
            )
        if low := [s for s in (*self.sparsities, *self.own.values()) if s < self.initial]:
            raise ValueError(
                f"initial: masks only shrink, from {self.initial:g} to {low[0]:g} they cannot"
            )
