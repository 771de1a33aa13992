"""Units ranked by entropy, onorm or inorm, per layer or over all, at once or in steps (He 2014)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from pycaffe_prune.engines.base import Engine, Observer
from pycaffe_prune.errors import DataError
from pycaffe_prune.experiments.baselines import Baseline, best
from pycaffe_prune.experiments.features.unit_states import entropy_scores
from pycaffe_prune.experiments.paths import StageFolder
from pycaffe_prune.experiments.settings import MOST_ROUNDS
from pycaffe_prune.experiments.stages import Stage, StageOutput
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, read_caffemodel, write_caffemodel
from pycaffe_prune.formats.prototxt import read_net, write_prototxt
from pycaffe_prune.methods.base import Bench, Chain, Method, Retraining
from pycaffe_prune.methods.unit_points import Shares, UnitMethod, images_of
from pycaffe_prune.pruning.counts import weight_counts
from pycaffe_prune.pruning.unit_choice import UnitScores, units_over_all, weight_scores
from pycaffe_prune.pruning.unit_steps import (
    ScoreUnits,
    lowest_in_steps,
    lowest_over_all_in_steps,
    step_ratios,
)
from pycaffe_prune.pruning.units import Kept, delete_units, unit_counts

__all__ = ["He2014", "HeStep", "Ranking"]

Criterion = Literal["entropy", "inorm", "onorm"]
Scope = Literal["layer", "all"]


class He2014(UnitMethod):
    """Units ranked by entropy, onorm or inorm, deleted at once or in steps (He et al. 2014)."""

    title: ClassVar[str] = "units ranked"
    source: ClassVar[str] = "He et al. 2014"

    kind: Literal["he2014"] = "he2014"
    criterion: Criterion = "entropy"
    scope: Scope = "layer"
    """Whether each layer loses its share, or all layers together theirs, in one ranking."""
    steps: int = Field(default=1, gt=0, le=MOST_ROUNDS)
    """In each of them what is left is scored anew."""
    retrained: Literal["at-the-end", "each-step"] = "at-the-end"
    """When what is left is trained for ``iterations``."""
    images: int = Field(default=10_000, gt=0, lt=1_000_000)
    """The first so many training images, for entropy."""

    def chains(self, bench: Bench) -> Sequence[Chain]:  # noqa: D102  (see Method)
        return [self._chain(bench, ratio) for ratio in self.ratios]

    def _chain(self, bench: Bench, ratio: float) -> Chain:
        shares = self.shares(bench, ratio)
        ranking = Ranking(self.criterion, self.scope, self.images)
        rounds = self.steps if self.retrained == "each-step" else 1
        chain: list[HeStep] = []
        for number in range(rounds):
            at_once = self.steps if rounds == 1 else 1
            chain.append(
                HeStep(
                    bench.context,
                    self.iterations,
                    bench.baselines,
                    shares,
                    ranking,
                    chain[-1] if chain else None,
                    (number + 1, rounds),
                    at_once,
                )
            )
        left = self.left(bench, ratio) if self.scope == "layer" else None
        return Chain(tuple(chain), ratio, left)

    def stage(self, bench: Bench, shares: Shares) -> Stage:  # noqa: D102  (see UnitMethod)
        return self._chain(bench, shares[0][1]).stages[-1]

    def most_stages(self, others: Sequence[Method]) -> int:  # noqa: ARG002, D102  (see Method)
        return len(self.ratios) * (self.steps if self.retrained == "each-step" else 1)


@dataclass(frozen=True)
class Ranking:
    """By what units are ranked, and among which."""

    criterion: Criterion
    scope: Scope
    images: int


@dataclass(frozen=True, eq=False)
class HeStep(Retraining):
    """The units with the lowest scores deleted, all or those of one round; the rest retrained."""

    baselines: tuple[Baseline, ...]
    shares: Shares
    ranking: Ranking
    previous: "HeStep | None"
    round: tuple[int, int]
    """Its number, counted from 1, and how many there are."""
    at_once: int
    """Steps within this stage, without training in between."""

    kind = "he2014"

    @property
    def inputs(self) -> tuple[Stage, ...]:  # noqa: D102  (see Stage)
        return (*self.baselines, *([self.previous] if self.previous else []))

    @property
    def files(self) -> tuple[Path, ...]:  # noqa: D102  (see Stage)
        return (*super().files, self.folder.net)

    @property
    def settings(self) -> Mapping[str, object]:  # noqa: D102  (see Stage)
        ranking = self.ranking
        images = {"images": ranking.images} if ranking.criterion == "entropy" else {}
        return {
            "shares": self.shares,
            "criterion": ranking.criterion,
            "scope": ranking.scope,
            "round": self.round,
            "at_once": self.at_once,
            **images,
        }

    @property
    def label(self) -> str:  # noqa: D102  (see Stage)
        named = "-".join(f"{name}-{ratio:g}" for name, ratio in self.shares)
        number, rounds = self.round
        step = f"-step{number}-of-{rounds}" if rounds > 1 else ""
        step += f"-in-{self.at_once}" if self.at_once > 1 else ""
        return f"{self.ranking.criterion}-{self.ranking.scope}-{named}{step}"

    def work(self, folder: StageFolder, engine: Engine, observe: Observer) -> StageOutput:  # noqa: D102
        start = best(self.baselines)
        whole = self.context.read_net()
        original = read_caffemodel(start.folder.training.final_weights)
        net, model = whole, original
        if self.previous is not None:
            net = read_net(self.previous.folder.net)
            model = read_caffemodel(self.previous.folder.training.final_weights)
        kept = self._kept((whole, original), (net, model), engine)
        small_net, small = delete_units(net, model, kept)
        write_prototxt(folder.net, small_net)
        write_caffemodel(folder.pruned, small)
        result = self._train(
            folder, engine, observe, start.seed, net=folder.net, weights=folder.pruned
        )
        counted = weight_counts(small, self.context.layers)
        units = {name: int(keep.sum()) for name, keep in kept.items()}
        return self._found(folder, observe, result, counted, units)

    def _kept(
        self,
        whole: tuple[NetParameter, Caffemodel],
        current: tuple[NetParameter, Caffemodel],
        engine: Engine,
    ) -> Kept:
        score, (net, model), (number, rounds) = self._score(engine), current, self.round
        layers, ratios = [name for name, _ in self.shares], dict(self.shares)
        if self.ranking.scope == "layer":
            counts = unit_counts(*whole)
            now = {
                name: step_ratios(counts[name], ratio, rounds)[number - 1]
                for name, ratio in ratios.items()
            }
            return lowest_in_steps(net, model, score, now, self.at_once)
        total = units_over_all(*whole, layers)
        share = step_ratios(total, self.shares[0][1], rounds)[number - 1]
        return lowest_over_all_in_steps(net, model, score, layers, share, self.at_once)

    def _score(self, engine: Engine) -> ScoreUnits:
        layers, ranking, context = [name for name, _ in self.shares], self.ranking, self.context
        if ranking.criterion != "entropy":
            return lambda net, model: weight_scores(net, model, layers, criterion=ranking.criterion)
        source = images_of(context, context.read_net())
        if ranking.images > source.count:
            raise DataError(f"{source.database}: holds {source.count} images, not {ranking.images}")

        def by_entropy(net: NetParameter, model: Caffemodel) -> UnitScores:
            return entropy_scores(
                net,
                context.net,
                model,
                layers,
                source,
                range(ranking.images),
                engine,
                trust=context.trust,
            )

        return by_entropy
