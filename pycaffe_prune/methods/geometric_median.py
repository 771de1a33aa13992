"""Units and filters nearest to all others deleted (He et al. 2019)."""

from typing import ClassVar, Literal

from pycaffe_prune.methods.base import Bench
from pycaffe_prune.methods.unit_points import RankedUnits, Shares, UnitMethod

__all__ = ["GeometricMedian"]


class GeometricMedian(UnitMethod):
    """Units nearest to the geometric median deleted at once, retrained once (He et al. 2019)."""

    title: ClassVar[str] = "geometric median"
    source: ClassVar[str] = "He et al. 2019"

    kind: Literal["geometric-median"] = "geometric-median"

    def stage(self, bench: Bench, shares: Shares) -> RankedUnits:  # noqa: D102  (see UnitMethod)
        return RankedUnits(
            bench.context, self.iterations, bench.baselines, shares, "geometric-median", 0
        )
