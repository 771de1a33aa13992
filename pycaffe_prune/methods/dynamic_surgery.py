"""Dynamic Network Surgery (Guo, Yao and Chen 2016): masks that change in every iteration."""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from pycaffe_prune.engines import masking
from pycaffe_prune.experiments.settings import Different, Iterations
from pycaffe_prune.methods.base import Bench, Chain, Method
from pycaffe_prune.methods.moving import MovingMasks

__all__ = ["DynamicSurgery"]

_C = Annotated[float, Field(allow_inf_nan=False)]


class DynamicSurgery(Method):
    """Weights go and come back while the net trains, by two limits per layer (docs/engines.md)."""

    title: ClassVar[str] = "dynamic network surgery"
    setting: ClassVar[str] = "c"
    source: ClassVar[str] = "Guo, Yao and Chen 2016 (1608.04493)"

    kind: Literal["dynamic-surgery"] = "dynamic-surgery"
    cs: Annotated[tuple[_C, ...], Different]
    """A point each: how many standard deviations above the mean of \\|w\\| the limits lie."""
    more: Mapping[str, _C] = {}
    """Per layer, what is added to c there; below 0 where a layer is to keep more."""
    layers: tuple[str, ...] | None = None
    """What is pruned; without it the experiment's fully connected layers."""
    iterations: Iterations
    stop: Iterations
    """From this iteration on masks stay."""
    gamma: float = Field(1e-4, ge=0, allow_inf_nan=False)
    power: float = Field(1.0, ge=0, allow_inf_nan=False)

    def chains(self, bench: Bench) -> Sequence[Chain]:  # noqa: D102  (see Method)
        return [Chain((self._stage(bench, c),), c) for c in self.cs]

    def _stage(self, bench: Bench, c: float) -> MovingMasks:
        layers = self.layers or bench.context.layers
        moving = masking.DynamicSurgery.of(
            {layer: c + self.more.get(layer, 0.0) for layer in layers},
            self.stop,
            gamma=self.gamma,
            power=self.power,
        )
        label = f"{self.called}-c{c:g}"
        return MovingMasks(bench.context, self.iterations, bench.baselines, moving, label)

    def most_stages(self, others: Sequence[Method]) -> int:  # noqa: ARG002, D102  (see Method)
        return len(self.cs)

    def check(self, layers: Sequence[str], others: Sequence[Method]) -> None:  # noqa: ARG002, D102
        known = self.layers or layers
        if unknown := [layer for layer in self.more if layer not in known]:
            raise ValueError(
                f"more: layer '{unknown[0]}' is not pruned; there are: {', '.join(known)}"
            )
