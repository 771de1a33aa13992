"""What shrinking is worth at equal accuracy: bytes, multiply-accumulates, energy by method.

All is counted on the nets that were trained; the energy is an estimate (`pruning.energy`).
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import TypeVar

from pycaffe_prune.experiments.result import ExperimentResult, Point, Speed
from pycaffe_prune.pruning.energy import image_energy
from pycaffe_prune.reports.methods.curves import MethodPoint, method_curves, unpruned
from pycaffe_prune.reports.once import once
from pycaffe_prune.reports.rows import parameter
from pycaffe_prune.reports.tables import Grid

_T = TypeVar("_T")

__all__ = ["LOSSES", "WORTH_NOTE", "Worth", "worth", "worth_grid"]

LOSSES = (0.1, 0.5, 1.0)
"""Points of accuracy that may be lost against the unpruned nets' mean."""

WORTH_NOTE = (
    "Of each method the smallest net whose mean accuracy is at most so many points below the "
    "unpruned nets'. Bytes are those of the smallest form; times: smaller than the unpruned net's "
    "float32 values. MACs are for one image: in Caffe those without dead units, zeros multiplied "
    "too. µJ for one image are estimated by the table for 45 nm of Han et al. 2016 (EIE): in Caffe "
    "float32 weights are read from DRAM; coded, the bytes of the smallest form, and zeros are "
    "neither read nor multiplied. What decoding takes is left out. ms: measured in the real Caffe "
    "(`reproduce --measure`), of one thread without dead units, for one image alone and for each "
    "of a batch."
)
_WHOLE = "baseline"
_VALUE = 4
_MICRO = 1e6  # picojoules


@dataclass(frozen=True)
class Worth:
    """A method's smallest net within a loss; means over its seeds."""

    loss: float
    """Points that may be lost; 0: the unpruned net itself."""
    name: str
    """The method as points call it."""
    method: str
    """Its title."""
    setting: str
    accuracy: float
    """%."""
    seeds: int
    stored: float
    """Bytes in the smallest form."""
    smaller: float | None
    """How many times smaller than the unpruned net's values as float32; None: nothing is stored."""
    caffe_macs: float | None
    """For one image as stock Caffe does them: without dead units, with zeros; None: not known."""
    macs: float | None
    """With weights that are not zero."""
    caffe_energy: float | None
    """Microjoules for one image where float32 weights are read and all is multiplied."""
    energy: float | None
    """Microjoules where what is stored is read, and zeros are not multiplied."""
    milliseconds: float | None
    """Of a thread, for one image in the real Caffe without dead units; None: not measured."""
    milliseconds_each: float | None
    """The same for each image of a batch."""


@dataclass(frozen=True)
class _Work:
    """What one net of Caffe's multiplies, and what of it is not zero."""

    parameters: float
    caffe_macs: float | None
    macs: float | None
    speeds: tuple[Speed, ...]


@once
def worth(result: ExperimentResult) -> Sequence[Worth]:
    """Return for each loss of `LOSSES` the methods that keep to it, by bytes.

    The unpruned net comes first. Empty where nets were not measured.
    """
    curves, begun = method_curves(result), unpruned(result)
    if not curves or begun is None:
        return ()
    works = _works(result)
    dense = _VALUE * works[_WHOLE, ""].parameters

    def row(loss: float, name: str, title: str, point: MethodPoint) -> Worth:
        setting = "" if name == _WHOLE else point.setting
        work = works[name, setting]
        return Worth(
            loss=loss,
            name=name,
            method=title,
            setting=setting,
            accuracy=point.accuracy,
            seeds=point.seeds,
            stored=point.stored,
            smaller=dense / point.stored if point.stored else None,
            caffe_macs=work.caffe_macs,
            macs=work.macs,
            caffe_energy=_energy(_VALUE * work.parameters, work.caffe_macs),
            energy=_energy(point.stored, work.macs),
            milliseconds=_mean(work.speeds, lambda speed: speed.one),
            milliseconds_each=_mean(work.speeds, lambda speed: speed.each),
        )

    found = [row(0.0, _WHOLE, "unpruned", begun)]
    for loss in LOSSES:
        within = [
            (curve, min(kept, key=lambda point: (point.stored, -point.accuracy)))
            for curve in curves
            if (kept := _kept(curve.points, begun.accuracy - loss))
        ]
        rows = [row(loss, curve.name, curve.title, point) for curve, point in within]
        found += sorted(rows, key=lambda one: one.stored)
    return tuple(found)


def _kept(points: Sequence[MethodPoint], least: float) -> list[MethodPoint]:
    # A mean of shares is off by a rounding at most, and no test has a billion images
    return [point for point in points if point.accuracy >= least - 1e-9]


def _works(result: ExperimentResult) -> dict[tuple[str, str], _Work]:
    """By method and setting; the unpruned net's setting is empty."""
    alike: dict[tuple[str, str], list[Point]] = defaultdict(list)
    for point in result.points:
        if point.selected and point.sizes is not None:
            setting = "" if point.method == _WHOLE else parameter(point)
            alike[point.method, setting].append(point)
    return {key: _work(points) for key, points in alike.items()}


def _work(points: Sequence[Point]) -> _Work:
    sizes = [point.sizes for point in points if point.sizes is not None]
    run = [size.alive or size.whole for size in sizes]
    return _Work(
        parameters=mean(net.parameters for net in run),
        caffe_macs=_mean(run, lambda net: net.macs),
        macs=_mean(run, lambda net: net.non_zero_macs),
        speeds=tuple(point.speed for point in points if point.speed is not None),
    )


def _mean(measured: Sequence[_T], count: Callable[[_T], float | None]) -> float | None:
    """The mean of what is known of all; None where it is not, or there are none."""
    counts = [found for one in measured if (found := count(one)) is not None]
    return mean(counts) if counts and len(counts) == len(measured) else None


def _energy(stored: float, macs: float | None) -> float | None:
    return None if macs is None else image_energy(stored, macs).total / _MICRO


def worth_grid(result: ExperimentResult) -> Grid:
    """Return a line for each method within each loss; none where nets were not measured."""
    heads = (
        "points lost",
        "method",
        "accuracy %",
        "bytes",
        "times",
        "MACs in Caffe",
        "MACs not zero",
        "µJ in Caffe",
        "µJ coded",
        "ms, one",
        "ms, batch",
        "setting",
    )
    return Grid(heads, tuple(map(_line, worth(result))), numbers=9)


def _line(row: Worth) -> tuple[str, ...]:
    return (
        f"at most {row.loss:g}" if row.loss else "–",
        row.method,
        f"{row.accuracy:.2f}",
        f"{row.stored:,.0f}",
        "–" if row.smaller is None else f"{row.smaller:.3g}x",
        *("–" if count is None else f"{count:,.0f}" for count in (row.caffe_macs, row.macs)),
        *("–" if told is None else f"{told:.3g}" for told in (row.caffe_energy, row.energy)),
        *("–" if t is None else f"{t:.3f}" for t in (row.milliseconds, row.milliseconds_each)),
        row.setting or "–",
    )
