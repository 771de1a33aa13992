"""A pre-trained experiment beside its control: what pre-training changes (docs/transfer.md)."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from pycaffe_prune.errors import FormatError
from pycaffe_prune.experiments.paths import ExperimentFolder, StageFolder
from pycaffe_prune.experiments.result import ExperimentResult, read_result
from pycaffe_prune.formats.caffemodel import read_caffemodel
from pycaffe_prune.formats.prototxt import read_net
from pycaffe_prune.reports.paper.weigh import trial_of
from pycaffe_prune.reports.transfer.order import (
    Gap,
    after_one_set,
    compared,
    difference_of,
    gaps_of,
)
from pycaffe_prune.reports.transfer.weights import SHOWN_ALPHAS, NetShape, net_shape
from pycaffe_prune.reports.uncertainty.trials import Comparison, Side, shared_level, side_of

__all__ = ["Level", "Measured", "NetWeights", "TransferStudy", "Variant", "study"]

_FROM = Fraction("0.795")
"""Shapes count from a reduction of 80 %, rounded, on: there the paper's figures begin."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Measured(_Model):
    """A difference of accuracies, in points."""

    points: float
    over_images: tuple[float, float]
    """The interval over the test images, the seeds as they are."""
    over_seeds: tuple[float, float] | None
    """The interval over the seeds, the images as they are; None: one seed."""
    side: Side
    """Of 0, by the least interval that holds both."""


class Level(_Model):
    """Unit pruning and connection pruning at the reduction of a unit-pruned shape; all in %."""

    setting: str
    reduction: float
    units: float
    """Mean accuracy over the seeds."""
    connections: float
    """The same, between the connection-pruned nets on both sides."""
    difference: Measured
    """Units minus connections; all levels together hold at 95 %."""


class NetWeights(_Model):
    """The weights of one unpruned net."""

    stage: Literal["pre-trained", "fine-tuned", "from random values"]
    seed: int
    shape: NetShape


class Variant(_Model):
    """An experiment: pre-trained, or its control."""

    preset: str
    seeds: tuple[int, ...]
    pretraining: tuple[float, ...]
    """Accuracies of the pre-trained nets on their own test images, in %."""
    baseline: tuple[float, ...]
    """Accuracies of the unpruned nets, in %, one a seed."""
    lost: dict[str, float]
    """By method: points that its nets lose to their baselines, the mean over the levels."""
    levels: tuple[Level, ...]
    order: Measured
    """Units minus connections, the mean over the levels."""
    order_after_one_set: Measured | None
    """The same with the connection-pruned nets as they are after their first set: trained as long
    as the unit-pruned ones. None: no level lies within that curve in both experiments."""
    nets: tuple[NetWeights, ...]


class TransferStudy(_Model):
    """Both, and their difference."""

    experiment: str
    title: str
    test_images: int
    pretrained: Variant
    control: Variant
    change: Measured
    """How much more unit pruning is ahead after pre-training than without it."""
    change_after_one_set: Measured | None
    levels_after_one_set: int


def study(pretrained: Path, control: Path) -> TransferStudy:
    """Compare two finished experiments.

    Args:
        pretrained: The run folder of the one that begins with a pre-training.
        control: That of the one that begins with random values.

    Raises:
        FormatError: A result is missing or damaged, their test images differ, the weights of an
            unpruned net are not in the folder, or as `order.gaps_of`.
    """
    results = [read_result(ExperimentFolder(path).result) for path in (pretrained, control)]
    first, second = results
    if not first.pretraining or second.pretraining:
        raise FormatError(
            f"{pretrained if not first.pretraining else control}: an experiment with a "
            "[pretraining] and then one without it are compared"
        )
    if first.data != second.data:
        raise FormatError(f"{pretrained} and {control}: were trained or tested on other data")
    mine, yours = _in_common(results)
    if not mine:
        raise FormatError(
            f"{pretrained} and {control}: have no unit-pruned shape within both connection curves"
        )
    early, late = _in_common([after_one_set(result) for result in results])
    return TransferStudy(
        experiment=first.experiment,
        title=first.title,
        test_images=first.data.test_images,
        pretrained=_variant(first, pretrained, mine, early),
        control=_variant(second, control, yours, late),
        change=_measured(difference_of(mine, yours)),
        change_after_one_set=_measured(difference_of(early, late)) if early else None,
        levels_after_one_set=len(early),
    )


def _in_common(results: Sequence[ExperimentResult]) -> tuple[list[Gap], list[Gap]]:
    """The gaps of the shapes that count and that both experiments have within their curves."""
    first, second = (_counted(gaps_of(result)) for result in results)
    common = [name for name in first if name in second]
    return [first[name] for name in common], [second[name] for name in common]


def _counted(gaps: Mapping[str, Gap]) -> dict[str, Gap]:
    return {name: gap for name, gap in gaps.items() if gap.reduction >= _FROM}


def _variant(
    result: ExperimentResult, folder: Path, gaps: Sequence[Gap], early: Sequence[Gap]
) -> Variant:
    baselines = {
        point.seed: 100 * float(trial_of(point).share) for point in result.select("baseline")
    }
    seeds = gaps[0].seeds
    level = shared_level(len(gaps))
    levels = tuple(_level(gap, compared([gap], level)) for gap in gaps)
    top = sum(baselines[seed] for seed in seeds) / len(seeds)
    return Variant(
        preset=result.preset,
        seeds=seeds,
        pretraining=tuple(100 * row.after.accuracy for row in result.pretraining),
        baseline=tuple(baselines[seed] for seed in seeds),
        lost={
            "units": top - sum(row.units for row in levels) / len(levels),
            "connections": top - sum(row.connections for row in levels) / len(levels),
        },
        levels=levels,
        order=_measured(compared(gaps)),
        order_after_one_set=_measured(compared(early)) if early else None,
        nets=tuple(_nets(result, folder, seeds)),
    )


def _level(gap: Gap, comparison: Comparison) -> Level:
    return Level(
        setting=gap.setting,
        reduction=100 * float(gap.reduction),
        units=100 * float(gap.units),
        connections=100 * float(gap.units - gap.difference),
        difference=_measured(comparison),
    )


def _measured(found: Comparison) -> Measured:
    seeds = found.over_seeds
    return Measured(
        points=100 * float(found.difference),
        over_images=(100 * found.over_images.low, 100 * found.over_images.high),
        over_seeds=None if seeds is None else (100 * seeds.low, 100 * seeds.high),
        side=side_of(found.interval),
    )


def _nets(result: ExperimentResult, folder: Path, seeds: Sequence[int]) -> list[NetWeights]:
    """The weights of the unpruned nets, and of those that were pre-trained."""
    settings = result.settings["methods"]
    tried = {alpha for row in settings for alpha in row.get("alphas", ())}
    alphas = sorted(tried.union(SHOWN_ALPHAS))
    varied = next(row for row in settings if row["kind"] == "units")
    units = varied["layers"] or [varied["layer"]]
    tuned: Literal["fine-tuned", "from random values"] = (
        "fine-tuned" if result.pretraining else "from random values"
    )
    found = []
    for seed in seeds:
        if result.pretraining:
            found.append(_net(folder, "pre-trained", seed, units, alphas))
        found.append(_net(folder, tuned, seed, units, alphas))
    return found


def _net(
    folder: Path,
    stage: Literal["pre-trained", "fine-tuned", "from random values"],
    seed: int,
    units: Sequence[str],
    alphas: Sequence[float],
) -> NetWeights:
    label = f"{'pretraining' if stage == 'pre-trained' else 'baseline'}-seed{seed}"
    places = sorted((folder / "stages").glob(f"{label}-*"))
    if len(places) != 1:
        raise FormatError(f"{folder / 'stages'}: holds {len(places)} stages {label}, not one")
    training = StageFolder(places[0]).training
    net, model = read_net(training.net), read_caffemodel(training.final_weights)
    layers = [layer.name for layer in net.layer if layer.type == "InnerProduct"]
    shape = net_shape(net, model, layers, list(units), list(alphas))
    return NetWeights(stage=stage, seed=seed, shape=shape)
