"""Filters with the lowest sum of absolute weights deleted (Li et al. 2017)."""

from typing import ClassVar, Literal

from pycaffe_prune.errors import FormatError
from pycaffe_prune.methods.base import Bench
from pycaffe_prune.methods.unit_points import RankedUnits, Shares, UnitMethod

__all__ = ["L1Filters"]

_WITH_FILTERS = frozenset({"Convolution", "Deconvolution"})


class L1Filters(UnitMethod):
    """Filters of the lowest L1 norm deleted at once, and retrained once (Li et al. 2017)."""

    title: ClassVar[str] = "L1 filters"
    source: ClassVar[str] = "Li et al. 2017"

    kind: Literal["l1-filters"] = "l1-filters"

    def stage(self, bench: Bench, shares: Shares) -> RankedUnits:
        """Return the stage of one point.

        Raises:
            FormatError: A layer has no filters.
        """
        types = {layer.name: layer.type for layer in bench.net.layer}
        for name, _ in shares:
            if types[name] not in _WITH_FILTERS:
                raise FormatError(
                    f"method '{self.called}': layer '{name}' ({types[name]}) has no filters; name "
                    'Convolution layers, or take the kind units with criterion = "l1"'
                )
        return RankedUnits(bench.context, self.iterations, bench.baselines, shares, "l1", 0)
