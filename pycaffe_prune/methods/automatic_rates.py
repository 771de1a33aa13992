"""Automatic rates: a rate for each layer, chosen from what each loses alone, under one budget."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, field_validator

from pycaffe_prune.engines.base import Engine, Observer
from pycaffe_prune.errors import FormatError
from pycaffe_prune.experiments.baselines import Baseline, best
from pycaffe_prune.experiments.input_shapes import input_shapes
from pycaffe_prune.experiments.paths import StageFolder
from pycaffe_prune.experiments.rate_curves import rate_curves
from pycaffe_prune.experiments.result import Setting
from pycaffe_prune.experiments.settings import Different, Iterations
from pycaffe_prune.experiments.stages import Stage, StageOutput
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import (
    BlobKey,
    Caffemodel,
    read_caffemodel,
    write_caffemodel,
)
from pycaffe_prune.formats.files import sha256_of, write_text
from pycaffe_prune.formats.mask import MaskFile, write_mask
from pycaffe_prune.formats.prototxt import write_prototxt
from pycaffe_prune.methods.base import Bench, Chain, Method, Retraining
from pycaffe_prune.pruning.budget import Quantity
from pycaffe_prune.pruning.budget_ways import (
    Pruned,
    Way,
    budget_of,
    own_rates,
    same_rate,
    way_of_connections,
    way_of_units,
)
from pycaffe_prune.pruning.counts import weight_counts
from pycaffe_prune.pruning.criteria.units import UNIT_CRITERIA
from pycaffe_prune.pruning.selection import connection_layers
from pycaffe_prune.pruning.sharing import first_of_each, shared_blobs
from pycaffe_prune.pruning.units import (
    delete_units,
    prunable_layers,
    unit_counts,
    units_together,
)
from pycaffe_prune.pruning.weight_blobs import weights_of

__all__ = ["RATES", "AutomaticRates", "Rates", "RatesStage", "connection_places", "unit_sizes"]

_Rate = Annotated[float, Field(gt=0, lt=1)]
Rates = Annotated[
    tuple[_Rate, ...],
    Field(min_length=1),
    Different,
    AfterValidator(lambda rates: tuple(sorted(rates))),
]
"""Shares of a layer's weights or units, rising."""
RATES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995)
_Budget = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class AutomaticRates(Method):
    """Connections or units pruned once at rates per layer for one budget, and retrained.

    What each layer loses alone is measured on training images; one rate for all is the comparison.
    """

    title: ClassVar[str] = "automatic rates"
    setting: ClassVar[str] = "budget"
    source: ClassVar[str] = "the paper's future work"

    kind: Literal["automatic-rates"] = "automatic-rates"
    prunes: Literal["connections", "units"] = "connections"
    allocation: Literal["sensitivity", "one-rate"] = "sensitivity"
    """How the budget is shared out over the layers."""
    quantity: Quantity = "parameters"
    budgets: Annotated[tuple[_Budget, ...], Different] = Field(min_length=1)
    """Numbers, or below 1 shares of what the whole net has."""
    layers: Annotated[tuple[str, ...], Different] = ()
    """Those that are pruned, convolutions too; none: the experiment's, as far as they can be."""
    criterion: str = "onorm"
    """Of units."""
    rates: Rates = RATES
    """Where the loss is measured; the last one is the highest that a layer may get."""
    images: int = Field(default=5_000, gt=0)
    """The first of the training images: rates are chosen on them, never on the test set."""
    iterations: Iterations

    @field_validator("criterion")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in UNIT_CRITERIA:
            known = ", ".join(sorted(UNIT_CRITERIA))
            raise ValueError(f"no unit criterion is called '{name}'; there are: {known}")
        return name

    def chains(self, bench: Bench) -> Sequence[Chain]:  # noqa: D102  (see Method)
        names = {layer.name for layer in bench.net.layer}
        if missing := [name for name in self.layers if name not in names]:
            raise FormatError(f"automatic-rates: the net has no layer '{missing[0]}'")
        return [
            Chain(
                (RatesStage(bench.context, self.iterations, bench.baselines, self, budget),), budget
            )
            for budget in self.budgets
        ]

    def most_stages(self, others: Sequence[Method]) -> int:  # noqa: ARG002, D102  (see Method)
        return len(self.budgets)

    def tell(self, value: float | None, units: Mapping[str, int] | None) -> Setting:  # noqa: ARG002
        """Return the budget."""
        text = "" if value is None else f"{self.quantity} = {value:g}"
        return Setting(name=self.setting, value=value, text=text)


@dataclass(frozen=True, eq=False)
class RatesStage(Retraining):
    """Rates for one budget, measured, chosen, pruned once and retrained."""

    baselines: tuple[Baseline, ...]
    method: AutomaticRates
    budget: float

    kind = "automatic-rates"

    @property
    def files(self) -> tuple[Path, ...]:  # noqa: D102  (see Stage)
        masks = (self.folder.mask,) if self.method.prunes == "connections" else ()
        return (*super().files, *masks, self._said(self.folder))

    @property
    def inputs(self) -> tuple[Stage, ...]:  # noqa: D102  (see Stage)
        return self.baselines

    @property
    def settings(self) -> Mapping[str, object]:  # noqa: D102  (see Stage)
        told = ["prunes", "allocation", "quantity", "layers"]
        told += ["criterion"] if self.method.prunes == "units" else []
        told += ["rates", "images"] if self.method.allocation == "sensitivity" else []
        chosen = {name: getattr(self.method, name) for name in told}
        last = {} if "rates" in told else {"last": self.method.rates[-1]}
        return {**chosen, **last, "budget": self.budget, "counted": self.context.layers}

    @property
    def label(self) -> str:  # noqa: D102  (see Stage)
        method = self.method
        return f"{method.allocation}-{method.prunes}-{method.quantity}-{self.budget:g}"

    @staticmethod
    def _said(folder: StageFolder) -> Path:
        return folder.path / "rates.json"

    def work(self, folder: StageFolder, engine: Engine, observe: Observer) -> StageOutput:  # noqa: D102
        start = best(self.baselines)
        source = start.folder.training.final_weights
        net, model, inputs = (
            self.context.read_net(),
            read_caffemodel(source),
            input_shapes(self.context),
        )
        quantity, prunes = self.method.quantity, self.method.prunes
        budget, _ = budget_of(net, model, quantity, self.budget, inputs)
        counted = self.context.layers
        if prunes == "connections":
            places = connection_places(net, model, self.method.layers or counted)
            sizes = {
                name: sum(model.layer(name).blobs[index].size for _, index in keys)
                for name, keys in places.items()
            }
            way = way_of_connections(net, model, places, quantity, inputs)
        else:
            free = tuple(name for name in prunable_layers(net, model) if name in counted)
            sizes = unit_sizes(net, model, self.method.layers or free or counted)
            way = way_of_units(net, model, sizes, quantity, self.method.criterion, inputs)
        rates = self._rates(folder, engine, model, way, sizes, budget)
        pruned = way.prune(rates)
        said = {"budget": budget, "amount": pruned.amount, "quantity": quantity, "rates": rates}
        write_text(self._said(folder), json.dumps(said, indent=1) + "\n")
        if prunes == "units":
            return self._of_units(folder, engine, observe, net, model, pruned, start.seed)
        write_caffemodel(folder.pruned, pruned.model)
        write_mask(folder.mask, MaskFile(pruned.masks, sha256_of(source), "magnitude", said))
        result = self._train(
            folder,
            engine,
            observe,
            start.seed,
            net=self._whole_net(folder),
            weights=folder.pruned,
            mask=folder.mask,
        )
        kept = weight_counts(model, self.context.layers)
        kept |= {name: left for name, left in pruned.kept.items() if name in kept}
        return self._found(folder, observe, result, kept, None)

    def _rates(
        self,
        folder: StageFolder,
        engine: Engine,
        model: Caffemodel,
        way: Way,
        sizes: Mapping[str, int],
        budget: int,
    ) -> dict[str, float]:
        rates = self.method.rates
        if self.method.allocation == "one-rate":
            return same_rate(way, dict.fromkeys(sizes, rates[-1]), budget)
        testing = folder.path / "testing"
        curves = rate_curves(
            self.context,
            testing,
            engine,
            model,
            sizes,
            rates,
            lambda layer, rate: way.prune({layer: rate}).model,
            self.method.images,
        )
        shutil.rmtree(testing)
        return own_rates(way, curves, budget)

    def _of_units(
        self,
        folder: StageFolder,
        engine: Engine,
        observe: Observer,
        net: NetParameter,
        model: Caffemodel,
        pruned: Pruned,
        seed: int,
    ) -> StageOutput:
        small_net, small = delete_units(net, model, pruned.units)
        write_prototxt(folder.net, small_net)
        write_caffemodel(folder.pruned, small)
        result = self._train(folder, engine, observe, seed, net=folder.net, weights=folder.pruned)
        units = {name: int(keep.sum()) for name, keep in pruned.units.items()}
        kept = weight_counts(small, self.context.layers)
        return self._found(folder, observe, result, kept, units)


def connection_places(
    net: NetParameter, model: Caffemodel, names: Sequence[str]
) -> dict[str, list[BlobKey]]:
    """Return the matrices of each layer; those that layers share in the first of them alone.

    Raises:
        FormatError: A layer has none.
    """
    types = dict(connection_layers(net, model))
    if strange := [name for name in names if name not in types]:
        raise FormatError(
            f"automatic-rates: layer '{strange[0]}' has no connections to prune; the layers that "
            f"have: {', '.join(types)}"
        )
    places: dict[str, list[BlobKey]] = {}
    for key in first_of_each(shared_blobs(net), weights_of(names, types, model)):
        places.setdefault(key[0], []).append(key)
    return places


def unit_sizes(net: NetParameter, model: Caffemodel, names: Sequence[str]) -> dict[str, int]:
    """Return the units of each layer; layers that lose theirs together are in it once.

    Raises:
        FormatError: No unit of a layer can be deleted.
    """
    counts, free = unit_counts(net, model), prunable_layers(net, model)
    if fixed := [name for name in names if name not in free]:
        raise FormatError(
            f"automatic-rates: no unit of layer '{fixed[0]}' can be deleted; the layers of which "
            f"some can: {', '.join(free)}"
        )
    together = {name: group for group in units_together(net, model) for name in group}
    first = {together[name]: name for name in reversed(names)}
    return {name: counts[name] for name in names if name in first.values()}
