"""Unit pruning as in the paper: units scored once, deleted at once, the rest retrained once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from pycaffe_prune.engines.base import Engine, Observer
from pycaffe_prune.experiments.baselines import Baseline, best
from pycaffe_prune.experiments.paths import StageFolder
from pycaffe_prune.experiments.result import Setting
from pycaffe_prune.experiments.settings import Different, Iterations, Share
from pycaffe_prune.experiments.stages import Stage, StageOutput
from pycaffe_prune.formats.caffemodel import read_caffemodel, write_caffemodel
from pycaffe_prune.formats.prototxt import write_prototxt
from pycaffe_prune.methods.base import Bench, Chain, Method, Retraining
from pycaffe_prune.pruning.counts import weight_counts
from pycaffe_prune.pruning.criteria.units import UNIT_CRITERIA, units_to_delete
from pycaffe_prune.pruning.units import choose_units, delete_units

__all__ = ["UnitStage", "Units"]


class Units(Method):
    """Unit pruning (docs/protocol.md): scored once, deleted at once, retrained once."""

    title: ClassVar[str] = "unit pruning"
    setting: ClassVar[str] = "ratio"
    source: ClassVar[str] = "the paper, after He et al. 2014"

    kind: Literal["units"] = "units"
    layer: str | None = None
    """The layer whose share of deleted units is varied."""
    layers: Annotated[tuple[str, ...], Different] = ()
    """Or several layers, of which each loses the same share."""
    ratios: Annotated[tuple[Share, ...], Different]
    fixed: dict[str, Share] = Field(default_factory=dict)
    """Share of the units deleted in other layers, the same at every point."""
    criterion: str = "onorm"
    iterations: Iterations

    @field_validator("criterion")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in UNIT_CRITERIA:
            known = ", ".join(sorted(UNIT_CRITERIA))
            raise ValueError(f"no unit criterion is called '{name}'; there are: {known}")
        return name

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> Self:
        if (self.layer is None) == (not self.layers):
            raise ValueError("give either layer or layers: whose share of units is varied")
        if both := sorted(set(self.varied) & set(self.fixed)):
            raise ValueError(f"the share of layer '{both[0]}' is varied and fixed; give one")
        return self

    @property
    def varied(self) -> tuple[str, ...]:
        """The layers whose share of deleted units is varied."""
        return self.layers if self.layer is None else (self.layer,)

    def check(self, layers: Sequence[str], others: Sequence[Method]) -> None:  # noqa: ARG002, D102
        if unknown := [name for name in (*self.varied, *self.fixed) if name not in layers]:
            raise ValueError(f"'{unknown[0]}' is none of the layers, which are {', '.join(layers)}")

    def chains(self, bench: Bench) -> Sequence[Chain]:  # noqa: D102  (see Method)
        return [self._chain(bench, ratio) for ratio in self.ratios]

    def _chain(self, bench: Bench, ratio: float) -> Chain:
        shares = {**dict.fromkeys(self.varied, ratio), **self.fixed}
        ratios = tuple((name, shares[name]) for name in bench.context.layers if name in shares)
        units = bench.units
        left = tuple((name, units[name] - units_to_delete(units[name], r)) for name, r in ratios)
        stage = UnitStage(bench.context, self.iterations, bench.baselines, ratios, self.criterion)
        return Chain((stage,), ratio, left)

    def most_stages(self, others: Sequence[Method]) -> int:  # noqa: ARG002, D102  (see Method)
        return len(self.ratios)

    def tell(self, value: float | None, units: Mapping[str, int] | None) -> Setting:
        """Return the share, and in words the units that are left, as the paper's tables do."""
        return super().tell(None, units).model_copy(update={"value": value})


@dataclass(frozen=True, eq=False)
class UnitStage(Retraining):
    """Unit pruning: score once, delete at once, retrain once."""

    baselines: tuple[Baseline, ...]
    ratios: tuple[tuple[str, float], ...]
    """Share of the units to delete, per layer."""
    criterion: str

    kind = "units"

    @property
    def inputs(self) -> tuple[Stage, ...]:  # noqa: D102  (see Stage)
        return self.baselines

    @property
    def settings(self) -> Mapping[str, object]:  # noqa: D102  (see Stage)
        return {"ratios": self.ratios, "criterion": self.criterion}

    @property
    def label(self) -> str:  # noqa: D102  (see Stage)
        return "units-" + "-".join(f"{name}-{ratio:g}" for name, ratio in self.ratios)

    def work(self, folder: StageFolder, engine: Engine, observe: Observer) -> StageOutput:  # noqa: D102
        start = best(self.baselines)
        net = self.context.read_net()
        original = read_caffemodel(start.folder.training.final_weights)
        kept = choose_units(net, original, dict(self.ratios), criterion=self.criterion)
        small_net, small = delete_units(net, original, kept)
        write_prototxt(folder.net, small_net)
        write_caffemodel(folder.pruned, small)
        result = self._train(
            folder, engine, observe, start.seed, net=folder.net, weights=folder.pruned
        )
        units = {name: int(keep.sum()) for name, keep in kept.items()}
        return self._found(
            folder, observe, result, weight_counts(small, self.context.layers), units
        )
