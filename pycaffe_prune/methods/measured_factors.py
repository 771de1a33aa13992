"""The factors of Han et al. 2015 from the sensitivity of each layer: no method itself."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from pycaffe_prune.engines.base import Engine, Observer
from pycaffe_prune.experiments.baselines import Baseline, best
from pycaffe_prune.experiments.paths import StageFolder
from pycaffe_prune.experiments.rate_curves import rate_curves
from pycaffe_prune.experiments.settings import Different
from pycaffe_prune.experiments.stages import Stage, StageOutput
from pycaffe_prune.formats.caffemodel import Caffemodel, read_caffemodel
from pycaffe_prune.formats.files import write_text
from pycaffe_prune.methods.automatic_rates import RATES, Rates
from pycaffe_prune.pruning.connections import prune_to_ratios
from pycaffe_prune.pruning.counts import weight_counts
from pycaffe_prune.pruning.quality_factors import quality_factors

__all__ = ["FactorsStage", "Measured"]


class Measured(BaseModel):
    """How factors are measured: each layer pruned alone, nothing retrained."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: Annotated[tuple[str, ...], Different] = Field(min_length=1)
    """Convolutions and InnerProducts."""
    loses: float = Field(default=0.005, gt=0, lt=1)
    """The share of right answers that each may lose alone; its factor prunes it as far."""
    rates: Rates = RATES
    """Where what each loses is measured; the last one is the highest that it may get."""
    images: int = Field(default=5_000, gt=0)
    """The first of the training images: factors are chosen on them, never on the test set."""


@dataclass(frozen=True, eq=False)
class FactorsStage(Stage):
    """The factor of each layer of the net that is pruned; nothing is trained."""

    baselines: tuple[Baseline, ...]
    measured: Measured

    kind = "han2015-factors"

    @property
    def inputs(self) -> tuple[Stage, ...]:  # noqa: D102  (see Stage)
        return self.baselines

    @property
    def settings(self) -> Mapping[str, object]:  # noqa: D102  (see Stage)
        return self.measured.model_dump(mode="json")

    @property
    def label(self) -> str:  # noqa: D102  (see Stage)
        return f"han2015-factors-{self.measured.loses:g}"

    @property
    def files(self) -> tuple[Path, ...]:  # noqa: D102  (see Stage)
        return (*super().files, self._said(self.folder))

    @staticmethod
    def _said(folder: StageFolder) -> Path:
        return folder.path / "factors.json"

    def factors(self) -> dict[str, float]:
        """Return what was measured, by layer; the stage is done."""
        found: dict[str, float] = json.loads(self._said(self.folder).read_bytes())["factors"]
        return found

    def work(self, folder: StageFolder, engine: Engine, observe: Observer) -> StageOutput:  # noqa: D102
        start = best(self.baselines)
        source, measured = start.folder.training.final_weights, self.measured
        model, testing = read_caffemodel(source), folder.path / "testing"

        def pruned(layer: str, rate: float) -> Caffemodel:
            return prune_to_ratios(model, {layer: rate})[0]

        curves = rate_curves(
            self.context,
            testing,
            engine,
            model,
            {name: model.layer(name).blobs[0].size for name in measured.layers},
            measured.rates,
            pruned,
            measured.images,
        )
        shutil.rmtree(testing)
        rates = {name: curve.rate_within(measured.loses) for name, curve in curves.items()}
        factors = {name: factor for (name, _), factor in quality_factors(model, rates).items()}
        write_text(
            self._said(folder), json.dumps({"rates": rates, "factors": factors}, indent=1) + "\n"
        )
        net = self._whole_net(folder)
        result = self._train(folder, engine, observe, start.seed, net=net, weights=source)
        return self._found(folder, observe, result, weight_counts(model, self.context.layers), None)
