"""Units merged without data: each that goes leaves its outgoing weights to the one most like it."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from pycaffe_prune.engines.base import Engine
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel
from pycaffe_prune.methods.base import Bench
from pycaffe_prune.methods.unit_points import Shares, UnitMethod, UnitPoint
from pycaffe_prune.pruning.merging import merge_units
from pycaffe_prune.pruning.units import Kept

__all__ = ["Merge", "MergeStage"]


class Merge(UnitMethod):
    """Units merged without data (Srinivas and Babu 2015), and retrained once."""

    title: ClassVar[str] = "units merged"
    source: ClassVar[str] = "Srinivas and Babu 2015"

    kind: Literal["merge"] = "merge"

    def stage(self, bench: Bench, shares: Shares) -> "MergeStage":  # noqa: D102  (see UnitMethod)
        return MergeStage(bench.context, self.iterations, bench.baselines, shares)


@dataclass(frozen=True, eq=False)
class MergeStage(UnitPoint):
    """Merge units, retrain once."""

    kind = "merge"

    def choose(  # noqa: D102  (see UnitPoint)
        self,
        net: NetParameter,
        model: Caffemodel,
        engine: Engine,  # noqa: ARG002
    ) -> tuple[Caffemodel, Kept]:
        return merge_units(net, model, dict(self.shares))
