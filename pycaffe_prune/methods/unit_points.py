"""What methods that remove units have in common: a share a point, deletion, one retraining."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from pycaffe_prune.engines.base import Engine, Observer
from pycaffe_prune.errors import FormatError
from pycaffe_prune.experiments.baselines import Baseline, best
from pycaffe_prune.experiments.features.training_images import TrainingImages, training_images
from pycaffe_prune.experiments.paths import StageFolder
from pycaffe_prune.experiments.result import Setting
from pycaffe_prune.experiments.settings import Different, Iterations, Share
from pycaffe_prune.experiments.stages import Context, Stage, StageOutput
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, read_caffemodel, write_caffemodel
from pycaffe_prune.formats.prototxt import write_prototxt
from pycaffe_prune.methods.base import Bench, Chain, Method, Retraining
from pycaffe_prune.pruning.counts import weight_counts
from pycaffe_prune.pruning.criteria.units import units_to_delete
from pycaffe_prune.pruning.unit_choice import choose_units
from pycaffe_prune.pruning.units import Kept, delete_units

__all__ = ["RankedUnits", "Shares", "UnitMethod", "UnitPoint", "images_of"]

Shares = tuple[tuple[str, float], ...]
"""Share of the units to delete, per layer."""


class UnitMethod(Method):
    """A method that deletes a share of the units of some layers and retrains what is left."""

    setting: ClassVar[str] = "ratio"

    layers: Annotated[tuple[str, ...], Different, Field(min_length=1)]
    """Those that lose units; the filters of a Convolution are its units."""
    ratios: Annotated[tuple[Share, ...], Different]
    """Share of the units to delete, one a point."""
    iterations: Iterations

    @abstractmethod
    def stage(self, bench: Bench, shares: Shares) -> Stage:
        """Return the stage of one point."""

    def chains(self, bench: Bench) -> Sequence[Chain]:  # noqa: D102  (see Method)
        return [
            Chain((self.stage(bench, self.shares(bench, ratio)),), ratio, self.left(bench, ratio))
            for ratio in self.ratios
        ]

    def shares(self, bench: Bench, ratio: float) -> Shares:
        """Return the share of each layer, in the net's order.

        Raises:
            FormatError: The net has no such layer.
        """
        names = [layer.name for layer in bench.net.layer]
        if unknown := [name for name in self.layers if name not in names]:
            raise FormatError(f"method '{self.called}': the net has no layer '{unknown[0]}'")
        return tuple((name, ratio) for name in dict.fromkeys(names) if name in self.layers)

    def left(self, bench: Bench, ratio: float) -> tuple[tuple[str, int], ...] | None:
        """Return the units that are left, where all layers are InnerProduct layers."""
        units = bench.units
        if not set(self.layers) <= units.keys():
            return None
        return tuple(
            (name, count - units_to_delete(count, ratio))
            for name, count in units.items()
            if name in self.layers
        )

    def most_stages(self, others: Sequence[Method]) -> int:  # noqa: ARG002, D102  (see Method)
        return len(self.ratios)

    def tell(self, value: float | None, units: Mapping[str, int] | None) -> Setting:
        """Return the share, and in words the units that are left."""
        return super().tell(None, units).model_copy(update={"value": value})


@dataclass(frozen=True, eq=False)
class UnitPoint(Retraining):
    """Units deleted at once from the trained net, and the rest retrained once."""

    baselines: tuple[Baseline, ...]
    shares: Shares

    @property
    def inputs(self) -> tuple[Stage, ...]:  # noqa: D102  (see Stage)
        return self.baselines

    @property
    def settings(self) -> Mapping[str, object]:  # noqa: D102  (see Stage)
        return {"shares": self.shares}

    @property
    def label(self) -> str:  # noqa: D102  (see Stage)
        return f"{self.kind}-" + "-".join(f"{name}-{ratio:g}" for name, ratio in self.shares)

    @abstractmethod
    def choose(
        self, net: NetParameter, model: Caffemodel, engine: Engine
    ) -> tuple[Caffemodel, Kept]:
        """Return the weights to delete units from, and which units are kept."""

    def work(self, folder: StageFolder, engine: Engine, observe: Observer) -> StageOutput:  # noqa: D102
        start = best(self.baselines)
        net = self.context.read_net()
        source, kept = self.choose(
            net, read_caffemodel(start.folder.training.final_weights), engine
        )
        small_net, small = delete_units(net, source, kept)
        write_prototxt(folder.net, small_net)
        write_caffemodel(folder.pruned, small)
        result = self._train(
            folder, engine, observe, start.seed, net=folder.net, weights=folder.pruned
        )
        units = {name: int(keep.sum()) for name, keep in kept.items()}
        counted = weight_counts(small, self.context.layers)
        return self._found(folder, observe, result, counted, units)


def images_of(context: Context, net: NetParameter) -> TrainingImages:
    """Return the training images of an experiment's net.

    Raises:
        DataError: They cannot be read, or the TEST net reads them as well.
        FormatError: The net does not tell them.
    """
    return training_images(net, context.net, context.data, own=context.own, trust=context.trust)


@dataclass(frozen=True, eq=False)
class RankedUnits(UnitPoint):
    """The units of each layer with the lowest scores deleted, and the rest retrained once."""

    criterion: str
    seed: int

    kind = "ranked-units"

    @property
    def settings(self) -> Mapping[str, object]:  # noqa: D102  (see Stage)
        return {**super().settings, "criterion": self.criterion, "seed": self.seed}

    @property
    def label(self) -> str:  # noqa: D102  (see Stage)
        named = "-".join(f"{name}-{ratio:g}" for name, ratio in self.shares)
        return f"{self.criterion}-{named}" + (f"-seed{self.seed}" if self.seed else "")

    def choose(  # noqa: D102  (see UnitPoint)
        self,
        net: NetParameter,
        model: Caffemodel,
        engine: Engine,  # noqa: ARG002
    ) -> tuple[Caffemodel, Kept]:
        shares = dict(self.shares)
        return model, choose_units(net, model, shares, criterion=self.criterion, seed=self.seed)
