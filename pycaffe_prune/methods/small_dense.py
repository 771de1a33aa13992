"""Small dense nets of equal size: the control for every way to shrink a net."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from pycaffe_prune.engines.base import Engine, Event, Observer
from pycaffe_prune.errors import FormatError
from pycaffe_prune.experiments.input_shapes import input_shapes
from pycaffe_prune.experiments.paths import StageFolder
from pycaffe_prune.experiments.result import Setting
from pycaffe_prune.experiments.settings import Different, Iterations, Seed
from pycaffe_prune.experiments.stages import Stage, StageOutput
from pycaffe_prune.formats.caffemodel import read_caffemodel
from pycaffe_prune.formats.prototxt import write_prototxt
from pycaffe_prune.methods.base import Bench, Chain, Method
from pycaffe_prune.net.widths import with_widths
from pycaffe_prune.pruning.budget import Quantity, SizeBudget, dense_amount
from pycaffe_prune.pruning.counts import weight_counts
from pycaffe_prune.pruning.sizes import NetSize
from pycaffe_prune.pruning.small_dense import least_amount, small_widths

__all__ = ["SmallDense", "SmallDenseModel"]

_TOO_SMALL = (
    "the point to match has {amount:,} {quantity}, the narrowest dense net {least:,}; that one is "
    "trained, and is larger than the point"
)
_Budget = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class SmallDense(Method):
    """Dense nets whose hidden layers are all narrowed by one factor, trained from scratch.

    Each is the largest within a budget: one that is told, or what a point of another method has.
    """

    title: ClassVar[str] = "small dense model"
    setting: ClassVar[str] = "budget"
    source: ClassVar[str] = "the control that Blalock et al. 2020 ask for"

    kind: Literal["small-dense"] = "small-dense"
    quantity: Quantity = "parameters"
    """What is equal."""
    budgets: Annotated[tuple[_Budget, ...], Different] = ()
    """Numbers, or below 1 shares of what the whole net has."""
    of: str | None = None
    """Or the method whose points tell the budgets; its table comes before. Where a point is smaller
    than the narrowest dense net, that one is trained, and a warning says so."""
    layers: Annotated[tuple[str, ...], Different] = ()
    """Those that are narrowed, convolutions too; none: all hidden ones."""
    seeds: Annotated[tuple[Seed, ...], Different] = Field(min_length=1)
    iterations: Iterations

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> Self:
        if (self.of is None) == (not self.budgets):
            raise ValueError("give either budgets or of: the method whose points tell them")
        return self

    def check(self, layers: Sequence[str], others: Sequence[Method]) -> None:  # noqa: ARG002, D102
        known = [method.called for method in others]
        if self.of is not None and self.of not in known:
            raise ValueError(
                f"of: no method before it is called '{self.of}'; there are: {', '.join(known)}"
            )

    def chains(self, bench: Bench) -> Sequence[Chain]:  # noqa: D102  (see Method)
        told = [(budget, None, budget) for budget in self.budgets]
        rivals = [] if self.of is None else _one_of_each(bench.planned[self.of])
        taken = [(None, chain.stages[-1], chain.value) for chain in rivals]
        return [
            Chain((stage,), value, rivals=stage.told)
            for budget, rival, value in (*told, *taken)
            for seed in self.seeds
            for stage in (
                SmallDenseModel(
                    bench.context, self.iterations, self.quantity, budget, rival, self.layers, seed
                ),
            )
        ]

    def most_stages(self, others: Sequence[Method]) -> int:  # noqa: D102  (see Method)
        rivals = (
            other.most_stages(others[:place])
            for place, other in enumerate(others)
            if other.called == self.of
        )
        return (len(self.budgets) or sum(rivals)) * len(self.seeds)

    def tell(self, value: float | None, units: Mapping[str, int] | None) -> Setting:
        """Return the budget, or what tells the point apart that has as much."""
        if self.of is None or value is None:
            found = super().tell(value, units)
            text = f"{self.quantity} = {value:g}" if value is not None else found.text
        else:
            text = f"{self.quantity} of {self.of} {value:g}"
        return Setting(name=self.setting, value=value, text=text)


def _one_of_each(chains: Sequence[Chain]) -> list[Chain]:
    """The chains without those that differ from an earlier one in their seed alone."""
    first: dict[str, Chain] = {}
    for place, chain in enumerate(chains):
        first.setdefault(chain.rivals or f"{place}", chain)
    return list(first.values())


@dataclass(frozen=True, eq=False)
class SmallDenseModel(Stage):
    """A net of the largest widths within a budget, trained from scratch."""

    quantity: Quantity
    budget: float | None
    """None: what ``rival`` has."""
    rival: Stage | None
    layers: tuple[str, ...]
    seed: int

    kind = "small-dense"

    @property
    def inputs(self) -> tuple[Stage, ...]:  # noqa: D102  (see Stage)
        return () if self.rival is None else (self.rival,)

    @property
    def settings(self) -> Mapping[str, object]:  # noqa: D102  (see Stage)
        told = {} if self.budget is None else {"budget": self.budget}
        return {"quantity": self.quantity, **told, "narrowed": self.layers, "seed": self.seed}

    @property
    def told(self) -> str:
        """The budget in a word."""
        as_told = f"{self.budget:g}" if self.rival is None else f"of-{self.rival.label}"
        return f"{self.quantity}-{as_told}"

    @property
    def label(self) -> str:  # noqa: D102  (see Stage)
        return f"dense-{self.told}-seed{self.seed}"

    def work(self, folder: StageFolder, engine: Engine, observe: Observer) -> StageOutput:  # noqa: D102
        net, inputs = self.context.read_net(), input_shapes(self.context)
        if self.budget is None:
            least = least_amount(net, self.quantity, self.layers or None, inputs)
            amount = self._of_rival()
            if amount < least:
                told = _TOO_SMALL.format(amount=amount, least=least, quantity=self.quantity)
                observe(Event(event="warning", message=told))
                amount = least
        elif self.budget < 1:
            amount = int(self.budget * dense_amount(net, self.quantity, inputs))
        else:
            amount = int(self.budget)
        budget = SizeBudget(self.quantity, amount)
        widths = small_widths(net, budget, self.layers or None, inputs)
        write_prototxt(folder.net, with_widths(net, widths))
        result = self._train(folder, engine, observe, self.seed, net=folder.net)
        trained = read_caffemodel(folder.training.final_weights)
        kept = weight_counts(trained, self.context.layers)
        return self._found(folder, observe, result, kept, widths)

    def _of_rival(self) -> int:
        """What the rival's net has where zeros are left out: in bytes, in its smallest form."""
        if self.rival is None:
            raise TypeError("neither a budget nor a stage that has one")
        found = self.rival.require_output()
        amount = None if found.sizes is None else _amount(found.sizes.whole, self.quantity)
        if amount is None:
            raise FormatError(
                f"{self.rival.folder.path}: says nothing of its net's {self.quantity}, which "
                f"{self.label} is to have; remove this folder and run `caffe-prune reproduce` again"
            )
        return amount


def _amount(size: NetSize, quantity: Quantity) -> int | None:
    if quantity == "parameters":
        return size.kept_parameters
    return size.non_zero_macs if quantity == "macs" else min(size.stored_bytes.values())
