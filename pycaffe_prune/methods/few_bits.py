"""Weights on few levels: k bits, binary or ternary, with or without straight-through retraining."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log2
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from pycaffe_prune.engines import masking
from pycaffe_prune.experiments.result import Setting
from pycaffe_prune.experiments.settings import Different
from pycaffe_prune.methods.base import Bench, Chain, Method
from pycaffe_prune.methods.moving import Guided
from pycaffe_prune.pruning.few_bits import BITS, LevelRule, Rule, level_rule

__all__ = ["FewBits", "FewBitsStage"]


class FewBits(Method):
    """Weights on few levels while the net trains, or once (docs/few-bits.md)."""

    title: ClassVar[str] = "few bits"
    setting: ClassVar[str] = "bits"
    source: ClassVar[str] = "Courbariaux et al. 2015; Li et al. 2016 (1605.04711)"

    kind: Literal["few-bits"] = "few-bits"
    rule: Rule = "mse"
    """How levels are found (`pruning.few_bits`)."""
    bits: Annotated[tuple[BITS, ...], Different] = ()
    """A point each; none for the rules binary and ternary, which are one point."""
    own: Mapping[str, str] = {}
    """Layers with levels of their own at every point: ``8bits``, ``ternary``."""
    layers: tuple[str, ...] | None = None
    """Whose weights; without it the experiment's fully connected layers."""
    iterations: int = Field(ge=0, lt=1 << 31)
    """Of retraining; 0: none, the weights are put on their levels and tested."""

    @field_validator("own")
    @classmethod
    def _tells_levels(cls, own: Mapping[str, str]) -> Mapping[str, str]:
        for text in own.values():
            level_rule(text)
        return own

    @model_validator(mode="after")
    def _bits_where_they_are_needed(self) -> Self:
        if (self.rule in ("min-max", "mse")) == (not self.bits):
            needs = "takes none" if self.bits else "needs some"
            raise ValueError(f"bits: the rule '{self.rule}' {needs}")
        return self

    def check(self, layers: Sequence[str], others: Sequence[Method]) -> None:  # noqa: ARG002, D102
        known = self.layers or layers
        if unknown := [layer for layer in self.own if layer not in known]:
            raise ValueError(
                f"own: layer '{unknown[0]}' keeps its weights; there are: {', '.join(known)}"
            )

    def chains(self, bench: Bench) -> Sequence[Chain]:  # noqa: D102  (see Method)
        rules = [LevelRule(rule=self.rule, bits=bits) for bits in self.bits or (None,)]
        return [Chain((self._stage(bench, rule),), log2(rule.count)) for rule in rules]

    def _stage(self, bench: Bench, rule: LevelRule) -> "FewBitsStage":
        own = {layer: level_rule(text) for layer, text in self.own.items()}
        layers = self.layers or bench.context.layers
        levels = masking.FewBits.of({layer: own.get(layer, rule) for layer in layers})
        label = f"{self.called}-{rule.told.replace(':', '-')}"
        return FewBitsStage(bench.context, self.iterations, bench.baselines, levels, label)

    def most_stages(self, others: Sequence[Method]) -> int:  # noqa: ARG002, D102  (see Method)
        return len(self.bits) or 1

    def tell(self, value: float | None, units: Mapping[str, int] | None) -> Setting:
        """Return the bits of a weight; of the rules without bits their name."""
        found = super().tell(value, units)
        return found if self.bits else found.model_copy(update={"text": self.rule})


@dataclass(frozen=True, eq=False)
class FewBitsStage(Guided):
    """One training from the whole network, with its weights on few levels."""

    kind = "few-bits"

    @property
    def settings(self) -> Mapping[str, object]:  # noqa: D102  (see Stage)
        return {"levels": self.masking.model_dump(mode="json")}
