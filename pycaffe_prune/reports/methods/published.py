"""What authors report for the two LeNets on MNIST: points of theirs, to stand beside ours."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pycaffe_prune.experiments.result import ExperimentResult

__all__ = ["Published", "published"]


@dataclass(frozen=True)
class Published:
    """A net as its authors report it. Nothing of it was run here."""

    source: str
    accuracy: float
    """%: 100 less the error that they report."""
    kept: float
    """Weights that are not zero, in %."""
    stored: float | None
    """Bytes; None: they tell none. Their KB are of 1,000 bytes: 1,070 of them are a whole
    LeNet-300-100's float32 values."""


_PUBLISHED: Mapping[str, tuple[Published, ...]] = {
    "solvers/lenet_300_100.prototxt": (
        Published("Han et al. 2015", 98.41, 100 / 12, None),
        Published("Guo et al. 2016", 98.01, 100 / 56, None),
        Published("Han et al. 2016 (Deep Compression)", 98.42, 100 / 12, 27_000),
    ),
    "solvers/lenet.prototxt": (
        Published("Han et al. 2015", 99.23, 100 / 12, None),
        Published("Guo et al. 2016", 99.09, 100 / 108, None),
        Published("Han et al. 2016 (Deep Compression)", 99.26, 100 / 12, 44_000),
    ),
}
"""By the solver of the same net."""


def published(result: ExperimentResult) -> Sequence[Published]:
    """Return the authors' nets that a result may stand beside: those of the same net on MNIST."""
    solver, net = result.settings.get("solver"), result.settings.get("net") or {}
    same = isinstance(solver, str) and not net.get("units")
    if not same or result.data.name != "mnist" or result.data.is_sample:
        return ()
    return _PUBLISHED.get(str(solver), ())
