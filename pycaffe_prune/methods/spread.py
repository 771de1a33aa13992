"""Units deleted without data, their outgoing weights spread over all units that stay."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from pycaffe_prune.engines.base import Engine
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel
from pycaffe_prune.methods.base import Bench
from pycaffe_prune.methods.unit_points import Shares, UnitMethod, UnitPoint
from pycaffe_prune.pruning.spreading import spread_units
from pycaffe_prune.pruning.units import Kept

__all__ = ["Spread", "SpreadStage"]


class Spread(UnitMethod):
    """Units spread over those that stay, without data, and retrained once."""

    title: ClassVar[str] = "units spread"
    source: ClassVar[str] = "ours, after Hassibi and Stork 1993"

    kind: Literal["spread"] = "spread"

    def stage(self, bench: Bench, shares: Shares) -> "SpreadStage":  # noqa: D102  (see UnitMethod)
        return SpreadStage(bench.context, self.iterations, bench.baselines, shares)


@dataclass(frozen=True, eq=False)
class SpreadStage(UnitPoint):
    """Spread units, retrain once."""

    kind = "spread"

    def choose(  # noqa: D102  (see UnitPoint)
        self,
        net: NetParameter,
        model: Caffemodel,
        engine: Engine,  # noqa: ARG002
    ) -> tuple[Caffemodel, Kept]:
        return spread_units(net, model, dict(self.shares))
